"""The posterior predictive of the outcome."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.data.scaling import Standard
from cm2pyro.inference.draws import drawn_groups
from cm2pyro.inference.program import Program

Matrix = NDArray[np.float64]
Alteration = Callable[[Program, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prediction:
    """Over draws of the latents (and of the global sites where they have a posterior).

    Attributes:
        mean, sd, q05, q95: (N, C) each, of the probabilities of C classes or labels; in a regression (N, 1), of the
            standardised outcome, observation noise included.
        log_score: (N,), of several labels (N, L): log predictive density of the data set's label, NaN where there is none.
    """

    mean: Matrix
    sd: Matrix
    q05: Matrix
    q95: Matrix
    log_score: Matrix

    def in_units(self, scaling: Standard | None) -> Self:
        """A regression's prediction in the units of its labels, from standardised ones; None: as it is."""
        if scaling is None:
            return self
        mean, q05, q95 = (scaling.inverse(x) for x in (self.mean, self.q05, self.q95))
        # The density of y is that of (y − loc) / scale, divided by scale.
        log_score = self.log_score - float(np.log(scaling.scale[0]))
        return replace(self, mean=mean, sd=self.sd * scaling.scale, q05=q05, q95=q95, log_score=log_score)


def predict(
    program: Program, dataset: Dataset, draws: int, seed: int, batch_size: int = 256, alter: Alteration | None = None
) -> Prediction:
    """The posterior predictive of every row; the spread of probabilities over draws is the uncertainty that missing data leaves.

    Every row uses the same noise: its numbers depend on the patient, the run, `draws` and `seed` alone.

    Args:
        alter: takes the program, draws of all latents (S, B, M, D) and observed (B, M); gives the draws to predict from.
    """
    training = program.training
    program.eval()
    groups = drawn_groups([program], draws, seed)
    likelihood = program.model.likelihood
    parts: list[Tensor] = []
    scores: list[Tensor] = []
    with torch.no_grad():
        for batch in dataset.batches(batch_size):
            batch = batch.to(groups[0].noise.device)
            represented = program.guide.represent(batch)  # once, whatever the number of mixtures: encoders are what costs
            z = torch.cat([group.draw(represented, batch.observed) for group in groups])
            if alter is not None:
                z = alter(program, z, batch.observed)
            outputs = program.model.outputs(z)
            parts.append(likelihood.summary(outputs).cpu())
            known = likelihood.known(batch.labels)
            score = likelihood.log_score(outputs, batch.labels)
            scores.append(torch.where(batch.labelled if known is None else known, score, torch.nan).cpu())
    program.train(training)
    mean, sd, q05, q95 = torch.cat(parts, 1).numpy() if parts else np.zeros((4, 0, likelihood.columns))
    return Prediction(mean, sd, q05, q95, torch.cat(scores).numpy() if scores else np.zeros(tuple(dataset.labels.shape)))

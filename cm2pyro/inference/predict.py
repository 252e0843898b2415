"""The posterior predictive of the outcome."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.data.scaling import Standard
from cm2pyro.inference import distributed
from cm2pyro.inference.draws import Alteration, Draws, posterior_draws
from cm2pyro.inference.program import ROWS_AT_ONCE, Program

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Over draws of the latents (and of the global sites where they have a posterior).

    Attributes:
        mean, sd, q05, q95: (N, C) each, of the probabilities of C classes or labels; in a regression (N, 1), of the
            standardised outcome, observation noise included.
        log_score: (N,), of several labels (N, L): log predictive density of the data set's label, NaN where there is none.
        before: mean before recalibration, (N, C); None where there was none.
    """

    mean: Matrix
    sd: Matrix
    q05: Matrix
    q95: Matrix
    log_score: Matrix
    before: Matrix | None = None

    def in_units(self, scaling: Standard | None) -> Self:
        """A regression's prediction in the units of its labels, from standardised ones; None: as it is."""
        if scaling is None:
            return self
        mean, q05, q95 = (scaling.inverse(x) for x in (self.mean, self.q05, self.q95))
        # The density of y is that of (y − loc) / scale, divided by scale.
        log_score = self.log_score - float(np.log(scaling.scale[0]))
        return replace(self, mean=mean, sd=self.sd * scaling.scale, q05=q05, q95=q95, log_score=log_score)


def predict(
    programs: Sequence[Program],
    dataset: Dataset,
    draws: int,
    seed: int,
    batch_size: int = ROWS_AT_ONCE,
    recalibrate: Callable[[Tensor], Tensor] | None = None,
    alter: Alteration | None = None,
    also: Callable[[Draws], None] | None = None,
) -> Prediction:
    """The posterior predictive of every row; the spread of probabilities over draws is the uncertainty that missing data leaves.

    Args:
        programs: one fit, or the members of an ensemble, whose predictive distributions are averaged.
        draws: of the latents, for each member. seed: of the noise, see `posterior_draws`.
        recalibrate: probabilities (..., C) -> (..., C), never falling. It maps the mean over the draws, which is what it was fitted
            to, and every draw, whose sd and quantiles are taken afterwards.
        alter: what to make of drawn latents before the outcome is predicted. also: called with the draws of every batch, of several
            processes with those of its own.
    """
    likelihood = programs[0].model.likelihood
    parts: list[Tensor] = []
    scores: list[Tensor] = []
    before: list[Tensor] = []
    for drawn in posterior_draws(programs, dataset, draws, seed, batch_size, alter):
        labels, parameters, log_weights = drawn.batch.labels, drawn.parameters, drawn.log_weights
        summary = likelihood.summary(parameters, log_weights)
        if recalibrate is not None:
            before.append(summary[0].cpu())
            recalibrated = recalibrate(summary[0])[None]
            summary = torch.cat([recalibrated, likelihood.summary(recalibrate(parameters), log_weights)[1:]])
            parameters, log_weights = recalibrated, None  # what the label is scored by
        parts.append(summary.cpu())
        known = likelihood.known(labels)
        score = likelihood.log_score(parameters, labels, log_weights)
        scores.append(torch.where(drawn.batch.labelled if known is None else known, score, torch.nan).cpu())
        if also is not None:
            also(drawn)
    if alter is None:
        parts, scores, before = (distributed.interleaved(each) for each in (parts, scores, before))
    mean, sd, q05, q95 = torch.cat(parts, 1).numpy() if parts else np.zeros((4, 0, likelihood.columns))
    log_score = torch.cat(scores).numpy() if scores else np.zeros(tuple(dataset.labels.shape))
    return Prediction(mean, sd, q05, q95, log_score, torch.cat(before).numpy() if before else None)

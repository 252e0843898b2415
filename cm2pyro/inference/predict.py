"""The posterior predictive of the outcome."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.program import Program

Matrix = NDArray[np.float64]
_GLOBAL_DRAWS = 20  # mixtures drawn where the global sites have a posterior; the latents' draws are spread over them


@dataclass(frozen=True)
class Prediction:
    """Over draws of the latents (and of the global sites where they have a posterior): (N, C) each, C classes."""

    probability: Matrix
    sd: Matrix
    q05: Matrix
    q95: Matrix


def predict(program: Program, dataset: Dataset, draws: int, seed: int, batch_size: int = 256) -> Prediction:
    """Class probabilities averaged over draws, and their spread, which is the uncertainty that missing data leaves.

    Every row uses the same noise: its numbers depend on the patient, the run, `draws` and `seed` alone.
    """
    training = program.training
    program.eval()
    device = next(program.parameters()).device
    M, D = len(dataset.names), program.structure.dim
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(draws, M, generator=generator)
    normal = torch.randn(draws, 2, M, D, generator=generator)
    if program.guide.globals.random:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            mixtures = [program.draw_mixture() for _ in range(min(draws, _GLOBAL_DRAWS))]
    else:
        mixtures = [program.mixture()]
    groups = torch.arange(draws).tensor_split(len(mixtures))
    parts: list[Tensor] = []
    with torch.no_grad():
        for batch in dataset.batches(batch_size):
            batch = batch.to(device)
            represented = program.guide.represent(batch)  # once, whatever the number of mixtures: encoders are what costs
            z = torch.cat(
                [
                    program.guide.draw(batch, mixture, (uniform[group].to(device), normal[group].to(device)), represented)
                    for mixture, group in zip(mixtures, groups, strict=True)
                ]
            )
            p = program.model.likelihood.probabilities(program.model.outputs(z)).double().cpu()  # (S, B, C)
            quantiles = torch.quantile(p, torch.tensor([0.05, 0.95], dtype=p.dtype), dim=0)
            parts.append(torch.stack([p.mean(0), p.std(0, unbiased=False), *quantiles]))
    program.train(training)
    stacked = torch.cat(parts, 1).numpy() if parts else np.zeros((4, 0, program.model.likelihood.classes))
    return Prediction(*stacked)

"""Draws of all latents: missing ones given the observed, observed ones from the encoders' posterior."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.draws import groups_of, mixtures_of
from cm2pyro.inference.program import Program


def impute(programs: Sequence[Program], dataset: Dataset, draws: int, seed: int, batch_size: int = 256) -> NDArray[np.float32]:
    """Draws of the latents, (E S, N, M, D), member by member of E programs.

    Each row has noise of its own, made from the seed and its id, so that the rows of a draw are independent given the
    global sites, as multiple imputation needs, and yet nobody's draws depend on who else is in the data.

    Args:
        programs: one, or the members of an ensemble. draws: S, of each program.
    """
    device = next(programs[0].parameters()).device
    mixtures = [mixtures_of(program, draws, seed) for program in programs]
    shape = (len(programs) * draws, len(dataset.names), programs[0].structure.dim)
    parts = [torch.zeros(shape[0], 0, *shape[1:])]
    training = [program.training for program in programs]
    with torch.no_grad():
        for program in programs:
            program.eval()
        for batch in dataset.batches(batch_size):
            own = zip(*[_own_noise(dataset.ids[row], seed, *shape) for row in batch.rows.tolist()], strict=True)
            uniform, seen, missing = (torch.stack(side, 1).to(device).split(draws) for side in own)
            batch = batch.to(device)
            drawn = []
            for e, program in enumerate(programs):
                represented = program.guide.represent(batch)
                z = program.guide.draw_observed(*represented, seen[e])
                for mixture, some in zip(mixtures[e], groups_of(draws, mixtures[e]), strict=True):
                    noise = uniform[e][some], missing[e][some]
                    drawn.append(program.guide.complete(z[some], batch.observed, mixture, noise, represented))
            parts.append(torch.cat(drawn).float().cpu())
        for program, mode in zip(programs, training, strict=True):
            program.train(mode)
    return torch.cat(parts, 1).numpy()


def _own_noise(name: str, seed: int, draws: int, modalities: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform (S, M) and two standard normals (S, M, D) of a row, for observed and for missing latents."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32).tolist()
    random = np.random.default_rng([seed, *words])
    shape = (draws, modalities, dim)
    made = random.random(shape[:-1], np.float32), random.standard_normal(shape, np.float32), random.standard_normal(shape, np.float32)
    uniform, seen, missing = (torch.from_numpy(x) for x in made)
    return uniform, seen, missing

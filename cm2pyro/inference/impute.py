"""Draws of all latents: missing ones given the observed, observed ones from the encoders' posterior."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.draws import drawn_groups
from cm2pyro.inference.program import Program


def impute(programs: Sequence[Program], dataset: Dataset, draws: int, seed: int, batch_size: int = 256) -> NDArray[np.float32]:
    """Draws of the latents, (E S, N, M, D), member by member of E programs.

    Each row has noise of its own, made from the seed and its id, so that the rows of a draw are independent given the
    global sites, as multiple imputation needs, and yet nobody's draws depend on who else is in the data.

    Args:
        programs: one, or the members of an ensemble. draws: S, of each program.
    """
    groups = drawn_groups(programs, draws, seed)
    shape = (len(programs) * draws, len(dataset.names), programs[0].structure.dim)
    sizes = [len(group) for group in groups]
    parts = [torch.zeros(shape[0], 0, *shape[1:])]
    training = [program.training for program in programs]
    with torch.no_grad():
        for program in programs:
            program.eval()
        for batch in dataset.batches(batch_size):
            noise = [_own_noise(dataset.ids[row], seed, *shape) for row in batch.rows.tolist()]
            batch = batch.to(groups[0].noise.device)
            of_rows = [torch.stack(side, 1).to(groups[0].noise.device).split(sizes) for side in zip(*noise, strict=True)]
            represented = {id(program): program.guide.represent(batch) for program in programs}
            z = []
            for group, uniform, seen, missing in zip(groups, *of_rows, strict=True):
                there = group.program.guide.draw_observed(*represented[id(group.program)], seen)
                z.append(group.complete(there, batch.observed, (uniform, missing)).float().cpu())
            parts.append(torch.cat(z))
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

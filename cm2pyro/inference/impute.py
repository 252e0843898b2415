"""Draws of all latents: missing ones given the observed, observed ones from the encoders' posterior."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.draws import globals_of, groups_of
from cm2pyro.inference.program import ROWS_AT_ONCE, Program, evaluating
from cm2pyro.models import Head

_PROPOSALS = 20  # to each draw that is kept


def impute(programs: Sequence[Program], dataset: Dataset, draws: int, seed: int) -> NDArray[np.float32]:
    """Draws of the latents, (E S, N, M, D), member by member of E programs.

    Each row has noise of its own, made from the seed and its id, so that the rows of a draw are independent given the
    global sites, as multiple imputation needs, and yet nobody's draws depend on who else is in the data.

    With a selection model they are draws of p(z | z_observed, r): of twenty times as many draws of p(z | z_observed) each row keeps
    S by their weights p(r | z) (sampling importance resampling, systematic).

    Args:
        programs: one, or the members of an ensemble. draws: S, of each program.
    """
    selected = programs[0].model.missingness is not None
    proposals = _PROPOSALS * draws if selected else draws
    like = next(programs[0].parameters())
    globals_ = [globals_of(program, draws, seed) for program in programs]
    shape = (len(programs) * proposals, len(dataset.names), programs[0].structure.dim)
    parts = [torch.zeros(len(programs) * draws, 0, *shape[1:])]
    with evaluating(programs), torch.no_grad():
        for batch in dataset.batches(ROWS_AT_ONCE):
            own = zip(*[_own_noise(dataset.ids[row], seed, *shape) for row in batch.rows.tolist()], strict=True)
            uniform, seen, missing, start = (torch.stack(side, 1).to(like).split(proposals) for side in own)
            batch = batch.to(like.device)
            drawn = []
            for e, program in enumerate(programs):
                represented = program.guide.represent(batch)
                z = program.guide.draw_observed(*represented, seen[e])
                mixtures = globals_[e].mixtures
                heads: list[Head | None] = [*globals_[e].heads] or [None] * len(mixtures)
                groups = zip(mixtures, heads, groups_of(proposals, mixtures), groups_of(draws, mixtures), strict=True)
                for mixture, head, some, left in groups:
                    noise = uniform[e][some], missing[e][some]
                    filled = program.guide.complete(z[some], batch.observed, mixture, noise, represented)
                    log_weights = program.model.log_selection(filled, batch.observed, head)
                    if log_weights is not None:
                        filled = _resampled(filled, log_weights, left.stop - left.start, start[e][some][0])
                    drawn.append(filled)
            parts.append(torch.cat(drawn).float().cpu())
    return torch.cat(parts, 1).numpy()


def _resampled(z: Tensor, log_weights: Tensor, size: int, start: Tensor) -> Tensor:
    """`size` draws by their weights, row by row: z (P, B, M, D), log_weights (P, B), start (B,) in [0, 1) -> (size, B, M, D)."""
    places = (torch.arange(size, device=z.device)[:, None] + start) / size  # (size, B)
    upto = log_weights.double().softmax(0).cumsum(0)
    chosen = torch.searchsorted(upto.mT.contiguous(), places.double().mT.contiguous()).clamp_max(len(z) - 1).mT  # (size, B)
    return z.gather(0, chosen[..., None, None].expand(*chosen.shape, *z.shape[2:]))


def _own_noise(name: str, seed: int, draws: int, modalities: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uniform (S, M) and two standard normals (S, M, D) of a row, for observed and for missing latents; uniform (S,) for resampling."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint32).tolist()
    random = np.random.default_rng([seed, *words])
    shape = (draws, modalities, dim)
    made = random.random(shape[:-1], np.float32), random.standard_normal(shape, np.float32), random.standard_normal(shape, np.float32)
    uniform, seen, missing = (torch.from_numpy(x) for x in made)
    return uniform, seen, missing, torch.from_numpy(random.random(draws, np.float32))

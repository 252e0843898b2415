"""Noise of a minibatch that several processes share: every one draws that of all rows and keeps its own rows' part.

So what a fit draws does not depend on how many processes share a batch. In a single process all of this is torch's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """One process's rows of a batch.

    Attributes:
        rank: of the process. start, rows: the rows' place in the batch and their number. of: rows of the whole batch.
        weight: of their terms, so that the mean over processes is that of all rows.
    """

    rank: int
    start: int
    rows: int
    of: int
    weight: float = 1.0


@dataclass
class _Drawing:
    share: Share
    device: torch.device
    seed: int
    own: int = 0  # blocks of `own` so far


_drawing: _Drawing | None = None


@contextmanager
def shared(share: Share | None, device: torch.device, seed: int) -> Iterator[None]:
    """While the block runs noise is drawn for the whole batch. None: as if this were not there.

    Args:
        seed: of the step: what `own` draws depends on it and on the process.
    """
    global _drawing
    _drawing = None if share is None else _Drawing(share, device, seed)
    try:
        yield
    finally:
        _drawing = None


@contextmanager
def own() -> Iterator[None]:
    """What the block draws is this process's own: dropout, whose shapes follow from the rows that it has.

    The generators that all processes share stay in step: they are left as they were.
    """
    if _drawing is None:
        yield
        return
    _drawing.own += 1
    devices = [_drawing.device] if _drawing.device.type == "cuda" else []
    seeds = np.random.SeedSequence((_drawing.seed, _drawing.share.rank, _drawing.own)).generate_state(2)
    before = np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(seeds[0]))
        np.random.seed(int(seeds[1]))  # our own code uses torch's generators alone, an encoder from outside may not
        try:
            yield
        finally:
            np.random.set_state(before)


def normal_like(x: Tensor, dim: int) -> Tensor:
    """Standard normal numbers like x, whose dimension `dim` goes over the rows of the batch."""
    return _like(x, dim, torch.randn_like)


def uniform_like(x: Tensor, dim: int) -> Tensor:
    """Uniform numbers like x, whose dimension `dim` goes over the rows of the batch."""
    return _like(x, dim, torch.rand_like)


def _like(x: Tensor, dim: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    if _drawing is None:
        return draw(x)
    share = _drawing.share
    shape = list(x.shape)
    shape[dim] = share.of
    # In the order of memory that `draw` would fill: it decides which number goes where.
    outer_first = sorted(range(x.dim()), key=lambda d: (-x.stride()[d], d))
    whole = x.new_empty([shape[d] for d in outer_first]).permute([outer_first.index(d) for d in range(x.dim())])
    return draw(whole).narrow(dim, share.start, share.rows)

"""Pooled features: a fixed summary of what a modality looks like, the same for every encoder that reads the view."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_BLOCKS = 8  # a side of the picture
_BUCKETS = 256  # of the words of a note
_HASH, _WORD = 2_654_435_761, 0xFFFFFFFF  # Knuth's multiplicative hash of 32-bit words


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _mean_over_bins(x: Tensor) -> Tensor:
    """(B, T, C) -> (B, C)."""
    return x.mean(1)


def _block_means(x: Tensor) -> Tensor:
    """(B, C, R, R) levels of 8 bits -> (B, 64), grey, from 0 to 1."""
    grey = x.float().mean(1, keepdim=True) / 255
    return torch.nn.functional.adaptive_avg_pool2d(grey, _BLOCKS).flatten(1)


def _hashed_words(x: Tensor) -> Tensor:
    """(B, notes, L) token ids, −1 where there is none -> (B, 256): log(1 + count) of the tokens in each bucket, over all notes."""
    tokens = x.long().flatten(1)
    bucket = (((tokens.clamp_min(0) * _HASH) & _WORD) >> 16) % _BUCKETS
    counts = torch.zeros(len(x), _BUCKETS, device=x.device)
    return counts.scatter_add_(1, bucket, (tokens >= 0).float()).log1p()


# In the order of preference: of several views of a modality one is decoded, or the same measurements would count twice.
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "summary": _as_it_is,
    "vector": _as_it_is,
    "binned": _mean_over_bins,
    "pixels": _block_means,
    "tokens": _hashed_words,
}


def pooled_view(views: Iterable[str]) -> str:
    """The view, of those that an encoder reads, from which its modality's features are pooled."""
    there = set(views)
    return next(view for view in _POOLS if view in there)


def pooled(view: str, x: Tensor) -> Tensor:
    """Pooled features of a view, without anything learned.

    summary, vector: as they are; binned: means over the bins; pixels: means of 8 × 8 blocks; tokens: log(1 + count) in 256 buckets
    of hashed tokens.

    Args:
        view: one of `pooled_view`. x: (B, ...), rows that lack the modality hold its fill.

    Returns:
        (B, F) floating point, finite.
    """
    return _POOLS[view](x)


def pooled_width(view: str, shape: tuple[int, ...]) -> int:
    """F, for rows of that shape."""
    return pooled(view, torch.zeros(1, *shape)).shape[1]

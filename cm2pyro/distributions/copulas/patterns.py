"""Which coordinates are observed, grouped: rows with the same pattern share their linear algebra."""

import torch
from torch import Tensor


def distinct_patterns(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Group rows by their pattern of observed coordinates.

    Args:
        observed: (..., M) bool, M <= 62.

    Returns:
        patterns (P, M) bool, and index (...,) long with patterns[index] == observed.
    """
    bits = 2 ** torch.arange(observed.shape[-1], device=observed.device)
    codes = (observed.long() * bits).sum(-1)
    distinct, index = torch.unique(codes, return_inverse=True)
    return (distinct[:, None] & bits).bool(), index

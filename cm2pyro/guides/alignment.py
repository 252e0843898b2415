"""Penalties that draw the latents of a patient's modalities together: ablations. A new one is one function and one line here."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from cm2pyro.registry import Registry

Alignment = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def cosine(loc_a: Tensor, scale_a: Tensor, loc_b: Tensor, scale_b: Tensor) -> Tensor:
    """1 − cos(loc_a, loc_b), 0 … 2: (B, D) each -> (B,)."""
    return 1 - torch.nn.functional.cosine_similarity(loc_a, loc_b, -1)


def kl(loc_a: Tensor, scale_a: Tensor, loc_b: Tensor, scale_b: Tensor) -> Tensor:
    """Mean of KL(q_a || q_b) and KL(q_b || q_a) of diagonal normals, in nats: (B, D) each -> (B,)."""
    squares = (loc_a - loc_b) ** 2
    # The logarithms of the scales cancel between the two directions.
    both = (scale_a**2 + squares) / scale_b**2 + (scale_b**2 + squares) / scale_a**2 - 2
    return both.sum(-1) / 4


ALIGNMENTS: Registry[Alignment] = Registry("alignment")
ALIGNMENTS.register("cosine", cosine)
ALIGNMENTS.register("kl", kl)


def penalty(alignment: Alignment, loc: Tensor, scale: Tensor, observed: Tensor) -> Tensor:
    """() the alignment summed over pairs of observed modalities, mean over rows: loc, scale (B, M, D), observed (B, M)."""
    total = loc.new_zeros(())
    for a, b in combinations(range(observed.shape[1]), 2):
        rows = (observed[:, a] & observed[:, b]).nonzero()[:, 0]
        if len(rows):
            total = total + alignment(loc[rows, a], scale[rows, a], loc[rows, b], scale[rows, b]).sum()
    return total / len(observed)

"""Polynomials in which the densities of Archimedean copulas are written."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def stirling2(n: int, k: int) -> int:
    """Stirling number of the second kind."""
    return sum((-1) ** (k - j) * math.comb(k, j) * j**n for j in range(k + 1)) // math.factorial(k)


def homogeneous(weights: Sequence[Tensor | float], h: Tensor, rest: Tensor) -> Tensor:
    """Σ_j w_j h^j rest^(n − 1 − j) for n weights, h and rest in [0, 1] that add up to 1."""
    total = torch.as_tensor(weights[0], dtype=h.dtype, device=h.device)
    power = h
    for weight in weights[1:]:
        total = total * rest + weight * power
        power = power * h
    return total

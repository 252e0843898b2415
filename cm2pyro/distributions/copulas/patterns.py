"""Rows grouped by which coordinates are observed: rows of one pattern share their formulas and their linear algebra."""

import math

import torch
from torch import Tensor

from cm2pyro.distributions import special


def distinct(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Patterns (P, M) bool among rows (..., M), and which of them each row has, (...,) long; M <= 62.

    How many there are is known after waiting for the device. So elsewhere than on a CPU the patterns are all 2^M that there can be,
    or one a row where rows are fewer.
    """
    M, device = observed.shape[-1], observed.device
    codes, bits = _codes(observed)
    if not special.waits(device):
        found, which = torch.unique(codes, return_inverse=True)
    elif codes.numel() >= 2**M:
        found, which = torch.arange(2**M, device=device), codes
    else:
        found, which = codes.reshape(-1), torch.arange(codes.numel(), device=device).reshape(codes.shape)
    return (found[:, None] & bits) > 0, which


def _codes(observed: Tensor) -> tuple[Tensor, Tensor]:
    """A number for each row's pattern (..., M) bool, and what each coordinate adds to it; M <= 62."""
    bits = 2 ** torch.arange(observed.shape[-1], device=observed.device)
    return (observed.long() * bits).sum(-1), bits


class Groups:
    """Rows grouped by pattern.

    Leading dimensions over which the pattern varies become rows; the others, among them where possible the copula's
    own batch dimension, are kept.

    Args:
        observed: (..., M) bool, broadcastable to `lead` + (M,). lead: batch shape of the values. batch_dims: how many
            trailing dimensions of `lead` belong to the copula's batch shape.

    Attributes:
        patterns: the distinct patterns, each a tuple of coordinates. dimension: per pattern, for each of its rows the
            index into the copula's batch, or None where the batch dimension was kept.
    """

    def __init__(self, observed: Tensor, lead: torch.Size, batch_dims: int) -> None:
        M = observed.shape[-1]
        observed = observed.reshape(*[1] * (len(lead) + 1 - observed.dim()), *observed.shape)
        varying = [i for i, size in enumerate(observed.shape[:-1]) if size != 1]
        split = varying[-1] + 1 if varying else 0
        by_element = split > len(lead) - batch_dims
        self.lead, self.split = lead, len(lead) if by_element else split
        self.rows_shape, self.kept = lead[: self.split], lead[self.split :]
        rows = observed.reshape(*observed.shape[: self.split], M).expand(*self.rows_shape, M).reshape(-1, M)
        codes, which, counts = torch.unique(_codes(rows)[0], return_inverse=True, return_counts=True)
        # Read at once, and the rows found by sorting: a device is waited for twice, however many patterns there are.
        found, sizes = torch.stack([codes, counts]).tolist()
        self.patterns = [tuple(m for m in range(M) if code >> m & 1) for code in found]
        self.rows: list[Tensor | None] = [None] * len(found)
        if len(found) > 1:
            self.rows = list(torch.argsort(which, stable=True).split(sizes))
        self.dimension: list[Tensor | None] = [None] * len(codes)
        if by_element and batch_dims:
            index = torch.arange(lead[-1], device=observed.device).expand(lead).reshape(-1)
            self.dimension = [index if rows is None else index[rows] for rows in self.rows]

    def part(self, p: int, x: Tensor, coordinates: tuple[int, ...] | None = None) -> Tensor:
        """Rows of pattern p of x (..., M), with the named coordinates only: (rows, *kept, n)."""
        if coordinates is not None and len(coordinates) < x.shape[-1]:
            x = x[..., list(coordinates)]
        x = x.expand(*self.lead, x.shape[-1])
        x = x.reshape((math.prod(self.rows_shape), *self.kept, x.shape[-1]))
        rows = self.rows[p]
        return x if rows is None else x.index_select(0, rows)

    def size(self, p: int) -> tuple[int, ...]:
        """Shape of a value per row of pattern p: (rows, *kept)."""
        rows = self.rows[p]
        return (math.prod(self.rows_shape) if rows is None else len(rows), *self.kept)

    def join(self, parts: list[Tensor]) -> Tensor:
        """Undo the grouping: one (rows, *kept, ...) per pattern -> (*lead, ...)."""
        if not parts:
            raise ValueError("nothing to join")
        x = torch.cat(parts) if len(parts) > 1 else parts[0]
        if len(parts) > 1:
            order = torch.cat([rows for rows in self.rows if rows is not None])
            x = x.index_select(0, torch.argsort(order))
        return x.reshape((*self.lead, *x.shape[1 + len(self.kept) :]))

"""Columns of a data set: a tensor with one row a sample, or one that holds only the rows that are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Views = dict[str, Tensor]  # what an encoder reads: view -> (B, ...)


@dataclass(frozen=True)
class Sparse:
    """Rows of which many may be missing, such as pictures: a missing one takes no memory and reads as `fill`.

    Attributes:
        values: (P, ...) the rows that are there, of any dtype. place: (N,) long, where row i is among them, -1 if it is missing.
    """

    values: Tensor
    place: Tensor
    fill: int = 0

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(B,) positions -> (B, ...)."""
        place = self.place[rows]
        found = place >= 0
        out = self.values.new_full((len(place), *self.values.shape[1:]), self.fill)
        out[found] = self.values[place[found]]
        return out

    def take(self, rows: Tensor) -> "Sparse":
        """Some of the rows; the values are shared, not copied."""
        return Sparse(self.values, self.place[rows], self.fill)


Column: TypeAlias = Tensor | Sparse
Columns = dict[str, Column]


def take(column: Column, rows: Tensor) -> Column:
    """Some rows of a column, as a column."""
    return column.take(rows) if isinstance(column, Sparse) else column[rows]


def joined(columns: Sequence[Column]) -> Column:
    """The rows of all, one after the other; columns of one view are of one sort."""
    if len(columns) == 1:
        return columns[0]
    if isinstance(columns[0], Tensor):
        return torch.cat([column if isinstance(column, Tensor) else column[torch.arange(len(column))] for column in columns])
    sparse = [column if isinstance(column, Sparse) else _as_sparse(column) for column in columns]
    starts = [0]
    for column in sparse:
        starts.append(starts[-1] + len(column.values))
    place = [torch.where(column.place >= 0, column.place + start, -1) for column, start in zip(sparse, starts[:-1], strict=True)]
    # One that is missing throughout has no values, and may not know their dtype or their fill.
    whole = next((column for column in sparse if len(column.values)), sparse[0])
    values = torch.cat([column.values.to(whole.values.dtype) for column in sparse])
    return Sparse(values, torch.cat(place), whole.fill)


def _as_sparse(column: Tensor) -> Sparse:
    return Sparse(column, torch.arange(len(column)))


def compact(column: Column) -> Column:
    """The same rows without values that none of them has."""
    if not isinstance(column, Sparse):
        return column
    there = column.place >= 0
    return Sparse(column.values[column.place[there]], torch.where(there, there.cumsum(0) - 1, -1), column.fill)


def finite(column: Column) -> bool:
    """Whether every value is a finite number."""
    values = column.values if isinstance(column, Sparse) else column
    return not values.is_floating_point() or bool(torch.isfinite(values).all())

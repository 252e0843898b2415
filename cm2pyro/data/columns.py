"""Columns of a data set: a tensor with one row a sample, or one that holds only the rows that are there."""

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


def finite(column: Column) -> bool:
    """Whether every value is a finite number."""
    values = column.values if isinstance(column, Sparse) else column
    return not values.is_floating_point() or bool(torch.isfinite(values).all())

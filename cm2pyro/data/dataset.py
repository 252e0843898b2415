"""Samples as tensors: what models and guides see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cm2pyro.data.columns import Columns, Views, finite, take
from cm2pyro.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Some rows of a data set.

    Attributes:
        inputs: modality -> view -> (B, ...). observed: (B, M) bool. labels: (B,) long, or float in a regression, 0 where
            unlabelled; of several labels (B, L) long, −1 where one is empty.
        labelled: (B,) bool, of several labels whether there is one. rows: (B,) positions in the data set.
        size: rows of the whole data set, for the plate.
        recorded: (B, M) bool, what was there before anything was hidden in training; None: as observed.
    """

    inputs: dict[str, Views]
    observed: Tensor
    labels: Tensor
    labelled: Tensor
    rows: Tensor
    size: int
    recorded: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        if self.observed.device == device:
            return self
        return Batch(
            {name: {view: x.to(device) for view, x in views.items()} for name, views in self.inputs.items()},
            self.observed.to(device),
            self.labels.to(device),
            self.labelled.to(device),
            self.rows.to(device),
            self.size,
            None if self.recorded is None else self.recorded.to(device),
        )

    def hiding(self, observed: Tensor) -> "Batch":
        """The same batch with fewer modalities observed."""
        return replace(self, observed=observed, recorded=self.found)

    @property
    def found(self) -> Tensor:
        """(B, M) bool: what the data have, whatever was hidden in training."""
        return self.observed if self.recorded is None else self.recorded


@dataclass(frozen=True)
class Dataset:
    """All rows, checked when built.

    Attributes:
        names: the M modalities. inputs: modality -> view -> column of N rows. observed: (N, M) bool.
        labels: (N,) long, −1 where unlabelled; of several labels (N, L); in a regression (N,) float, standardised, NaN where
            unlabelled. ids, subjects: N of each.
    """

    names: tuple[str, ...]
    inputs: dict[str, Columns]
    observed: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.ids)
        lengths = {"observed": len(self.observed), "labels": len(self.labels), "subjects": len(self.subjects)}
        lengths |= {f"{name}.{view}": len(x) for name, views in self.inputs.items() for view, x in views.items()}
        for what, length in lengths.items():
            if length != n:
                raise DataError(f"{what}: {length} rows; expected {n}, one a sample")
        if tuple(self.inputs) != self.names or self.observed.shape != (n, len(self.names)) or self.observed.dtype != torch.bool:
            raise DataError(f"observed: expected bool of shape ({n}, {len(self.names)}) for the modalities {', '.join(self.names)}")
        for name, views in self.inputs.items():
            for view, x in views.items():
                if not finite(x):
                    raise DataError(f"{name}.{view}: holds values that are not finite; fill them when the data is read")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> Tensor:
        """(N,) bool: which rows have a label; of several labels at least one."""
        return _labelled(self.labels)

    def take(self, rows: Sequence[int]) -> "Dataset":
        """A data set of some of the rows."""
        index = torch.as_tensor(rows, dtype=torch.long)
        return Dataset(
            self.names,
            {name: {view: take(x, index) for view, x in views.items()} for name, views in self.inputs.items()},
            self.observed[index],
            self.labels[index],
            tuple(self.ids[i] for i in index.tolist()),
            tuple(self.subjects[i] for i in index.tolist()),
        )

    def with_observed(self, observed: Tensor) -> "Dataset":
        """The same rows under another mask."""
        return replace(self, observed=observed)

    def batch(self, rows: Tensor) -> Batch:
        labels = self.labels[rows]
        return Batch(
            {name: {view: x[rows] for view, x in views.items()} for name, views in self.inputs.items()},
            self.observed[rows],
            labels if labels.dim() > 1 else labels.nan_to_num(0) if labels.is_floating_point() else labels.clamp_min(0),
            _labelled(labels),
            rows,
            len(self),
        )

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Every row once, in order, or shuffled by `generator`."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for rows in order.split(size):
            yield self.batch(rows)


def _labelled(labels: Tensor) -> Tensor:
    """(n,) bool: rows of `Dataset.labels` with at least one label."""
    there = torch.isfinite(labels) if labels.is_floating_point() else labels >= 0
    return there if there.dim() == 1 else there.any(1)

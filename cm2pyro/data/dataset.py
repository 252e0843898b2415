"""Samples as tensors: what models and guides see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cm2pyro.data.columns import Columns, Views, finite, take
from cm2pyro.data.columns import joined as join_columns
from cm2pyro.errors import DataError
from cm2pyro.noise import Share


@dataclass(frozen=True)
class Batch:
    """Some rows of a data set.

    Attributes:
        inputs: modality -> view -> (B, ...). observed: (B, M) bool. labels: (B,) long, or float in a regression, 0 where
            unlabelled; of several labels (B, L) long, −1 where one is empty.
        labelled: (B,) bool, of several labels whether there is one. rows: (B,) positions in the data set.
        size: rows of the whole data set, for the plate.
        recorded: (B, M) bool, what was there before anything was hidden in training; None: as observed.
        host: `observed` in the host's memory, where the batch lies elsewhere: what asks which rows have a modality need not wait there.
        share: which rows of a batch these are, where several processes have parts of it. whole: (rows of that batch, M) bool in the
            host's memory, `observed` of all of them, where that is known.
    """

    inputs: dict[str, Views]
    observed: Tensor
    labels: Tensor
    labelled: Tensor
    rows: Tensor
    size: int
    recorded: Tensor | None = None
    host: Tensor | None = None
    share: Share | None = None
    whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        if self.observed.device == device:
            return self
        return Batch(
            {name: {view: transferred(x, device) for view, x in views.items()} for name, views in self.inputs.items()},
            transferred(self.observed, device),
            transferred(self.labels, device),
            transferred(self.labelled, device),
            transferred(self.rows, device),
            self.size,
            None if self.recorded is None else transferred(self.recorded, device),
            self.mask,
            self.share,
            self.whole,
        )

    def hiding(self, observed: Tensor) -> "Batch":
        """The same batch with fewer modalities observed, in the host's memory: (B, M) bool, or where `whole` is known as that."""
        if self.share is None or self.whole is None:
            mine, whole = observed, self.whole
        else:
            mine, whole = observed[self.share.start : self.share.start + self.share.rows], observed
        there = transferred(mine, self.observed.device)
        return replace(self, observed=there, recorded=self.available, host=None if self.host is None else mine, whole=whole)

    @property
    def mask(self) -> Tensor:
        """`observed` in the host's memory."""
        return self.observed if self.host is None else self.host

    @property
    def weight(self) -> float:
        """Of the rows' terms in the objective."""
        return 1.0 if self.share is None else self.share.weight

    @property
    def complete(self) -> bool:
        """Whether no modality of any row is missing; of a batch of which others have unknown parts False."""
        if self.share is None:
            return bool(self.mask.numpy().all())
        return self.whole is not None and bool(self.whole.numpy().all())

    def having(self, m: int) -> Tensor | None:
        """Positions of the rows that have modality m, where the batch lies; None where no row has it."""
        rows = torch.from_numpy(np.flatnonzero(self.mask[:, m].numpy()))
        return transferred(rows, self.observed.device) if len(rows) else None

    @property
    def available(self) -> Tensor:
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
        """The rows at these positions (B,)."""
        labels = self.labels[rows]
        return Batch(
            {name: {view: x[rows] for view, x in views.items()} for name, views in self.inputs.items()},
            self.observed[rows],
            labels if labels.dim() > 1 else labels.nan_to_num(0) if labels.is_floating_point() else labels.clamp_min(0),
            _labelled(labels),
            rows,
            len(self),
        )

    def batches(self, size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """Every row once, in order, or shuffled by `generator`; the first `skip` batches are passed over."""
        for rows in self._order(size, generator)[skip:]:
            yield self.batch(rows)

    def _order(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """Positions of the rows of every batch."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        return order.split(size)

    def shares(self, size: int, generator: torch.Generator | None = None, skip: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """As `batches`; of each the part that falls to one of `world` processes, as equal as can be.

        Every process has rows in every batch: of one with fewer rows than processes each gets all, and the mean over them is the same.
        """
        if world == 1:
            yield from self.batches(size, generator, skip)
            return
        for rows in self._order(size, generator)[skip:]:
            n = len(rows)
            if n < world:
                share, mine = Share(rank, 0, n, n), rows
            else:
                start, stop = rank * n // world, (rank + 1) * n // world
                share, mine = Share(rank, start, stop - start, n, world * (stop - start) / n), rows[start:stop]
            yield replace(self.batch(mine), share=share, whole=self.observed[rows])

    @property
    def pilot(self) -> "Dataset":
        """Rows that are held in memory, enough to place a mixture and to watch latents: all of them."""
        return self

    def observed_share(self) -> list[float]:
        """M shares of rows that have each modality."""
        return [float(value) for value in self.observed.float().mean(0)]

    def unlabelled(self) -> int:
        """How many rows have no label."""
        return int((~self.labelled).sum())


def joined(parts: Sequence[Dataset]) -> Dataset:
    """The rows of all, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Dataset(
        first.names,
        {name: {view: join_columns([part.inputs[name][view] for part in parts]) for view in first.inputs[name]} for name in first.names},
        torch.cat([part.observed for part in parts]),
        torch.cat([part.labels for part in parts]),
        tuple(i for part in parts for i in part.ids),
        tuple(s for part in parts for s in part.subjects),
    )


def transferred(x: Tensor, device: torch.device) -> Tensor:
    """x on a device; to a CUDA one through pinned memory, so that neither side waits for the other."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def _labelled(labels: Tensor) -> Tensor:
    """(n,) bool: rows of `Dataset.labels` with at least one label."""
    there = torch.isfinite(labels) if labels.is_floating_point() else labels >= 0
    return there if there.dim() == 1 else there.any(1)

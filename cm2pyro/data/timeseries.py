"""Kind `timeseries`: irregular measurements as a regular grid, as summaries, or both."""

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cm2pyro.config import Modality
from cm2pyro.data.columns import Columns
from cm2pyro.data.kind import Kind, Learner
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.sampled import RowSample
from cm2pyro.data.scaling import Moments, QuantileNormal, Standard, curved
from cm2pyro.data.series import BIN_HOURS, HOURS, Events, read_series
from cm2pyro.data.summaries import SUMMARIES, summaries
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.registry import one_line

Matrix = NDArray[np.float64]
_OUTLIER = 5.0  # sd; values on the grid are clipped there

Names = Annotated[list[str], Field(min_length=1)]
Codes = Annotated[int, Field(ge=2, le=1000)]


class TimeSeries(Kind):
    """Views of a time series with V variables over `hours` hours, n codes in all among those that are categories.

    binned: (T, V − categories + n + V), T = hours / bin_hours: bin means in sd units, the last value carried forward, 0 before
        the first; the last code of the bin or before it, one-hot, 0 before the first; then 1 where the bin holds a measurement.
    measured: (T,) 1 where the bin holds a measurement of any variable.
    summary: (25 (V − categories) + 2 n,): per numeric variable 11 summaries (see `summaries`) as normal scores and their centred
        squares, whether it was measured, how often, and how long before the end of the window; per category the share of its
        measurements with each code, and the last code, one-hot.

    Args:
        variables: those that are read, in this order, also where training lacks one; by default all that training has.
        categories: variable -> number of codes; its values are whole numbers from 0.
    """

    offers = ("binned", "measured", "summary")
    names: tuple[str, ...]

    def __init__(
        self,
        name: str,
        modality: Modality,
        views: tuple[str, ...],
        *,
        variables: Names | None = None,
        categories: dict[str, Codes] | None = None,
    ) -> None:
        super().__init__(name, modality, views)
        self.variables = variables
        self.codes = categories or {}
        twice = [variable for variable in variables or [] if (variables or []).count(variable) > 1]
        if twice:
            raise ConfigError(f"modalities.{name}.variables: '{one_line(twice[0], 60)}' stands twice; expected every name once; remove one")
        absent = [variable for variable in self.codes if variables is not None and variable not in variables]
        if absent:
            raise ConfigError(f"modalities.{name}.categories: '{one_line(absent[0], 60)}' is not among variables; name it there too")

    @property
    def window(self) -> float:
        """Hours from the start that are read."""
        return self.modality.hours or HOURS

    @property
    def bin_hours(self) -> float:
        """Width of a bin."""
        return self.modality.bin_hours or BIN_HOURS

    @property
    def bins(self) -> int:
        """T, the number of bins; the last may reach beyond the window."""
        return max(1, int(np.ceil(self.window / self.bin_hours - 1e-9)))

    @property
    def numeric(self) -> tuple[str, ...]:
        """Variables that are no categories; known once fitted."""
        return tuple(name for name in self.names if name not in self.codes)

    @property
    def categories(self) -> dict[str, int]:
        """Those that are read, in the order of the variables."""
        return {name: self.codes[name] for name in self.names if name in self.codes}

    def read(self, manifest: Manifest) -> Events:
        raw = read_series(manifest, self.name, self.modality)
        self.remarks = list(raw.remarks)
        for name, count in self.codes.items():
            one = raw.select((name,))
            wrong = np.flatnonzero((one.values != np.rint(one.values)) | (one.values < 0) | (one.values >= count))
            for i in wrong[:1]:
                sample, hour = one_line(manifest.ids[one.samples[i]], 60), one.hours[i]
                raise DataError(
                    f"modality {self.name}, sample_id {sample}, hour {hour:g}, variable '{one_line(name, 60)}': "
                    f"found {one.values[i]:g}, expected a code from 0 to {count - 1}; correct it, or change categories in the config"
                )
        return raw

    def observed(self, raw: Events) -> NDArray[np.bool_]:
        # After the fit, a sample whose variables are all unknown has nothing that the model can read.
        names = getattr(self, "names", None) or self.variables
        return (raw if names is None else raw.select(tuple(names))).observed

    def learner(self, limit: int | None = None) -> Learner:
        return _SeriesLearner(self, limit)

    def transform(self, raw: Events) -> Columns:
        raw = raw.select(self.names)
        seen = raw.observed
        views: Columns = {}
        if {"binned", "measured"} & set(self.views):
            binned, measured = self._binned(raw)
            known = {"binned": binned * seen[:, None, None], "measured": measured}
            views = {view: torch.from_numpy(known[view]).float() for view in self.views if view in known}
        if "summary" in self.views:
            views["summary"] = torch.from_numpy(self._summary(raw) * seen[:, None]).float()
        return views

    def _place(self, events: Events) -> NDArray[np.int64]:
        """(E,) sample and bin of each measurement, as one number."""
        bins = np.minimum((events.hours / self.bin_hours).astype(np.int64), self.bins - 1)
        return events.samples * self.bins + bins

    def grid(self, raw: Events) -> tuple[Matrix, NDArray[np.bool_]]:
        """Bin means (n, T, V), NaN where a bin is empty, and the mask of bins that are not."""
        V = len(raw.names)
        cell = self._place(raw) * V + raw.variables
        size = raw.rows * self.bins * V
        counts = np.bincount(cell, minlength=size)
        sums = np.bincount(cell, weights=raw.values, minlength=size)
        mask = (counts > 0).reshape(raw.rows, self.bins, V)
        return np.where(mask, (sums / np.maximum(counts, 1)).reshape(mask.shape), np.nan), mask

    def _binned(self, raw: Events) -> tuple[Matrix, Matrix]:
        grid, _ = self.grid(raw.select(self.numeric))
        parts = [self._carried(np.clip(self.grid_scaling(grid), -_OUTLIER, _OUTLIER))]
        for name, count in self.categories.items():
            one = raw.select((name,))
            last = np.full(raw.rows * self.bins, np.nan)
            last[self._place(one)] = one.values  # measurements are in the order of time: the last one stays
            codes = self._carried(last.reshape(raw.rows, self.bins, 1), before=-1.0)
            parts.append((codes == np.arange(count)).astype(np.float64))
        _, mask = self.grid(raw)
        return np.concatenate([*parts, mask.astype(np.float64)], -1), np.asarray(mask.any(-1), dtype=np.float64)

    def _carried(self, grid: Matrix, before: float = 0.0) -> Matrix:
        """(n, T, V) with gaps filled by the last value, and with `before` ahead of the first."""
        last = np.maximum.accumulate(np.where(np.isfinite(grid), np.arange(self.bins)[:, None], -1), axis=1)
        filled: Matrix = np.where(last >= 0, np.take_along_axis(grid, np.maximum(last, 0), axis=1), before)
        return filled

    def _summary(self, raw: Events) -> Matrix:
        values, counts, recency = summaries(raw.select(self.numeric), self.window)
        parts = [
            curved(self.summary_scaling(values)),
            (counts > 0).astype(np.float64),
            self.count_scaling(np.log1p(counts)),
            np.nan_to_num(self.recency_scaling(recency)),
        ]
        for name, count in self.categories.items():
            one = raw.select((name,))
            shares = np.bincount(one.samples * count + one.values.astype(np.int64), minlength=raw.rows * count).reshape(-1, count)
            last = np.full(raw.rows, -1.0)
            last[one.samples] = one.values
            parts += [shares / np.maximum(shares.sum(1, keepdims=True), 1), (last[:, None] == np.arange(count)).astype(np.float64)]
        return np.concatenate(parts, 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        V, N, codes = len(self.names), len(self.numeric), sum(self.categories.values())
        known = {"binned": (self.bins, N + codes + V), "measured": (self.bins,), "summary": ((2 * SUMMARIES + 3) * N + 2 * codes,)}
        return {view: known[view] for view in self.views}

    def inputs(self) -> list[str]:
        return list(self.names)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"names": list(self.names)}
        if "binned" in self.views:
            state["grid"] = self.grid_scaling.state()
        if "summary" in self.views:
            state["summary"] = self.summary_scaling.state()
            state["count"] = self.count_scaling.state()
            state["recency"] = self.recency_scaling.state()
        return state

    def load(self, state: dict[str, Any]) -> None:
        self.names = tuple(state["names"])
        if not all(isinstance(name, str) for name in self.names) or len(set(self.names)) < len(self.names):
            raise ValueError("variables that are not distinct names")
        if "binned" in self.views:
            self.grid_scaling = Standard.from_state(state["grid"])
        if "summary" in self.views:
            self.summary_scaling = QuantileNormal.from_state(state["summary"])
            self.count_scaling = Standard.from_state(state["count"])
            self.recency_scaling = Standard.from_state(state["recency"])
        V = len(self.numeric)
        found = [len(self.grid_scaling.loc) == V] if "binned" in self.views else []
        if "summary" in self.views:
            found += [
                len(self.summary_scaling.columns) == SUMMARIES * V,
                len(self.count_scaling.loc) == V,
                len(self.recency_scaling.loc) == V,
            ]
        if not all(found):
            raise ValueError(f"scalings of another number of variables than {V}")


class _SeriesLearner(Learner):
    """Variable by variable, since a part may lack one."""

    def __init__(self, kind: TimeSeries, limit: int | None) -> None:
        self.kind, self.rows = kind, 0
        self.seen: set[str] = set()
        self.grid: dict[str, Moments] = {}
        self.counts: dict[str, Moments] = {}
        self.recency: dict[str, Moments] = {}
        self.sample = RowSample(limit)

    def add(self, raw: Events, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        kind = self.kind
        present = np.bincount(raw.variables[np.isin(raw.samples, rows)], minlength=len(raw.names)) > 0
        names = [name for name, there in zip(raw.names, present, strict=True) if there] if kind.variables is None else kind.variables
        self.seen |= set(names)
        self.rows += len(rows)
        numeric = tuple(name for name in names if name not in kind.codes)
        numbers = raw.select(numeric)
        if "binned" in kind.views:
            grid, _ = kind.grid(numbers)
            self._merge(self.grid, numeric, grid[rows].reshape(len(rows) * kind.bins, len(numeric)))
        if "summary" in kind.views:
            values, counts, recency = summaries(numbers, kind.window)
            self._merge(self.counts, numeric, np.log1p(counts[rows]))
            self._merge(self.recency, numeric, recency[rows])
            tables = values[rows].reshape(len(rows), len(numeric), SUMMARIES)
            self.sample.add(keys, {name: tables[:, v] for v, name in enumerate(numeric)})

    @staticmethod
    def _merge(into: dict[str, Moments], names: tuple[str, ...], x: Matrix) -> None:
        found = Moments.of(x)
        for v, name in enumerate(names):
            into[name] = into[name].plus(found.column(v)) if name in into else found.column(v)

    def finish(self) -> None:
        kind = self.kind
        kind.names = tuple(sorted(self.seen)) if kind.variables is None else tuple(kind.variables)
        numeric = kind.numeric
        if "binned" in kind.views:
            kind.grid_scaling = Moments.side_by_side([self.grid[name] for name in numeric]).standard()
        if "summary" in kind.views:
            columns = [self.sample.values(name) for name in numeric]
            kind.summary_scaling = QuantileNormal([pair for x in columns if x is not None for pair in QuantileNormal.fit(x).columns])
            # Rows of parts that lack a variable have measured it no times.
            counts = [self.counts[name].plus(Moments.zeros(self.rows - int(self.counts[name].count[0]))) for name in numeric]
            kind.count_scaling = Moments.side_by_side(counts).standard()
            kind.recency_scaling = Moments.side_by_side([self.recency[name] for name in numeric]).standard()

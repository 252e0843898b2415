"""Kind `timeseries`: irregular measurements as a regular grid, as summaries, or both."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cm2pyro.data.kind import Kind, Views
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.scaling import QuantileNormal, Standard, curved
from cm2pyro.data.series import BIN_HOURS, HOURS, Events, read_series

Matrix = NDArray[np.float64]
_OUTLIER = 5.0  # sd; values on the grid are clipped there
_SUMMARIES = 11


class TimeSeries(Kind):
    """Views of a time series with V variables over `hours` hours.

    binned: (T, 2V), T = hours / bin_hours: bin means in sd units, the last value carried forward, 0 before the first;
        then 1 where the bin holds a measurement.
    summary: (25 V,): per variable 11 summaries (see `summaries`) as normal scores and their centred squares, whether it
        was measured, how often, and how long before the end of the window.
    """

    offers = ("binned", "summary")
    names: tuple[str, ...]

    @property
    def window(self) -> float:
        return self.modality.hours or HOURS

    @property
    def bin_hours(self) -> float:
        return self.modality.bin_hours or BIN_HOURS

    @property
    def bins(self) -> int:
        return max(1, int(np.ceil(self.window / self.bin_hours - 1e-9)))

    def read(self, manifest: Manifest) -> Events:
        return read_series(manifest, self.name, self.modality)

    def observed(self, raw: Events) -> NDArray[np.bool_]:
        # After the fit, a sample whose variables are all unknown has nothing that the model can read.
        return (raw.select(self.names) if hasattr(self, "names") else raw).observed

    def fit(self, raw: Events, rows: NDArray[np.int64]) -> None:
        used = np.isin(raw.samples, rows)
        present = np.bincount(raw.variables[used], minlength=len(raw.names)) > 0
        self.names = tuple(name for name, there in zip(raw.names, present, strict=True) if there)
        raw = raw.select(self.names)
        if "binned" in self.views:
            grid, _ = self._grid(raw)
            self.grid_scaling = Standard.fit(grid[rows].reshape(-1, len(self.names)))
        if "summary" in self.views:
            values, counts, recency = summaries(raw, self.window)
            self.summary_scaling = QuantileNormal.fit(values[rows])
            self.count_scaling = Standard.fit(np.log1p(counts[rows]))
            self.recency_scaling = Standard.fit(recency[rows])

    def transform(self, raw: Events) -> Views:
        raw = raw.select(self.names)
        seen = raw.observed
        views: Views = {}
        if "binned" in self.views:
            views["binned"] = self._binned(raw, seen)
        if "summary" in self.views:
            values, counts, recency = summaries(raw, self.window)
            parts = [
                curved(self.summary_scaling(values)),
                (counts > 0).astype(np.float64),
                self.count_scaling(np.log1p(counts)),
                np.nan_to_num(self.recency_scaling(recency)),
            ]
            views["summary"] = torch.from_numpy(np.concatenate(parts, 1) * seen[:, None]).float()
        return views

    def _grid(self, raw: Events) -> tuple[Matrix, NDArray[np.bool_]]:
        """Bin means (n, T, V), NaN where a bin is empty, and the mask of bins that are not."""
        bins, V = self.bins, len(raw.names)
        place = np.minimum((raw.hours / self.bin_hours).astype(np.int64), bins - 1)
        cell = (raw.samples * bins + place) * V + raw.variables
        size = raw.rows * bins * V
        counts = np.bincount(cell, minlength=size)
        sums = np.bincount(cell, weights=raw.values, minlength=size)
        mask = (counts > 0).reshape(raw.rows, bins, V)
        return np.where(mask, (sums / np.maximum(counts, 1)).reshape(mask.shape), np.nan), mask

    def _binned(self, raw: Events, seen: NDArray[np.bool_]) -> torch.Tensor:
        grid, mask = self._grid(raw)
        scaled = np.clip(self.grid_scaling(grid), -_OUTLIER, _OUTLIER)
        last = np.maximum.accumulate(np.where(mask, np.arange(self.bins)[:, None], -1), axis=1)
        carried = np.take_along_axis(scaled, np.maximum(last, 0), axis=1)
        carried = np.where(last >= 0, carried, 0.0)
        return torch.from_numpy(np.concatenate([carried, mask.astype(np.float64)], -1) * seen[:, None, None]).float()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        V = len(self.names)
        known = {"binned": (self.bins, 2 * V), "summary": ((2 * _SUMMARIES + 3) * V,)}
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
        if "binned" in self.views:
            self.grid_scaling = Standard.from_state(state["grid"])
        if "summary" in self.views:
            self.summary_scaling = QuantileNormal.from_state(state["summary"])
            self.count_scaling = Standard.from_state(state["count"])
            self.recency_scaling = Standard.from_state(state["recency"])


def summaries(events: Events, window: float) -> tuple[Matrix, Matrix, Matrix]:
    """Per sample and variable, what the measurements look like.

    Returns:
        (n, 11 V) minimum, maximum, mean, sd, first, last, slope per hour, mean of the first half of the window, of the
        second half, of the last sixth, and last − first, variable by variable, NaN where undefined (one measurement
        has sd and slope 0); (n, V) counts;
        (n, V) hours from the last measurement to the end of the window, NaN where there is none.
    """
    n, V = events.rows, len(events.names)
    cell = events.samples * V + events.variables
    starts = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]]) if len(cell) else np.zeros(0, dtype=np.int64)
    used = cell[starts]
    table = np.full((n * V, _SUMMARIES), np.nan)
    counts = np.zeros(n * V)
    recency = np.full(n * V, np.nan)
    if len(starts):
        x, h = events.values, events.hours

        def total(weights: Matrix) -> Matrix:
            return np.add.reduceat(weights, starts)

        k = total(np.ones_like(x))
        group = np.repeat(np.arange(len(starts)), k.astype(np.int64))
        low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
        # Kept within the range, so that equal measurements have their very value as mean: the scores rank by it.
        mean, hour = np.clip(total(x) / k, low, high), total(h) / k
        dx, dh = x - mean[group], h - hour[group]
        spread = total(dh * dh)
        ends = np.r_[starts[1:], len(x)] - 1
        # Hours are in order within a cell. Where all are equal the spread is rounding, and no slope can be told.
        spread = np.where(h[ends] > h[starts], spread, np.inf)
        table[used, 0], table[used, 1], table[used, 2] = low, high, mean
        table[used, 3] = np.sqrt(total(dx * dx) / k)
        table[used, 4], table[used, 5] = x[starts], x[ends]
        table[used, 6] = total(dx * dh) / spread
        for j, inside in ((7, h < window / 2), (8, h >= window / 2), (9, h >= window * 5 / 6)):
            inner = total(inside.astype(np.float64))
            table[used, j] = np.where(inner > 0, np.clip(total(x * inside) / np.maximum(inner, 1), low, high), np.nan)
        table[used, 10] = x[ends] - x[starts]
        counts[used] = k
        recency[used] = window - h[ends]
    return table.reshape(n, V * _SUMMARIES), counts.reshape(n, V), recency.reshape(n, V)

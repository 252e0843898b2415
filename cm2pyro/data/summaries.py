"""Summaries of irregular measurements: what those of one variable of one sample look like."""

import numpy as np
from numpy.typing import NDArray

from cm2pyro.data.series import Events

Matrix = NDArray[np.float64]
SUMMARIES = 11  # of each variable


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
    table = np.full((n * V, SUMMARIES), np.nan)
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
    return table.reshape(n, V * SUMMARIES), counts.reshape(n, V), recency.reshape(n, V)

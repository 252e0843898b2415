"""The picture of a regression: predicted against observed, and errors by what was observed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy.special import ndtri

from cm2pyro.diagnostics.metrics_regression import check_numbers
from cm2pyro.diagnostics.plots import BLUE, GREY, ORANGE, legend_below, page, pattern_rows, plain, set_pattern_rows
from cm2pyro.diagnostics.resampling import INTERVAL, Array, pattern_keys

_MOST = 5000  # points drawn; more would hide one another
_BARS = 300  # rows up to which each has its interval drawn


def predicted_and_patterns(
    labels: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str],
    path: str | Path,
    title: str,
) -> None:
    """Write one PNG, 1200 x 500 px: observed against predicted, and the mean absolute error per missingness pattern.

    Left, a point a row (5,000 evenly taken ones of more), up to 300 rows with their prediction intervals. Right, the mean
    absolute error with a 95% normal interval that takes rows as independent, beside that of always naming the pattern's
    median.

    Args:
        labels, mean, low, high: (n,) in one unit. observed: (n, M) bool. names: M modality names.
        path: of the PNG; replaced if it exists. title: above both panels, one line.

    Raises:
        DataError: arrays that do not fit (see `evaluate_numbers`), or a path that cannot be written.
    """
    columns = check_numbers({"labels": labels, "mean": mean, "low": low, "high": high})
    keys = pattern_keys(observed, names, len(columns))
    with page(path, title) as panels:
        points, errors = panels[0].subplots(), panels[1].subplots()
        _points(points, columns)
        _errors(errors, columns, keys, names)
        for panel, axes in zip(panels, (points, errors), strict=True):
            legend_below(panel, axes)


def _points(axes: Axes, columns: Array) -> None:
    shown = columns[np.unique(np.linspace(0, len(columns) - 1, min(_MOST, len(columns))).astype(int))]
    y, mean, low, high = shown.T
    ends = float(min(y.min(), mean.min())), float(max(y.max(), mean.max()))
    pad = 0.04 * (ends[1] - ends[0]) or 1.0
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="observed = predicted")
    if len(columns) <= _BARS:
        axes.hlines(y, low, high, color=BLUE, linewidth=0.7, alpha=0.35, label="90% prediction interval")
    axes.plot(mean, y, "o", color=BLUE, markersize=4, alpha=float(np.clip(60 / np.sqrt(len(y)) / 10, 0.15, 0.8)), label="a row", mew=0)
    # The same range both ways, so that the line is the diagonal; intervals may leave it.
    axes.set(xlim=(ends[0] - pad, ends[1] + pad), ylim=(ends[0] - pad, ends[1] + pad), xlabel="predicted mean", ylabel="observed")
    axes.set_title("Observed against predicted", fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    plain(axes)


def _errors(axes: Axes, columns: Array, keys: Array, names: Sequence[str]) -> None:
    texts, place = pattern_rows(keys, names)
    y, error = columns[:, 0], np.abs(columns[:, 0] - columns[:, 1])
    rows = np.arange(len(texts))
    n = np.bincount(place)
    mae = np.array([error[place == row].mean() for row in rows])
    half = ndtri(INTERVAL[1]) * np.array([error[place == row].std() for row in rows]) / np.sqrt(n)
    median = np.array([np.abs(y[place == row] - np.median(y[place == row])).mean() for row in rows])
    axes.hlines(rows, np.maximum(mae - half, 0), mae + half, color=ORANGE, linewidth=2)
    axes.plot(mae, rows, "o", color=ORANGE, markersize=6, label="mean absolute error, 95% interval")
    axes.scatter(median, rows, marker="|", s=170, linewidths=2, color=GREY, label="always the median")
    axes.set(xlim=(0, 1.04 * float(max((mae + half).max(), median.max())) or 1.0), xlabel="mean absolute error")
    axes.set_title("Error by observed modalities", fontsize=11, loc="left")
    set_pattern_rows(axes, texts, n)

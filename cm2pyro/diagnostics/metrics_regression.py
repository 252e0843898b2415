"""How good predictions of a number are: errors, the coverage of intervals, and the log score, with their uncertainty over subjects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cm2pyro.diagnostics.resampling import Array, by_pattern, check_bootstrap, measured, numbered, pattern_keys, subject_codes
from cm2pyro.errors import DataError

REGRESSION_METRICS = ("rmse", "mae", "r2", "coverage", "width", "log_score")

COVERAGE = 0.9
"""Share of outcomes that intervals from q05 to q95 should hold."""


def evaluate_numbers(
    labels: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    log_score: ArrayLike,
    subjects: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str],
    bootstrap: int = 1000,
    seed: int = 0,
    patterns: bool = False,
) -> dict[str, Any]:
    """Metrics of predicted numbers, with 95% percentile bootstrap intervals over subjects, as in `metrics.evaluate`.

    Args:
        labels: (n,) in their own units, like `mean`, `low` and `high` (n,).
        low, high: the interval that should hold `COVERAGE` of the outcomes, ends included.
        log_score: (n,) log predictive density of the label.
        subjects, observed, names, bootstrap, seed, patterns: as in `metrics.evaluate`.

    Returns:
        A dict that JSON can hold: `n`, `subjects`, `label_mean`, `label_sd`; and, each `{"value", "low", "high"}`, `rmse`, `mae`,
        `r2` (against the mean label of these rows, undefined where they are all alike), `coverage` (the share of labels
        inside their interval), `width` (mean width of it), `log_score` (mean, the higher the better); and `patterns` where asked.

    Raises:
        DataError: no rows, lengths that differ, a number that is not finite, an empty subject id.
    """
    check_bootstrap(bootstrap)
    columns = check_numbers({"labels": labels, "mean": mean, "low": low, "high": high, "log_score": log_score})
    codes = subject_codes(subjects, len(columns))
    result = _evaluate(columns, codes, bootstrap, seed)
    if patterns:
        keys = pattern_keys(observed, names, len(columns))
        result["patterns"] = by_pattern(lambda rows: _evaluate(columns[rows], codes[rows], bootstrap, seed), keys)
    return result


def check_numbers(columns: dict[str, ArrayLike]) -> Array:
    """Columns of equal length as (n, k) float64; `DataError` where they are not finite numbers or there are no rows."""
    arrays = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
    first = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if array.shape != (first,) or first == 0:
            raise DataError(f"{name}: shape is {array.shape}; ({first or 'n'},), a number for each of at least one row, is expected")
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise DataError(f"{name}: row {bad[0]} is {array[bad[0]]}; a finite number is expected; leave such rows out")
    return np.column_stack(list(arrays.values()))


def _evaluate(columns: Array, codes: Array, bootstrap: int, seed: int) -> dict[str, Any]:
    """`evaluate_numbers` without checks and patterns; `columns` (n, 5), `codes` (n,) int, any numbers."""
    y, mean, low, high, log_score = columns.T
    codes = numbered(codes)
    n, subjects = len(y), int(codes.max()) + 1
    # In the labels' own spread: squares of what is far from 0 but close together would lose all digits.
    centre, spread = float(y.mean()), float(np.abs(y - y.mean()).max()) or 1.0
    scaled, error = (y - centre) / spread, (mean - y) / spread
    inside = (low <= y) & (y <= high)
    # Every metric is made of sums over rows, so a resample needs only each subject's.
    terms = [np.ones(n), scaled, scaled**2, error**2, np.abs(error), inside, (high - low) / spread, log_score]
    sums = np.column_stack([np.bincount(codes, weights=term) for term in terms])

    def under(counts: Array) -> Array:
        """(B, subjects) -> (B, 6)."""
        totals = counts @ sums
        first, second, square, absolute, hit, width, score = (totals[:, 1:] / totals[:, :1]).T
        variance = second - first**2
        # What is left of equal labels is rounding.
        alike = variance <= 1e-12 * np.maximum(second, 1e-12)
        r2 = np.where(alike, np.nan, 1 - square / np.where(alike, 1.0, variance))
        return np.column_stack([spread * np.sqrt(square), spread * absolute, r2, hit, spread * width, score])

    found = dict(zip(REGRESSION_METRICS, measured(under, n, subjects, bootstrap, seed), strict=True))
    return {"n": n, "subjects": subjects, "label_mean": centre, "label_sd": float(y.std()), **found}

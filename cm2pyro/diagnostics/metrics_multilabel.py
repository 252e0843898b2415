"""Metrics of several labels at once, each 0 or 1, some of them empty: per label, and their mean over labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cm2pyro.diagnostics.calibration import CALIBRATION, CLIP, BinnedError, LogisticRecalibration
from cm2pyro.diagnostics.metrics import METRICS, Ranking, in_range, predicted_class
from cm2pyro.diagnostics.resampling import (
    Array,
    Metric,
    by_pattern,
    check_bootstrap,
    measured,
    numbered,
    pattern_keys,
    reflected,
    subject_codes,
)
from cm2pyro.errors import DataError


def evaluate_labels(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    subjects: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str],
    bootstrap: int = 1000,
    seed: int = 0,
    patterns: bool = False,
) -> dict[str, Any]:
    """Metrics of several binary outcomes, with 95% percentile bootstrap intervals over subjects, as in `metrics.evaluate`.

    Each label is measured on the rows where it is not empty. The macro values are means over labels: of AUROC and AUPRC
    over those that have both values here (`ranked`, how many), of the others over those that have any. A resample in which
    one of them is undefined is ignored, or the mean would be over other labels in every resample.

    Args:
        labels: (n, L) 0, 1, or −1 where empty; a row has at least one.
        probabilities: (n, L) of value 1.
        label_names: L names.
        subjects, observed, names, bootstrap, seed, patterns: as in `metrics.evaluate`.

    Returns:
        A dict that JSON can hold: `n`, `subjects`, `ranked`, the macro `auroc`, `auprc`, `log_loss`, `brier`, `accuracy` and `ece`,
        each `{"value", "low", "high"}`; `labels`: name to `n`, `prevalence`, the same metrics, `calibration_slope` and
        `calibration_intercept` (whose signs would cancel in a mean); and `patterns` where asked.

    Raises:
        DataError: shapes that differ, a label or a probability outside its range, a row without a label, an empty subject id.
    """
    check_bootstrap(bootstrap)
    y, p = check_labels(labels, probabilities, label_names)
    codes = subject_codes(subjects, len(y))
    result = _evaluate(y, p, label_names, codes, bootstrap, seed)
    if patterns:
        keys = pattern_keys(observed, names, len(y))
        result["patterns"] = by_pattern(lambda rows: _evaluate(y[rows], p[rows], label_names, codes[rows], bootstrap, seed), keys)
    return result


def check_labels(labels: ArrayLike, probabilities: ArrayLike, label_names: Sequence[str]) -> tuple[Array, Array]:
    """Labels (n, L) int and probabilities (n, L) float64 in 0..1; `DataError` where they cannot be that."""
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if y.ndim != 2 or y.shape != p.shape or y.shape[1] != len(label_names) or len(y) == 0:
        raise DataError(f"labels and probabilities: shapes are {y.shape} and {p.shape}; both (n, {len(label_names)}) with rows is expected")
    bad = np.flatnonzero(~np.isin(y, (-1, 0, 1)).all(axis=1) | (y == -1).all(axis=1))
    if len(bad):
        raise DataError(f"labels: row {bad[0]} is {y[bad[0]].tolist()}; 0, 1 or −1 for empty is expected, and one that is not empty")
    return y.astype(np.int64), in_range(p)


def _evaluate(y: Array, p: Array, label_names: Sequence[str], codes: Array, bootstrap: int, seed: int) -> dict[str, Any]:
    """`evaluate_labels` without checks and patterns; `codes` (n,) int, any numbers."""
    codes = numbered(codes)
    n, subjects = len(y), int(codes.max()) + 1
    parts = [_Label(y[:, j], p[:, j], codes, subjects) for j in range(y.shape[1])]
    ranked = np.array([part.ranked for part in parts])
    there = np.array([part.n > 0 for part in parts])

    def under(counts: Array) -> Array:
        """(B, macro metrics + L metrics of a label): the macro metrics, then those of every label."""
        each = np.stack([part.under(counts) for part in parts], 1)  # (B, L, metrics of a label)
        macro = [_mean(each[:, ranked if i < 2 else there, i]) for i in range(len(METRICS))]
        return np.column_stack([*macro, each.reshape(len(counts), -1)])

    found = iter(measured(under, n, subjects, bootstrap, seed))

    def taken(metrics: Sequence[str]) -> dict[str, Metric]:
        row = {metric: next(found) for metric in metrics}
        return row | {"ece": reflected(row["ece"])}

    macro = taken(METRICS)
    each = {
        name: {"n": part.n, "prevalence": part.prevalence, **taken(METRICS + CALIBRATION)}
        for name, part in zip(label_names, parts, strict=True)
    }
    return {"n": n, "subjects": subjects, "ranked": int(ranked.sum()), **macro, "labels": each}


class _Label:
    """One label, ready for its metrics under many weightings of subjects."""

    def __init__(self, y: Array, p: Array, codes: Array, subjects: int) -> None:
        known = y >= 0
        y, p, self.codes = y[known], p[known], codes[known]
        self.n = len(y)
        self.prevalence = float(y.mean()) if self.n else None
        self.ranked = 0 < y.sum() < self.n
        self.ranking = Ranking.of(y == 1, p) if self.ranked else None
        likelihood = np.clip(np.where(y == 1, p, 1 - p), CLIP, 1 - CLIP)
        columns = [-np.log(likelihood), (p - y) ** 2, predicted_class(p) == y, np.ones(self.n)]
        self.sums = np.column_stack([np.bincount(self.codes, weights=column, minlength=subjects) for column in columns])
        self.error = BinnedError.of(y == 1, p, self.codes, subjects) if self.n else None
        self.recalibration = LogisticRecalibration.of(y == 1, p) if self.ranked else None

    def under(self, counts: Array) -> Array:
        """(B, subjects) -> (B, metrics), NaN where undefined."""
        nothing, weights = np.full(len(counts), np.nan), counts[:, self.codes]
        ranks = (nothing, nothing) if self.ranking is None else self.ranking.metrics(weights)
        ece = nothing if self.error is None else self.error.under(counts)
        further = (nothing, nothing) if self.recalibration is None else self.recalibration.under(weights)
        totals = counts @ self.sums
        with np.errstate(invalid="ignore"):
            return np.column_stack([*ranks, totals[:, :3] / totals[:, 3:], ece, *further])


def _mean(columns: Array) -> Array:
    """(B, k) -> (B,), NaN where there is no column."""
    return columns.mean(axis=1) if columns.shape[1] else np.full(len(columns), np.nan)

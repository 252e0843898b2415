"""How good predictions are: discrimination, calibration and their uncertainty over subjects, whole and per missingness pattern."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from cm2pyro.diagnostics.calibration import CALIBRATION, CLIP, BinnedError, LogisticRecalibration, equal_mass
from cm2pyro.diagnostics.resampling import (
    INTERVAL,
    Array,
    by_pattern,
    check_bootstrap,
    measured,
    numbered,
    pattern_keys,
    reflected,
    subject_codes,
)
from cm2pyro.errors import DataError

METRICS = ("auroc", "auprc", "log_loss", "brier", "accuracy", "ece")


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    subjects: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str],
    bootstrap: int = 1000,
    seed: int = 0,
    patterns: bool = False,
) -> dict[str, Any]:
    """Metrics of binary or multiclass predictions, with 95% percentile bootstrap intervals over subjects.

    A resample draws as many subjects as there are, with replacement, each with all its rows. AUROC and AUPRC are undefined where a class
    is absent (multiclass: any class, or the mean over classes would mean something else in every resample): such resamples are
    ignored for these two, and where more than half of them are, no interval is given. Nor is there one for a single subject.
    Log-loss and logits clip probabilities at 1e-7 (`CLIP`), so that one sure and wrong prediction costs 16.1 and not infinity.

    `ece` is Σ_b |Σ_{i in b} (y_i − p_i)| / n over at most ten bins of equal count (`calibration.bins_for`), fixed by all rows.
    `calibration_slope` is b of logit P(y = 1) = a + b logit p, `calibration_intercept` a where b is held at 1 (calibration in the
    large); they are undefined as `LogisticRecalibration` says. The interval of `ece` is the basic one, see
    `resampling.reflected`: it may lie below the value, which noise makes too large.

    Args:
        labels: (n,) class index; 0 or 1 where `probabilities` is (n,), else 0 to C - 1.
        probabilities: (n,) of class 1, or (n, C) with rows that sum to 1.
        subjects: (n,) subject ids.
        observed: (n, M) bool, whether the modality was there.
        names: M modality names.
        bootstrap: number of resamples; 0 leaves every `low` and `high` None.
        seed: of the resamples.
        patterns: add the same per missingness pattern, with its own bootstrap.

    Returns:
        A dict that JSON can hold, never with a NaN: `n`, `subjects` (how many), `prevalence` (binary) or `class_shares` (a list of C), and
        `auroc`, `auprc`, `log_loss`, `brier`, `accuracy`, `ece`, and binary `calibration_slope` and `calibration_intercept`, each
        `{"value", "low", "high"}`, None where undefined. AUPRC is average precision. Multiclass: AUROC, AUPRC and ECE are means
        of one class against the rest, Brier sums over classes (0 to 2). Accuracy predicts
        class 1 from 0.5 on, or the first of the most probable classes. With `patterns` also `patterns`: observed modalities joined
        by ";" ("none" if there are none) to such a dict, the most frequent first.

    Raises:
        DataError: no rows, lengths that differ, a label or a probability outside its range, an empty subject id.
    """
    check_bootstrap(bootstrap)
    y, p = check_outcomes(labels, probabilities)
    codes = subject_codes(subjects, len(y))
    result = _evaluate(y, p, codes, bootstrap, seed)
    if patterns:
        keys = pattern_keys(observed, names, len(y))
        # The same seed for each: a pattern's interval then does not depend on which others there are.
        result["patterns"] = by_pattern(lambda rows: _evaluate(y[rows], p[rows], codes[rows], bootstrap, seed), keys)
    return result


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> dict[str, list[float]]:
    """Predicted against observed frequency in bins of equal count, see `equal_mass`.

    Args:
        labels: (n,) 0 or 1.
        probabilities: (n,) of label 1.
        bins: how many at most.

    Returns:
        `predicted` (mean), `observed`, `low`, `high` (95% Wilson interval of `observed`, which takes rows as independent) and `n`:
        lists of equal length, by increasing `predicted`.

    Raises:
        DataError: no rows, lengths that differ, a label or a probability outside its range, no bins.
    """
    if bins < 1:
        raise DataError(f"bins: is {bins}; at least 1 is expected")
    y, p = check_outcomes(labels, probabilities)
    if p.ndim != 1:
        raise DataError(f"probabilities: shape is {p.shape}; a reliability curve needs one column, such as that of the predicted class")
    index = equal_mass(p, bins)
    n = np.bincount(index)
    hits = np.bincount(index, weights=y)
    low, high = wilson(hits, n)
    return {
        "predicted": (np.bincount(index, weights=p) / n).tolist(),
        "observed": (hits / n).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "n": n.tolist(),
    }


def wilson(hits: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """Wilson's 95% interval (low, high) of a share, for `hits` out of `n` >= 1 independent rows; arrays broadcast."""
    n = np.asarray(n, dtype=float)
    share = np.asarray(hits, dtype=float) / n
    z = ndtri(INTERVAL[1])
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # No hits give exactly 0 and all give exactly 1, which rounding misses.
    return np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)


@dataclass(frozen=True)
class Ranking:
    """Rows sorted once by falling score, ready for rank metrics under many weightings.

    Attributes:
        order: (n,) row indices by falling score.
        positive: (n,) 1.0 where the row at that place is positive, else 0.0.
        starts: (G,) the places where groups of equal scores begin.
    """

    order: Array
    positive: Array
    starts: Array

    @classmethod
    def of(cls, positive: Array, scores: Array) -> "Ranking":
        """Rank rows with `positive` (n,) bool by `scores` (n,) finite."""
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        return cls(order, positive[order].astype(float), np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]]))

    def metrics(self, weights: Array) -> tuple[Array, Array]:
        """AUROC and average precision, ties taken exactly.

        Args:
            weights: (B, n) non-negative row weights, in the order of the rows before ranking.

        Returns:
            auroc: (B,), auprc: (B,); both NaN where positives or negatives have no weight.
        """
        every = weights[:, self.order]
        positive = every * self.positive
        if len(self.starts) < len(self.order):
            every = np.add.reduceat(every, self.starts, axis=1)
            positive = np.add.reduceat(positive, self.starts, axis=1)
        hits = np.cumsum(positive, axis=1)
        taken = np.cumsum(every, axis=1)
        negative = every - positive
        positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A negative is beaten by the positives above it and by half of those it ties with.
            auroc = np.einsum("bg,bg->b", negative, hits - positive / 2) / (positives * negatives)
            # Groups above the first weight are 0 / 0 and hold no positives.
            precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
            auprc = np.einsum("bg,bg->b", positive, precision) / positives
        undefined = (positives == 0) | (negatives == 0)
        return np.where(undefined, np.nan, auroc), np.where(undefined, np.nan, auprc)


def check_outcomes(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array]:
    """Labels as (n,) int and probabilities as (n,) or (n, C) float64 in 0..1; `DataError` where they cannot be that."""
    try:
        y, p = np.asarray(labels, dtype=float), np.asarray(probabilities, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"labels and probabilities: not numbers ({error}); class indices and numbers from 0 to 1 are expected") from error
    if y.ndim != 1 or p.ndim not in (1, 2) or len(y) != len(p) or (p.ndim == 2 and p.shape[1] < 2):
        raise DataError(f"labels and probabilities: shapes are {y.shape} and {p.shape}; (n,) with (n,) or (n, C) is expected")
    if len(y) == 0:
        raise DataError("labels: there are no rows; at least one labelled row is needed")
    classes = 2 if p.ndim == 1 else p.shape[1]
    bad = np.flatnonzero(~np.isin(y, np.arange(classes)))
    if len(bad):
        raise DataError(f"labels: row {bad[0]} is {y[bad[0]]:g}; an integer from 0 to {classes - 1} is expected; leave such rows out")
    clipped = in_range(p)
    if p.ndim == 2:
        total = p.sum(axis=1)
        bad = np.flatnonzero(np.abs(total - 1) > 1e-3)
        if len(bad):
            raise DataError(f"probabilities: row {bad[0]} sums to {total[bad[0]]:.6g}; 1 is expected; pass probabilities, not scores")
    return y.astype(np.int64), clipped


def in_range(p: Array) -> Array:
    """Probabilities (n, …) clipped to 0..1; raises DataError where one is beyond by more than rounding."""
    # Single precision overshoots 1 by its rounding, which is nobody's error.
    bad = np.flatnonzero(~((p >= -1e-6) & (p <= 1 + 1e-6)).reshape(len(p), -1).all(axis=1))
    if len(bad):
        raise DataError(f"probabilities: row {bad[0]} is {p[bad[0]].tolist()}; numbers from 0 to 1 are expected")
    return np.clip(p, 0.0, 1.0)


def predicted_class(probabilities: Array) -> Array:
    """(n,) int: class 1 from 0.5 on for (n,), the first of the most probable for (n, C)."""
    return (probabilities >= 0.5).astype(np.int64) if probabilities.ndim == 1 else probabilities.argmax(axis=1)


def _evaluate(y: Array, p: Array, codes: Array, bootstrap: int, seed: int) -> dict[str, Any]:
    """`evaluate` without checks and patterns; `codes` (n,) int, any numbers."""
    codes = numbered(codes)
    n, subjects = len(y), int(codes.max()) + 1
    names: tuple[str, ...] = METRICS
    if p.ndim == 1:
        hot, columns = (y == 1)[:, None], p[:, None]
        likelihood = np.where(y == 1, p, 1 - p)
        squares = (p - y) ** 2
        shares: dict[str, Any] = {"prevalence": float(y.mean())}
        recalibration = [LogisticRecalibration.of(y == 1, p)]
        names += CALIBRATION
    else:
        hot, columns = y[:, None] == np.arange(p.shape[1]), p
        likelihood = p[np.arange(n), y]
        squares = ((p - hot) ** 2).sum(axis=1)
        shares = {"class_shares": hot.mean(axis=0).tolist()}
        recalibration = []
    rankings = [Ranking.of(*pair) for pair in zip(hot.T, columns.T, strict=True)]
    errors = [BinnedError.of(*pair, codes, subjects) for pair in zip(hot.T, columns.T, strict=True)]
    means = np.column_stack([-np.log(np.clip(likelihood, CLIP, 1 - CLIP)), squares, predicted_class(p) == y, np.ones(n)])
    # Means need only each subject's sums, ranks need every row.
    sums = np.column_stack([np.bincount(codes, weights=column) for column in means.T])

    def under(counts: Array) -> Array:
        """(B, metrics) where subject s counts `counts` (B, S) times."""
        totals, weights = counts @ sums, counts[:, codes]
        ranks = np.mean([ranking.metrics(weights) for ranking in rankings], axis=0)
        ece = np.mean([error.under(counts) for error in errors], axis=0)
        further = [column for fit in recalibration for column in fit.under(weights)]
        return np.column_stack([*ranks, totals[:, :3] / totals[:, 3:], ece, *further])

    found = dict(zip(names, measured(under, n, subjects, bootstrap, seed), strict=True))
    return {"n": n, "subjects": subjects, **shares, **found, "ece": reflected(found["ece"])}

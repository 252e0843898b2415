"""How far probabilities are from frequencies: expected calibration error, calibration slope and intercept, under many weightings."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from cm2pyro.diagnostics.resampling import Array

CALIBRATION = ("calibration_slope", "calibration_intercept")

CLIP = 1e-7
"""Logits are taken of probabilities no closer than this to 0 and 1 (±16.1), and so is the log-loss."""

BINS, ROWS_PER_BIN = 10, 10

_STEPS = 500  # of Newton; from the start used here three are usual, labels that are almost separated take hundreds
_CONVERGED = 1e-4  # change of a linear predictor; the error left after such a step is of the order of its square


def bins_for(n: int) -> int:
    """Bins of equal count that `n` rows are cut into: ten, below 100 rows one for every ten rows."""
    return int(np.clip(n // ROWS_PER_BIN, 1, BINS))


def equal_mass(p: Array, bins: int) -> Array:
    """(n,) int, the bin of every row, from 0 without gaps by rising `p` (n,).

    Equal predictions share a bin, whatever the order of the rows; so with many ties bins differ in size, and there may be fewer.
    """
    _, group, counts = np.unique(p, return_inverse=True, return_counts=True)
    # A group of ties goes to the bin of its middle rank; integers, so that no rounding moves a row.
    bin_of_group = bins * (2 * np.cumsum(counts) - counts) // (2 * len(p))
    return np.unique(bin_of_group[group.reshape(-1)], return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class BinnedError:
    """Expected calibration error of one probability, its bins fixed by all rows.

    Attributes:
        sums: (S, bins) sum of label minus probability over a subject's rows in a bin. rows: (S,) a subject's rows.
    """

    sums: Array
    rows: Array

    @classmethod
    def of(cls, positive: Array, p: Array, codes: Array, subjects: int) -> "BinnedError":
        """Of labels (n,) 0 or 1 and probabilities (n,), rows of subject `codes` (n,) in 0..subjects − 1."""
        index = equal_mass(p, bins_for(len(p)))
        width = int(index.max()) + 1
        sums = np.bincount(codes * width + index, weights=positive - p, minlength=subjects * width).reshape(subjects, width)
        return cls(sums, np.bincount(codes, minlength=subjects).astype(float))

    def under(self, counts: Array) -> Array:
        """(B, S) how often each subject counts -> (B,): Σ_b |Σ_{i in b} (y_i − p_i)| / n; NaN without rows."""
        with np.errstate(invalid="ignore"):
            return np.abs(counts @ self.sums).sum(axis=1) / (counts @ self.rows)


@dataclass(frozen=True)
class LogisticRecalibration:
    """The label's logistic regression on the logit of its probability.

    `slope` is b of logit P(y = 1) = a + b logit p; `intercept` is a where b is held at 1 (calibration in the large).

    Attributes:
        positive: (n,) 1.0 or 0.0. x: (n,) logits. starts: solutions for all rows, (2,) standardised and (1,), where Newton begins.
    """

    positive: Array
    x: Array
    starts: tuple[Array, Array]

    @classmethod
    def of(cls, positive: Array, p: Array) -> "LogisticRecalibration":
        """Of labels (n,) 0 or 1 and probabilities (n,)."""
        here = cls(positive.astype(float), logit(np.clip(p, CLIP, 1 - CLIP)), (np.zeros(2), np.zeros(1)))
        every = np.ones((1, len(p)))
        starts = tuple(np.nan_to_num(solution[0]) for solution in (here._with_slope(every), here._with_unit_slope(every)))
        return cls(here.positive, here.x, (starts[0], starts[1]))

    def under(self, weights: Array) -> tuple[Array, Array]:
        """(B, n) non-negative row weights -> slope (B,), intercept (B,).

        NaN where there is no finite solution: the slope's where a threshold on p separates the labels or all p are equal,
        both where a class has no weight.
        """
        return self._with_slope(weights)[:, 1] / self._scale, self._with_unit_slope(weights)[:, 0]

    @property
    def _scale(self) -> float:
        return float(self.x.std()) or 1.0

    def _with_slope(self, weights: Array) -> Array:
        """(B, 2): intercept and slope on the standardised logit."""
        columns = np.column_stack([np.ones_like(self.x), (self.x - self.x.mean()) / self._scale])
        return _where(~self._separated(weights), weights, self.positive, columns, np.zeros_like(self.x), self.starts[0])

    def _with_unit_slope(self, weights: Array) -> Array:
        """(B, 1): intercept alone."""
        weight = weights @ np.column_stack([self.positive, 1 - self.positive])
        return _where((weight > 0).all(axis=1), weights, self.positive, np.ones((len(self.x), 1)), self.x, self.starts[1])

    def _separated(self, weights: Array) -> Array:
        """(B,) bool: whether a threshold on x separates the labels that have weight, ties at the threshold allowed.

        For one variable this is exactly where the likelihood has no maximum (or, if all x are equal, no single one).
        """
        order = np.argsort(self.x)
        there = weights[:, order] > 0
        ends = []
        for label in (0, 1):
            x, seen = self.x[order][self.positive[order] == label], there[:, self.positive[order] == label]
            if not len(x):
                return np.ones(len(weights), bool)
            first, last = x[seen.argmax(axis=1)], x[len(x) - 1 - seen[:, ::-1].argmax(axis=1)]
            absent = ~seen.any(axis=1)
            ends.append((np.where(absent, np.inf, first), np.where(absent, -np.inf, last)))
        (low0, high0), (low1, high1) = ends
        return (high0 <= low1) | (high1 <= low0)


def _where(solvable: Array, weights: Array, y: Array, columns: Array, offset: Array, start: Array) -> Array:
    """`_newton` in the rows of `weights` that are `solvable` (B,), NaN in the others: (B, k)."""
    found = np.full((len(weights), columns.shape[1]), np.nan)
    if solvable.any():
        found[solvable] = _newton(weights if solvable.all() else weights[solvable], y, columns, offset, start)
    return found


def _newton(weights: Array, y: Array, columns: Array, offset: Array, start: Array) -> Array:
    """Weighted logistic regressions of y (n,) on columns (n, k) for every row of weights (B, n): (B, k), NaN where not converged.

    No step moves a linear predictor by more than 1. The second derivative along a step then stays within a factor of e of its
    first value, so a Newton step raises the likelihood by at least (3 − e) times the square of its decrement, with no line search.
    """
    count, k = len(weights), columns.shape[1]
    beta, result = np.tile(start, (count, 1)), np.full((count, k), np.nan)
    # Products of columns, flat, so that every Hessian is one matrix product.
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), k * k)
    reach = np.abs(columns).max(axis=0)
    target = weights @ (y[:, None] * columns)
    active = np.arange(count)
    for _ in range(_STEPS):
        w = weights if len(active) == count else weights[active]
        rate = expit(beta[active] @ columns.T + offset)
        expected = w * rate
        gradient = target[active] - expected @ columns
        expected -= expected * rate
        hessian = (expected @ products).reshape(-1, k, k)
        # Keeps a Hessian that rounding has made singular invertible; the solution stays the same.
        hessian += (1e-12 * (1 + np.trace(hessian, axis1=1, axis2=2)))[:, None, None] * np.eye(k)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step /= np.maximum(1, np.abs(step) @ reach)[:, None]
        beta[active] += step
        done = np.abs(step) @ reach < _CONVERGED
        result[active[done]] = beta[active[done]]
        active = active[~done]
        if not len(active):
            break
    return result

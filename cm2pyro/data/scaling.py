"""Scalings of numeric columns, fitted on training rows, with a state that is plain JSON."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Matrix = NDArray[np.float64]
_QUANTILES = 256
_CLIP = 3.0


class Moments:
    """Count, mean and squared deviations of numeric columns, which parts of a data set give one after the other.

    Attributes:
        count, mean, squares, largest: (F,) of the values that are there: how many, their mean, the sum of their squared deviations
            from it, the largest magnitude.
    """

    def __init__(self, count: Matrix, mean: Matrix, squares: Matrix, largest: Matrix) -> None:
        self.count, self.mean, self.squares, self.largest = count, mean, squares, largest

    @classmethod
    def of(cls, x: Matrix) -> Self:
        """x (n, F) with NaN for missing."""
        there = np.isfinite(x)
        filled = np.where(there, x, 0.0)
        count = there.sum(0).astype(np.float64)
        mean = filled.sum(0) / np.maximum(count, 1)
        centred = np.where(there, x - mean, 0.0)
        return cls(count, mean, (centred**2).sum(0), np.abs(filled).max(0, initial=0.0))

    @classmethod
    def zeros(cls, rows: int, columns: int = 1) -> Self:
        """Of that many rows of zeros."""
        return cls(np.full(columns, float(rows)), *(np.zeros(columns) for _ in range(3)))

    @classmethod
    def side_by_side(cls, parts: list[Self]) -> Self:
        """The columns of all parts."""
        names = ("count", "mean", "squares", "largest")
        return cls(*(np.concatenate([np.zeros(0), *(getattr(part, name) for part in parts)]) for name in names))

    def column(self, j: int) -> Self:
        """Those of column j alone."""
        return type(self)(*(x[j : j + 1] for x in (self.count, self.mean, self.squares, self.largest)))

    def plus(self, other: Self) -> Self:
        """Of the rows of both (Chan, Golub and LeVeque 1983); where one has none, exactly the other."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        step = np.where((self.count > 0) & (other.count > 0), other.mean - self.mean, 0.0)
        mean = np.where(self.count > 0, self.mean + step * share, other.mean)
        squares = self.squares + other.squares + step**2 * self.count * share
        return type(self)(count, mean, squares, np.maximum(self.largest, other.largest))

    def standard(self) -> "Standard":
        """The scaling that these moments make."""
        scale = np.sqrt(self.squares / np.maximum(self.count, 1))
        # Relative to the values themselves: what is left of a constant column is rounding, and units may be tiny.
        return Standard(self.mean, np.where(scale > 1e-10 * self.largest, scale, np.inf))


class Standard:
    """Zero mean, unit sd per column; a constant column becomes 0. NaN stays NaN."""

    def __init__(self, loc: Matrix, scale: Matrix) -> None:
        self.loc, self.scale = loc, scale

    @staticmethod
    def fit(x: Matrix) -> "Standard":
        """x (n, F) with NaN for missing; a column without values gets loc 0, scale 1."""
        return Moments.of(x).standard()

    def __call__(self, x: Matrix) -> Matrix:
        with np.errstate(over="ignore"):
            return (x - self.loc) / self.scale

    def inverse(self, x: Matrix) -> Matrix:
        """The original units; undefined for constant columns."""
        return x * self.scale + self.loc

    def state(self) -> dict[str, Any]:
        """Plain JSON; the scale of a constant column is null."""
        return {"loc": self.loc.tolist(), "scale": [s if np.isfinite(s) else None for s in self.scale.tolist()]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Raises what numpy and Python do where it is no state; ValueError where its numbers are none that `fit` gives."""
        scale = np.array([np.inf if s is None else s for s in state["scale"]], dtype=np.float64)
        loc = np.array(state["loc"], dtype=np.float64)
        if loc.ndim != 1 or loc.shape != scale.shape or not np.isfinite(loc).all() or not (scale > 0).all():
            raise ValueError("a scaling whose numbers are not one finite loc and one positive scale a column")
        return cls(loc, scale)


class QuantileNormal:
    """Normal scores per column: the empirical distribution function of the training rows, then Φ⁻¹, clipped at ±3. NaN stays NaN.

    A value between training values is interpolated; ties share the middle of their ranks, so a constant column is 0. A
    column without training values is NaN throughout: nothing is known about it.
    """

    def __init__(self, columns: list[tuple[Matrix, Matrix]]) -> None:
        self.columns = columns  # per column: increasing values, and their normal scores

    @classmethod
    def fit(cls, x: Matrix) -> Self:
        """x (n, F) with NaN for missing."""
        columns = []
        for column in x.T:
            seen = np.sort(column[np.isfinite(column)])
            values, first, counts = np.unique(seen, return_index=True, return_counts=True)
            ranks = (first + 0.5 * counts) / max(len(seen), 1)
            if len(values) > _QUANTILES:
                keep = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], _QUANTILES)))
                values, ranks = values[keep], ranks[keep]
            columns.append((values, np.clip(ndtri(ranks), -_CLIP, _CLIP)))
        return cls(columns)

    def __call__(self, x: Matrix) -> Matrix:
        scores = np.full_like(x, np.nan)
        for j, (values, normal) in enumerate(self.columns):
            present = np.isfinite(x[:, j])
            if len(values):
                scores[present, j] = np.interp(x[present, j], values, normal)
        return scores

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"columns": [[values.tolist(), normal.tolist()] for values, normal in self.columns]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Raises what numpy and Python do where it is no state; ValueError where its numbers are none that `fit` gives."""
        columns = [(np.array(values, dtype=np.float64), np.array(normal, dtype=np.float64)) for values, normal in state["columns"]]
        for values, normal in columns:
            if values.ndim != 1 or values.shape != normal.shape or not (np.diff(values) > 0).all() or not (np.abs(normal) <= _CLIP).all():
                raise ValueError("a scaling whose values do not rise, or are not as many as their scores")
        return cls(columns)


def curved(scores: Matrix) -> Matrix:
    """Scores and their centred squares ½(z² − 1), NaN as 0, side by side: (n, F) -> (n, 2F). A linear layer can then bend once."""
    return np.concatenate([np.nan_to_num(scores), np.nan_to_num(0.5 * (scores**2 - 1))], 1)

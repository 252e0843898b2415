"""Scalings of numeric columns, fitted on training rows, with a state that is plain JSON."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Matrix = NDArray[np.float64]
_QUANTILES = 256
_CLIP = 3.0


class Standard:
    """Zero mean, unit sd per column; a constant column becomes 0. NaN stays NaN."""

    def __init__(self, loc: Matrix, scale: Matrix) -> None:
        self.loc, self.scale = loc, scale

    @classmethod
    def fit(cls, x: Matrix) -> Self:
        """x (n, F) with NaN for missing; a column without values gets loc 0, scale 1."""
        counts = np.isfinite(x).sum(0)
        filled = np.where(np.isfinite(x), x, 0.0)
        loc = filled.sum(0) / np.maximum(counts, 1)
        centred = np.where(np.isfinite(x), x - loc, 0.0)
        scale = np.sqrt((centred**2).sum(0) / np.maximum(counts, 1))
        # Relative to the values themselves: what is left of a constant column is rounding, and units may be tiny.
        largest = np.abs(filled).max(0, initial=0.0)
        return cls(loc, np.where(scale > 1e-10 * largest, scale, np.inf))

    def __call__(self, x: Matrix) -> Matrix:
        with np.errstate(over="ignore"):
            return (x - self.loc) / self.scale

    def inverse(self, x: Matrix) -> Matrix:
        """The original units; undefined for constant columns."""
        return x * self.scale + self.loc

    def state(self) -> dict[str, Any]:
        return {"loc": self.loc.tolist(), "scale": [s if np.isfinite(s) else None for s in self.scale.tolist()]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        scale = [np.inf if s is None else s for s in state["scale"]]
        return cls(np.array(state["loc"], dtype=np.float64), np.array(scale, dtype=np.float64))


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
        return {"columns": [[values.tolist(), normal.tolist()] for values, normal in self.columns]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls([(np.array(values, dtype=np.float64), np.array(normal, dtype=np.float64)) for values, normal in state["columns"]])


def curved(scores: Matrix) -> Matrix:
    """Scores and their centred squares ½(z² − 1), NaN as 0, side by side: (n, F) -> (n, 2F). A linear layer can then bend once."""
    return np.concatenate([np.nan_to_num(scores), np.nan_to_num(0.5 * (scores**2 - 1))], 1)

"""Simulation-based calibration: whether posteriors of simulated data hold the parameters that made the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from cm2pyro.diagnostics.plots import BLUE, GREY, legend_below, page, plain
from cm2pyro.errors import DataError

Array = NDArray[np.float64]
_BANDS = 2000  # simulated sets of ranks that calibrate the band


@dataclass(frozen=True)
class Uniformity:
    """Ranks of one quantity against the uniform distribution.

    Attributes:
        p: p-value of the largest distance between the ECDF of the ranks and the uniform one, judged by simulation.
        at, difference: fractions in (0, 1), and ECDF minus fraction there. band: half-width within which 95% of uniform sets stay
            everywhere at once. coverage: interval level -> share of simulations whose truth lies in it.
    """

    p: float
    at: Array
    difference: Array
    band: Array
    coverage: dict[float, float]

    @property
    def uniform(self) -> bool:
        """Whether the band holds the whole curve."""
        return bool((np.abs(self.difference) <= self.band + 1e-12).all())


def uniformity(ranks: ArrayLike, draws: int, levels: tuple[float, ...] = (0.5, 0.9), seed: int = 0) -> Uniformity:
    """Judge ranks 0 … `draws` of simulated truths among posterior draws (Talts et al. 2018, arXiv 1804.06788).

    The band is √(p (1 − p)) wide everywhere up to a common factor, found by simulation as in Säilynoja, Bürkner & Vehtari (2022,
    Statistics and Computing 32:32), so that 95% of uniform sets lie within it as a whole. Central intervals of a level hold the truth
    where its rank is within them.

    Raises:
        DataError: fewer than two ranks, or ranks outside 0 … draws.
    """
    r = np.asarray(ranks)
    whole = r.ndim == 1 and r.size > 1 and np.issubdtype(r.dtype, np.integer)
    if not whole or draws < 1 or r.min() < 0 or r.max() > draws:
        found = f"{r.size} {r.dtype}" + (f" between {r.min()} and {r.max()}" if r.size else "")
        raise DataError(f"ranks: found {found}, expected two or more whole numbers between 0 and {draws}; mend them")
    at = np.arange(1, draws + 1) / (draws + 1)  # F(j) = P(rank < j) = j / (draws + 1)
    shape = np.sqrt(at * (1 - at))
    difference = _ecdf(r[None], draws)[0] - at
    rng = np.random.default_rng(seed)
    largest = np.concatenate(
        [(np.abs(_ecdf(rng.integers(0, draws + 1, (500, len(r))), draws) - at) / shape).max(1) for _ in range(_BANDS // 500)]
    )
    found = (np.abs(difference) / shape).max()
    p = (1 + (largest >= found - 1e-12).sum()) / (1 + len(largest))
    coverage = {}
    for level in levels:
        low = round((1 - level) / 2 * (draws + 1))  # of uniform ranks 1 − 2 low / (draws + 1) are within
        coverage[level] = float(((r >= low) & (r <= draws - low)).mean())
    return Uniformity(float(p), at, difference, np.quantile(largest, 0.95) * shape, coverage)


def _ecdf(ranks: NDArray[np.integer], draws: int) -> Array:
    """(R, n) sets of ranks -> (R, draws) share of ranks below 1 … draws."""
    counts = np.stack([np.bincount(row, minlength=draws + 1) for row in ranks])
    shares: Array = counts.cumsum(1)[:, :-1] / ranks.shape[1]
    return shares


def binomial_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper–Pearson) interval of a share of n."""
    found = stats.binomtest(round(share * n), n).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def plot_uniformity(panels: Mapping[str, Mapping[str, Uniformity]], path: str | Path, title: str) -> None:
    """Panels of ECDF differences with the band, two in a row, one curve a quantity: heading -> quantity -> its uniformity."""
    widest = max(np.abs(found.difference).max() for curves in panels.values() for found in curves.values())
    widest = 1.1 * max(widest, *(found.band.max() for curves in panels.values() for found in curves.values()))
    with page(path, title, rows=(len(panels) + 1) // 2) as parts:
        for part, (heading, curves) in zip(parts, panels.items(), strict=False):
            axes = part.subplots()
            for i, (name, found) in enumerate(curves.items()):
                axes.plot(found.at, found.difference, linewidth=1.2, label=name, color=f"C{i}", alpha=0.9)
            band = next(iter(curves.values()))
            axes.fill_between(band.at, -band.band, band.band, color=GREY, alpha=0.2, label="95% of uniform ranks")
            axes.axhline(0, color=BLUE, linewidth=0.7)
            axes.set(xlabel="fractional rank of the truth", ylabel="ECDF − uniform", ylim=(-widest, widest))
            axes.set_title(heading, fontsize=11, loc="left")
            axes.grid(alpha=0.25)
            plain(axes)
            legend_below(part, axes, 4, fontsize=8)

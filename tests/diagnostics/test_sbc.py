"""Simulation-based calibration: what is uniform is accepted, what is not is refused."""

from pathlib import Path

import numpy as np
import pytest

from cm2pyro.diagnostics.sbc import binomial_interval, plot_uniformity, uniformity
from cm2pyro.errors import DataError

DRAWS, SIMULATIONS = 20, 60


@pytest.mark.slow
def test_uniform_ranks_stay_in_the_band_at_its_level() -> None:
    rng = np.random.default_rng(1)
    sets = 300
    found = [uniformity(rng.integers(0, DRAWS + 1, SIMULATIONS), DRAWS) for _ in range(sets)]
    inside = np.mean([one.uniform for one in found])
    # Binomial sd √(0.95 · 0.05 / 300) = 0.013; of the band's level, from 2,000 sets, 0.005. Ranks are discrete: it may hold more.
    assert 0.95 - 4 * 0.014 < inside <= 1
    small = np.mean([one.p <= 0.05 for one in found])
    assert small < 0.05 + 4 * 0.014
    assert small > 0.005  # a p-value that is never small would be no test


def test_the_band_covers_95_percent_of_other_uniform_sets() -> None:
    """The same band against sets that did not make it."""
    rng = np.random.default_rng(2)
    draws, n = 100, 200
    band = uniformity(rng.integers(0, draws + 1, n), draws).band
    at = np.arange(1, draws + 1) / (draws + 1)
    ranks = rng.integers(0, draws + 1, (3000, n))
    curves = np.stack([np.searchsorted(np.sort(row), np.arange(1, draws + 1), side="left") / n for row in ranks]) - at
    share = (np.abs(curves) <= band + 1e-12).all(1).mean()
    # sd: 0.004 of 3,000 sets, 0.005 of the 2,000 that made the band.
    assert share == pytest.approx(0.95, abs=4 * 0.0064)


@pytest.mark.parametrize(
    ("a", "b", "what"), [(2, 1, "biased"), (1, 2, "biased"), (0.5, 0.5, "too narrow posteriors"), (2.5, 2.5, "too wide posteriors")]
)
def test_ranks_that_are_not_uniform_are_refused(a: float, b: float, what: str) -> None:
    rng = np.random.default_rng(0)
    found = uniformity(rng.binomial(100, rng.beta(a, b, 200)), 100)
    assert not found.uniform, what
    assert found.p < 0.01


def test_coverage_and_difference_are_those_of_ranks_made_by_hand() -> None:
    found = uniformity(np.arange(100), 99, levels=(0.5, 0.9))
    assert found.coverage == {0.5: 0.5, 0.9: 0.9}
    np.testing.assert_allclose(found.difference, 0, atol=1e-12)
    assert found.uniform
    assert found.p == 1
    # Ranks 0 … 3 of 3 draws: the central half are ranks 1 and 2.
    assert uniformity([0, 1, 1, 2, 3], 3, levels=(0.5,)).coverage == {0.5: 0.6}
    # All ranks 0: the ECDF is 1 at once.
    np.testing.assert_allclose(uniformity([0, 0, 0], 3).difference, [0.75, 0.5, 0.25])


@pytest.mark.parametrize(("draws", "level"), [(100, 0.5), (100, 0.9), (99, 0.9), (20, 0.5)])
def test_coverage_of_all_ranks_is_next_to_the_level(draws: int, level: float) -> None:
    coverage = uniformity(np.arange(draws + 1), draws, levels=(level,)).coverage[level]
    assert abs(coverage - level) <= 1 / (draws + 1)  # the ends of an interval move by one rank each


@pytest.mark.parametrize("ranks", [[], [3], [0, -1], [0, 11], [[1, 2]], [0.5, 1.5], [np.nan, 1.0]])
def test_what_are_no_ranks_is_refused(ranks: list) -> None:
    with pytest.raises(DataError, match=r"ranks: found .* expected two or more whole numbers between 0 and 10") as refusal:
        uniformity(ranks, 10)
    assert "\n" not in str(refusal.value)


def test_the_exact_interval() -> None:
    low, high = binomial_interval(0.9, 100)
    assert (low, high) == pytest.approx((0.8238, 0.9510), abs=1e-4)  # Clopper & Pearson for 90 of 100
    assert binomial_interval(1.0, 10)[1] == 1


def test_the_picture_is_written(tmp_path: Path) -> None:
    found = uniformity(np.arange(50), 49)
    path = tmp_path / "sbc.png"
    plot_uniformity({"one": {"x": found}, "two": {"x": found}}, path, "title")
    assert path.read_bytes()[:4] == b"\x89PNG"

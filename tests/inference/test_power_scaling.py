"""Power-scaling against a conjugate normal, whose power-scaled posterior is known."""

import numpy as np
import pytest
from scipy import stats

from cm2pyro.inference.power_scaling import CONFLICT, FINE, STRONG, PowerScaling, diagnosis, power_scaling

DRAWS = 4000


def posterior(prior: float, n: int, mean: float, a: float = 1.0, b: float = 1.0) -> stats.rv_continuous:
    """Of mu ~ N(prior, 1), the mean of n observations N(mu, 1), prior to the power a and likelihood to the power b."""
    precision = a + b * n
    return stats.norm((a * prior + b * n * mean) / precision, precision**-0.5)


def scaled(prior: float, n: int, mean: float) -> PowerScaling:
    # Quantiles of the posterior, shuffled: what is left of chance is in the ECDF alone.
    draws = posterior(prior, n, mean).ppf((np.arange(DRAWS) + 0.5) / DRAWS)
    draws = np.random.default_rng(0).permutation(draws).reshape(2, -1)
    return power_scaling({"mu": draws}, {"mu": -0.5 * (draws - prior) ** 2}, -0.5 * n * (draws - mean) ** 2)


def exact(prior: float, n: int, mean: float, of: str, delta: float = 0.01) -> float:
    """The sensitivity from the two normal CDFs."""
    here = posterior(prior, n, mean)
    grid = np.linspace(here.ppf(1 / DRAWS / 2), here.ppf(1 - 1 / DRAWS / 2), 20_001)
    found = []
    for alpha in (1 + delta, 1 / (1 + delta)):
        there = posterior(prior, n, mean, **{of: alpha})
        sides = []
        for p, q in ((here.cdf(grid), there.cdf(grid)), (here.sf(grid), there.sf(grid))):
            m = (p + q) / 2
            cjs = p * np.log2(p / m) + q * np.log2(q / m)
            sides.append(np.sqrt(np.trapezoid(cjs, grid) / np.trapezoid(p + q, grid)))
        found.append(max(sides))
    return sum(found) / (2 * np.log2(1 + delta))


@pytest.mark.parametrize(("prior", "n", "mean"), [(0.0, 2, 4.0), (0.0, 1, 0.3), (0.0, 400, 0.4)])
def test_sensitivities_are_those_of_the_known_posterior(prior: float, n: int, mean: float) -> None:
    row = scaled(prior, n, mean).table.iloc[0]
    # The smoothed weights and the tails beyond the outermost draws move them by a few per cent.
    assert row["prior"] == pytest.approx(exact(prior, n, mean, "a"), rel=0.1, abs=0.003)
    assert row["likelihood"] == pytest.approx(exact(prior, n, mean, "b"), rel=0.1, abs=0.003)


def test_diagnoses() -> None:
    conflict, weak, plenty = scaled(0.0, 2, 4.0), scaled(0.0, 400, 0.4), None
    assert conflict.table["diagnosis"].tolist() == [CONFLICT]
    assert weak.table["diagnosis"].tolist() == [FINE]  # a large N: the prior does not matter
    plenty = np.random.default_rng(1).normal(size=(2, 2000))  # the posterior is the prior
    strong = power_scaling({"mu": plenty}, {"mu": -0.5 * plenty**2}, -1e-4 * plenty**2)
    assert strong.table["diagnosis"].tolist() == [STRONG]
    assert strong.flagged["quantity"].tolist() == ["mu"]
    assert (diagnosis(0.049, 1), diagnosis(0.05, 0.049), diagnosis(0.05, 0.05)) == (FINE, STRONG, CONFLICT)


def test_the_site_that_matters_and_chance() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 1, 4000))
    found = power_scaling({"a": a, "b": b, "constant": np.ones_like(a)}, {"one": -0.5 * a**2, "two": -0.5 * b**2}, -0.5 * (a + b) ** 2)
    assert found.table["site"].tolist()[:2] == ["one", "two"]
    assert found.table["prior"].tolist()[2] == 0
    assert found.table["prior_two"][0] < 0.05 < found.table["prior_one"][0]
    assert max(found.k_hat.values()) < 0.7
    few = power_scaling({"a": a[:, :100]}, {"one": -5.0 * b[:, :100] ** 2}, -0.5 * b[:, :100] ** 2)  # unrelated, and few draws
    assert few.chance > 0.2 > found.chance
    assert few.table["diagnosis"].tolist() == [FINE]

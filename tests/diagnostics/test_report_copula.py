"""The report's sections on the copula, on families and on densities at epochs, against known truth."""

import dataclasses
import math

import pytest
import torch
from scipy.stats import kstest

from cm2pyro.diagnostics.report import components, copula, epochs, families
from cm2pyro.diagnostics.report.parts import Figure
from tests.diagnostics.report_cases import material, mixture, pictures, table, texts

pytestmark = pytest.mark.usefixtures("unpainted")

# --- pseudo-observations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [1.0, 4.0])
@pytest.mark.parametrize(("family", "tau"), [("gaussian", 0.5), ("clayton", 0.4), ("frank", -0.3)])
def test_pseudo_observations_are_draws_of_the_copula_if_the_model_holds(family: str, tau: float, apart: float) -> None:
    """Also where components overlap. Margins: Kolmogorov-Smirnov, bound 1.95/√n (p = 0.001). tau: four sd under independence."""
    m = material(mixture(2, 3, 1, tau, family, apart), n=4000)
    s, component = copula.pseudo(m, (0, 1), 0)
    assert len(s) == len(m.both((0, 1))) == len(component)
    for i in range(2):
        assert kstest(s[:, i], "norm").statistic < 1.95 / math.sqrt(len(s))
    sd = math.sqrt(2 * (2 * len(s) + 5) / (9 * len(s) * (len(s) - 1)))
    assert abs(copula.inside(s, component) - tau) < 4 * sd
    assert abs(copula.kendall(s) - tau) < 4 * math.sqrt(2 * 6005 / (9 * 3000 * 2999))


def test_clusters_are_kept_out_of_tau_inside_and_stay_in_tau_overall() -> None:
    """Components 4 sd apart and independent inside: overall tau is large, tau inside is chance."""
    m = material(mixture(2, 2, 1, 0.0, apart=4.0), n=2000, missing=0.0)
    row = table(copula.section(m)).rows[0]
    columns = table(copula.section(m)).columns
    found = dict(zip(columns, row, strict=True))
    assert abs(found["in the data"]) < 4 * 2 / 3 / math.sqrt(2000)
    # P(two rows in different components) = 4/9; they are nearly all concordant.
    assert 0.3 < found["overall"] < 0.5


def test_a_margin_beside_its_latents_leaves_tau_inside_and_is_told() -> None:
    """Components far apart, both fitted one sd beside their latents and half as wide again."""
    truth = mixture(2, 2, 1, 0.5, apart=12.0)
    moved = type(truth)(truth.log_weights, truth.assignment, truth.locs + 1, truth.scales * 1.5, truth.copula)
    m = material(truth, n=2000, fitted=moved)
    assert abs(copula.inside(*copula.pseudo(m, (0, 1), 0)) - 0.5) < 0.06
    assert any("do not describe its latents" in text for text in texts(components.section(m)))
    assert not texts(components.section(material(truth, n=2000)))


def test_strongest_pairs_come_first() -> None:
    truth = mixture(3, 1, 2)
    correlation = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    correlation[1, 0, 2] = correlation[1, 2, 0] = -0.8
    correlation[0, 1, 2] = correlation[0, 2, 1] = 0.4
    made = type(truth)(
        truth.log_weights, truth.assignment, truth.locs, truth.scales, type(truth.copula)(torch.linalg.cholesky(correlation))
    )
    m = material(made)
    assert [m.pairs[p] for p, _ in copula.strongest(m, 2)] == [(0, 2), (1, 2)]
    assert [j for _, j in copula.strongest(m, 2)] == [1, 0]


def test_a_copula_that_is_not_the_data_is_told() -> None:
    m = material(mixture(2, 1, 2, 0.0), n=1000, fitted=mixture(2, 1, 2, 0.6))
    assert any("differs in some dimension of m0~m1" in text for text in texts(copula.section(m)))
    assert not texts(copula.section(material(mixture(2, 1, 2, 0.6), n=1000)))


@pytest.mark.slow
def test_few_rows_of_a_pair_and_the_bound_of_tau_are_told() -> None:
    m = material(mixture(2, 1, 1, 0.985), n=40, missing=0.5)
    said = " ".join(texts(copula.section(m)))
    assert "Fewer than 30 of these rows have both modalities of m0~m1" in said
    assert "stands at its bound of ±0.99" in said


# --- families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["clayton", "survival_clayton", "frank", "joe"])
def test_the_family_that_made_the_data_has_the_greatest_density(family: str) -> None:
    """tau 0.5, n = 3,000: these four lie further than five standard errors from one another."""
    m = material(mixture(2, 2, 1, 0.5, family, 4.0), n=3000, missing=0.0)
    shown = table(families.section(m)).rows
    names = [str(row[0]).removesuffix(" (fitted)") for row in shown]
    close = {"survival_clayton": ["survival_clayton", "joe"], "joe": ["survival_clayton", "joe"]}.get(family, [family])
    assert names[0] in close
    assert str(next(row[0] for row in shown if "(fitted)" in str(row[0]))) == f"{family} (fitted)"


def test_negative_dependence_is_mirrored() -> None:
    m = material(mixture(2, 1, 1, -0.5, "frank"), n=1500, missing=0.0)
    section = families.section(m)
    assert "first coordinate mirrored" in next(part for part in section.parts if isinstance(part, Figure)).read
    assert str(table(section).rows[0][0]) == "frank (fitted)"


def test_weak_dependence_is_not_ranked() -> None:
    section = families.section(material(mixture(2, 1, 1, 0.0), n=3000))
    assert pictures(section) == 0
    assert "too weak" in str(section.parts[0])


# --- densities at epochs --------------------------------------------------------------------------------------------


def test_the_density_of_a_pair_is_a_margin_of_the_mixture() -> None:
    """It integrates to 1, and its draws are those coordinates: mean and covariance of 40,000 draws, five standard errors."""
    p = mixture(3, 2, 2, 0.5, "gumbel")
    pair = epochs.pair_mixture(p, (0, 2), 1)
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[..., None]
    density = pair.log_prob(grid).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-3)
    torch.manual_seed(0)
    draws = p.rsample((40_000,))[:, [0, 2], 1]
    product = float((density * grid[..., 0, 0] * grid[..., 1, 0]).sum() * (axis[1] - axis[0]) ** 2)
    cross = draws[:, 0] * draws[:, 1]
    assert abs(product - float(cross.mean())) < 5 * float(cross.std()) / 200


def test_a_run_without_snapshots_says_so() -> None:
    section = epochs.section(dataclasses.replace(material(), epochs={}))
    assert "has no snapshots" in str(section.parts[0])
    assert pictures(epochs.section(material())) == 8  # three epochs and what is kept, twice

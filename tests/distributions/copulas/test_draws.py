"""Draws, Kendall's tau and tail dependence agree with one another."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from cm2pyro.distributions import FAMILIES, Copula, make_copula
from tests.distributions.copulas.conftest import reach

DOUBLE = torch.float64
TAUS = [0.05, 0.5, 0.95]
ARCHIMEDEAN = ["clayton", "gumbel", "frank", "joe"]


def check_draws(c: Copula) -> None:
    """Uniform margins and the sample's Kendall's tau, whose standard deviation is at most sqrt(2 (1 − tau²) / n)."""
    n = 1000
    torch.manual_seed(1)
    s = c.rsample((n,)).numpy()
    for m in range(c.modalities):
        assert stats.kstest(s[:, m], "norm").pvalue > 1e-5  # with 200 margins looked at, one seed in 500 would fail
    for a, b in itertools.combinations(range(c.modalities), 2):
        expected = float(c.tau()[a, b] if c.tau().dim() else c.tau())
        assert abs(stats.kendalltau(s[:, a], s[:, b]).statistic - expected) < 5 * math.sqrt(2 * (1 - expected**2) / n)


@pytest.mark.parametrize("tau", TAUS)
def test_margins_and_kendalls_tau_of_draws(small_of: Callable[..., Copula], tau: float) -> None:
    check_draws(small_of(tau))


@pytest.mark.parametrize(("family", "M", "tau"), [("gaussian", 3, -0.3), ("student_t", 3, -0.3), ("frank", 2, -0.2), ("frank", 2, -0.95)])
def test_draws_of_negative_dependence(copula: Callable[..., Copula], family: str, M: int, tau: float) -> None:
    check_draws(copula(family, M, tau))


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-10), (torch.float32, 3e-6)])
def test_tau_and_theta_return(pair_of: Callable[..., Copula], dtype: torch.dtype, tolerance: float) -> None:
    """tau -> copula -> tau over the range of a learned copula, with derivative 1, and the same through the family's own parameter."""
    given = torch.tensor([0.001, 0.01, 0.1, 0.35, 0.5, 0.75, 0.9, 0.97, 0.989], dtype=dtype, requires_grad=True)
    c = pair_of(0.0 if pair_of.args[0] == "independence" else given, dtype)  # type: ignore[attr-defined]
    if c.family == "independence":
        assert float(c.tau()) == 0
        return
    tau = c.tau()[:, 0, 1] if c.tau().dim() > 1 else c.tau()
    assert tau.dtype == dtype
    most = reach(c.family, 2)
    torch.testing.assert_close(tau.abs(), most * given, rtol=0, atol=tolerance)
    slope = torch.autograd.grad(tau.abs().sum(), given, retain_graph=True)[0]
    torch.testing.assert_close(slope, torch.full_like(slope, most), rtol=0, atol=1e-8 if dtype == DOUBLE else 1e-3)
    assert bool((tau < 0).all()) == c.family.endswith(("_90", "_270"))
    again = FAMILIES.get(c.family).from_theta(c.theta, 2)
    torch.testing.assert_close(again.tau(), c.tau(), rtol=0, atol=tolerance)
    torch.testing.assert_close(again.theta, c.theta)


@pytest.mark.parametrize(
    ("family", "theta", "tau"),
    [
        ("clayton", 2.0, 0.5),
        ("gumbel", 4.0, 0.75),
        ("joe", 2.0, 2 - math.pi**2 / 6),
        ("frank", 5.736282707019658, 0.5),
        ("frank", -5.736282707019658, -0.5),
        ("gumbel_90", 2.0, -0.5),
        ("survival_joe", 1.0, 0.0),
        ("gaussian", [[1.0, 0.5], [0.5, 1.0]], 1 / 3),
    ],
)
def test_known_values_of_tau(family: str, theta: float | list, tau: float) -> None:
    """Frank's is from Nelsen (2006), An Introduction to Copulas; Joe's at theta = 2 from the limit."""
    c = make_copula(family, 2, theta=torch.tensor(theta, dtype=DOUBLE))
    assert float(c.tau()[0, 1] if c.tau().dim() else c.tau()) == pytest.approx(tau, abs=1e-9)


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("family", ARCHIMEDEAN)
def test_tail_dependence_is_the_limit(copula: Callable[..., Copula], family: str, tau: float) -> None:
    """C(q, q)/q at q = Φ(−100), since Gumbel's approaches its limit as slowly as q^0.035, and (2q − 1 + C(1 − q, 1 − q))/q at 1e-7."""
    c = copula(family, 2, tau)
    lower, upper = c.tail_dependence()
    far = torch.full((2,), -100.0, dtype=DOUBLE)
    assert float((c.log_cdf(far) - stats.norm.logcdf(-100)).exp()) == pytest.approx(float(lower), abs=1e-9)
    q = 1e-7
    near = -torch.special.ndtri(torch.tensor(q, dtype=DOUBLE)).expand(2)
    # c.log_cdf is near 0 here; its rounding, divided by q, is 1e-9. Of Joe's at tau 0.2 the next term is q^0.4.
    assert float(2 + torch.expm1(c.log_cdf(near)) / q) == pytest.approx(float(upper), abs=2e-3 if family == "joe" else 1e-5)


@pytest.mark.parametrize("family", ["clayton", "gumbel", "joe"])
def test_reflections_turn_the_tails(copula: Callable[..., Copula], family: str) -> None:
    lower, upper = copula(family, 2, 0.5).tail_dependence()
    torch.testing.assert_close(copula(f"survival_{family}", 2, 0.5).tail_dependence(), (upper, lower))
    for angle in (90, 270):
        c = copula(f"{family}_{angle}", 2, 0.5)
        assert [float(side) for side in c.tail_dependence()] == [0, 0]
        q = torch.special.ndtri(torch.tensor(1e-6, dtype=DOUBLE)).expand(2)
        assert float(c.log_cdf(q)) < math.log(1e-6 * 1e-4)


@pytest.mark.parametrize("df", [2.1, 4.0, 30.0])
@pytest.mark.parametrize("tau", [-0.4, 0.3, 0.95])
def test_tail_dependence_of_elliptical_families(copula: Callable[..., Copula], tau: float, df: float) -> None:
    """Demarta & McNeil (2005) for Student-t; none for Gaussian; a coordinate depends on itself wholly."""
    rho = math.sin(math.pi / 2 * tau)
    expected = 2 * stats.t.cdf(-math.sqrt((df + 1) * (1 - rho) / (1 + rho)), df + 1)
    for side in copula("student_t", 2, tau, df=df).tail_dependence():
        assert float(side[0, 1]) == float(side[1, 0]) == pytest.approx(expected, rel=1e-8, abs=1e-14)
        assert side.diagonal().tolist() == [1, 1]
    for side in copula("gaussian", 2, tau).tail_dependence():
        assert torch.equal(side, torch.eye(2, dtype=DOUBLE))

"""What every family must show, and the Gaussian family against SciPy and pyvinecopulib."""

import itertools
import math

import numpy as np
import pytest
import pyvinecopulib
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cm2pyro.distributions import FAMILIES, Copula, make_copula
from cm2pyro.errors import ConfigError

DOUBLE = torch.float64


def exchangeable(family: str, M: int, tau: float = 0.5) -> Copula:
    return make_copula(family, M, tau=0.0 if family == "independence" else tau, dtype=DOUBLE)


def correlation(M: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(M, M + 1))
    covariance = factor @ factor.T
    sd = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sd, sd)


@pytest.mark.parametrize("family", FAMILIES.names())
@pytest.mark.parametrize("M", [2, 3, 5])
def test_contract(family: str, M: int) -> None:
    torch.manual_seed(0)
    c = exchangeable(family, M)
    s = c.rsample((7,))
    assert s.shape == (7, M)
    assert c.log_prob(s).shape == (7,)
    assert c.has_rsample
    assert isinstance(c.support, type(torch.distributions.constraints.real_vector))
    observed = torch.rand(7, M) < 0.5
    conditional = c.conditional(s, observed)
    drawn = conditional.rsample()
    assert torch.equal(drawn[observed], s[observed])
    torch.testing.assert_close(conditional.log_prob(drawn), c.log_prob(drawn) - c.log_prob(drawn, observed))
    assert bool((c.log_prob(s, observed)[observed.sum(1) < 2] == 0).all())
    blank = torch.where(observed, s, torch.tensor(torch.nan, dtype=DOUBLE))
    torch.testing.assert_close(c.log_prob(blank, observed), c.log_prob(s, observed))


@pytest.mark.parametrize("family", FAMILIES.names())
@pytest.mark.parametrize("M", [2, 3])
def test_margins_are_standard_normal_and_tau_is_as_said(family: str, M: int) -> None:
    torch.manual_seed(1)
    n = 4000
    c = exchangeable(family, M, 0.4)
    s = c.rsample((n,)).numpy()
    for m in range(M):
        assert stats.kstest(s[:, m], "norm").pvalue > 1e-4
    tau = c.tau()
    # sd of the sample tau is at most sqrt(2 (1 - tau²) / n).
    for a, b in itertools.combinations(range(M), 2):
        expected = float(tau[a, b]) if tau.dim() else float(tau)
        assert abs(stats.kendalltau(s[:, a], s[:, b]).statistic - expected) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("family", FAMILIES.names())
def test_density_integrates_to_one(family: str) -> None:
    c = exchangeable(family, 2)
    axis = torch.linspace(-9, 9, 801, dtype=DOUBLE)
    normal = torch.distributions.Normal(torch.zeros((), dtype=DOUBLE), 1.0)
    points = torch.cartesian_prod(axis, axis)
    density = (c.log_prob(points) + normal.log_prob(points).sum(-1)).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("family", FAMILIES.names())
def test_conditional_margin_is_the_ratio_of_densities(family: str) -> None:
    c = exchangeable(family, 3, 0.6)
    s = torch.randn(20, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    normal = torch.distributions.Normal(torch.zeros((), dtype=DOUBLE), 1.0)
    for given_mask in ([True, False, False], [True, True, False], [False, False, False]):
        mask = torch.tensor(given_mask).expand(20, 3)
        after = mask | (torch.arange(3) == 2)
        cdf, log_density = c.conditional_margin(s, 2, mask)
        torch.testing.assert_close(log_density, c.log_prob(s, after) - c.log_prob(s, mask) + normal.log_prob(s[:, 2]))
        slope = torch.autograd.grad(cdf.sum(), s)[0][:, 2]
        torch.testing.assert_close(slope.log(), log_density)


@pytest.mark.parametrize("M", [2, 3, 5])
def test_gaussian_density_against_scipy(M: int) -> None:
    R = correlation(M, M)
    c = make_copula("gaussian", M, correlation=torch.from_numpy(R))
    s = np.random.default_rng(0).normal(size=(50, M)) * 2
    expected = stats.multivariate_normal(cov=R).logpdf(s) - stats.norm.logpdf(s).sum(1)
    np.testing.assert_allclose(c.log_prob(torch.from_numpy(s)).numpy(), expected, rtol=1e-10, atol=1e-10)
    observed = np.random.default_rng(1).random((50, M)) < 0.6
    for row in range(50):
        kept = np.flatnonzero(observed[row])
        subset = 0.0
        if len(kept) > 1:
            subset = stats.multivariate_normal(cov=R[np.ix_(kept, kept)]).logpdf(s[row, kept]) - stats.norm.logpdf(s[row, kept]).sum()
        got = c.log_prob(torch.from_numpy(s[row]), torch.from_numpy(observed[row]))
        assert float(got) == pytest.approx(subset, abs=1e-9)


@pytest.mark.parametrize("tau", [-0.9, -0.3, 0.05, 0.5, 0.95])
def test_gaussian_density_against_pyvinecopulib(tau: float) -> None:
    rho = math.sin(math.pi / 2 * tau)
    oracle = pyvinecopulib.Bicop(family=pyvinecopulib.gaussian, parameters=np.array([[rho]]))
    u = np.random.default_rng(0).uniform(0.001, 0.999, (500, 2))
    c = make_copula("gaussian", 2, tau=tau, dtype=DOUBLE)
    got = c.log_prob(torch.from_numpy(stats.norm.ppf(u))).exp().numpy()
    np.testing.assert_allclose(got, oracle.pdf(u), rtol=1e-8, atol=1e-12)
    assert float(c.tau()[0, 1]) == pytest.approx(oracle.tau, abs=1e-10)


def test_gaussian_conditional_is_the_conditional_normal() -> None:
    """Mean and covariance of draws, each row with its own pattern, against the textbook formula."""
    M, n = 4, 40_000
    R = correlation(M, 7)
    c = make_copula("gaussian", M, correlation=torch.from_numpy(R))
    patterns = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    s = torch.randn(4, M, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.manual_seed(1)
    drawn = c.conditional(s.expand(n, 4, M), patterns.expand(n, 4, M)).rsample()
    for row in range(4):
        seen, hidden = patterns[row].numpy(), ~patterns[row].numpy()
        weights = R[np.ix_(hidden, seen)] @ np.linalg.inv(R[np.ix_(seen, seen)]) if seen.any() else np.zeros((hidden.sum(), 0))
        mean = weights @ s[row].numpy()[seen]
        covariance = R[np.ix_(hidden, hidden)] - weights @ R[np.ix_(seen, hidden)]
        sample = drawn[:, row].numpy()
        assert (sample[:, seen] == s[row].numpy()[seen]).all()
        error = np.sqrt(np.diag(covariance) / n)
        assert (np.abs(sample[:, hidden].mean(0) - mean) < 5 * error).all()
        # sd of a sample covariance of normals is at most sqrt(2 / n) times the product of the sds.
        assert np.abs(np.cov(sample[:, hidden].T).reshape(covariance.shape) - covariance).max() < 5 * math.sqrt(2 / n)


def test_batch_of_copulas_one_per_dimension() -> None:
    tau = torch.tensor([0.1, 0.5, 0.8], dtype=DOUBLE)
    batched = make_copula("gaussian", 3, tau=tau)
    assert batched.batch_shape == (3,)
    assert batched.tau().shape == (3, 3, 3)
    s = torch.randn(6, 3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    observed = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    varied = torch.rand(6, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    torch.manual_seed(0)
    noise = torch.randn(6, 3, 3, dtype=DOUBLE)
    for j in range(3):
        one = make_copula("gaussian", 3, tau=tau[j])
        torch.testing.assert_close(batched.select(j).theta, one.theta)
        torch.testing.assert_close(batched.log_prob(s)[:, j], one.log_prob(s[:, j]))
        torch.testing.assert_close(batched.log_prob(s, observed[:, None])[:, j], one.log_prob(s[:, j], observed))
        torch.testing.assert_close(batched.log_prob(s, varied)[:, j], one.log_prob(s[:, j], varied[:, j]))
        together = batched.conditional(s, observed[:, None]).rsample(noise=noise)
        torch.testing.assert_close(together[:, j], one.conditional(s[:, j], observed).rsample(noise=noise[:, j]))


@settings(max_examples=50, deadline=None)
@given(tau=st.floats(0.01, 0.99), scale=st.floats(0, 40), seed=st.integers(0, 1000))
def test_gaussian_float32_is_finite_and_near_float64(tau: float, scale: float, seed: int) -> None:
    s = (torch.rand(20, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * scale
    s.requires_grad_()
    value = make_copula("gaussian", 2, tau=tau).log_prob(s)
    assert torch.isfinite(value).all()
    assert torch.isfinite(torch.autograd.grad(value.sum(), s)[0]).all()
    exact = make_copula("gaussian", 2, tau=tau, dtype=DOUBLE).log_prob(s.detach().double())
    # The correlation itself is rounded to float32: near one that is a relative error of 6e-8 / (1 - rho²).
    rounding = 1e-5 + 4e-7 / (1 - math.sin(math.pi / 2 * tau) ** 2)
    assert bool(((value.detach().double() - exact).abs() <= rounding * (1 + exact.abs() + scale**2 * 1e-2)).all())


@settings(max_examples=30, deadline=None)
@given(M=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_site_value_for_tau_gives_that_tau(M: int, seed: int) -> None:
    R = torch.from_numpy(correlation(M, seed))
    R = 0.8 * R + 0.2 * torch.eye(M, dtype=DOUBLE)
    tau = 2 / math.pi * torch.asin(R * (1 - torch.eye(M, dtype=DOUBLE))) + torch.eye(M, dtype=DOUBLE)
    family = FAMILIES.get("gaussian")
    torch.testing.assert_close(family.from_site(family.site_from_tau(tau), M).tau(), tau, atol=1e-6, rtol=0)


def test_learned_tau_stays_below_its_bound_with_a_gradient() -> None:
    """At the edge of what the site can hold, tau is 0.99 and the gradient is not zero."""
    tril = torch.tensor([[1.0, 0.0], [1 - 1e-9, 4.4721e-5]], dtype=DOUBLE, requires_grad=True)
    c = FAMILIES.get("gaussian").from_site(tril, 2)
    assert 0.98 < float(c.tau()[0, 1].detach()) <= 0.99
    gradient = torch.autograd.grad(c.log_prob(torch.tensor([1.0, 0.8], dtype=DOUBLE)), tril)[0]
    assert float(gradient[1, 0].abs()) > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"family": "gausian", "modalities": 2, "tau": 0.5}, "did you mean 'gaussian'"),
        ({"family": "gaussian", "modalities": 1, "tau": 0.5}, "2 or more"),
        ({"family": "gaussian", "modalities": 2}, "needs tau"),
        ({"family": "gaussian", "modalities": 2, "tau": 1.0}, "tau < 1"),
        ({"family": "gaussian", "modalities": 3, "tau": -0.6}, "-0.333 < tau < 1"),
        ({"family": "gaussian", "modalities": 2, "tau": 0.2, "theta": 0.1}, "pass one"),
        ({"family": "gaussian", "modalities": 2, "df": 3.0}, "no degrees of freedom"),
        ({"family": "gaussian", "modalities": 2, "correlation": [[1.0, 1.2], [1.2, 1.0]]}, "positive definite"),
        ({"family": "gaussian", "modalities": 3, "correlation": [[1.0, 0.2], [0.2, 1.0]]}, "(2, 2)"),
        ({"family": "independence", "modalities": 2, "tau": 0.5}, "tau 0"),
    ],
)
def test_refusals_are_one_line(arguments: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_copula(**arguments)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)

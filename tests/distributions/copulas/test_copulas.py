"""The Gaussian family against SciPy, elliptical families as learned priors, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cm2pyro.distributions import FAMILIES, make_copula
from cm2pyro.errors import ConfigError

DOUBLE = torch.float64


def correlation(M: int, seed: int) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(M, M + 1))
    covariance = factor @ factor.T
    sd = np.sqrt(np.diag(covariance))
    return covariance / np.outer(sd, sd)


@pytest.mark.parametrize("M", [2, 3, 5])
def test_gaussian_density_against_scipy(M: int) -> None:
    R = correlation(M, M)
    c = make_copula("gaussian", M, correlation=torch.from_numpy(R))
    s = np.random.default_rng(0).normal(size=(50, M)) * 2
    expected = stats.multivariate_normal(cov=R).logpdf(s) - stats.norm.logpdf(s).sum(1)
    np.testing.assert_allclose(c.log_prob(torch.from_numpy(s)).numpy(), expected, rtol=1e-10, atol=1e-10)
    observed = np.random.default_rng(1).random((50, M)) < 0.6
    together = c.log_prob(torch.from_numpy(s), torch.from_numpy(observed))
    for row in range(50):
        kept = np.flatnonzero(observed[row])
        subset = 0.0
        if len(kept) > 1:
            subset = stats.multivariate_normal(cov=R[np.ix_(kept, kept)]).logpdf(s[row, kept]) - stats.norm.logpdf(s[row, kept]).sum()
        got = c.log_prob(torch.from_numpy(s[row]), torch.from_numpy(observed[row]))
        assert float(got) == pytest.approx(subset, abs=1e-9)
        assert float(together[row]) == pytest.approx(subset, abs=1e-9)


def test_student_t_density_against_scipy() -> None:
    R, df = correlation(3, 3), 5.0
    c = make_copula("student_t", 3, correlation=torch.from_numpy(R), df=df)
    s = np.random.default_rng(0).normal(size=(50, 3)) * 2
    x = np.sign(s) * stats.t.isf(stats.norm.sf(np.abs(s)), df)
    expected = stats.multivariate_t(shape=R, df=df).logpdf(x) - stats.t.logpdf(x, df).sum(1)
    np.testing.assert_allclose(c.log_prob(torch.from_numpy(s)).numpy(), expected, rtol=1e-8, atol=1e-8)


def test_student_t_of_many_degrees_of_freedom_is_gaussian() -> None:
    """The difference falls like 1/ν times the square of the quadratic form: at ν = 1e6 below 1e-4 of the density."""
    R = torch.from_numpy(correlation(3, 4))
    s = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)))
    wide, normal = make_copula("student_t", 3, correlation=R, df=1e6), make_copula("gaussian", 3, correlation=R)
    torch.testing.assert_close(wide.log_prob(s), normal.log_prob(s), rtol=1e-4, atol=1e-4)


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


@settings(max_examples=30, deadline=None, derandomize=True)
@given(M=st.integers(2, 5), seed=st.integers(0, 10_000), family=st.sampled_from(["gaussian", "student_t"]))
def test_site_values_for_tau_give_that_tau(M: int, seed: int, family: str) -> None:
    R = torch.from_numpy(correlation(M, seed))
    R = 0.8 * R + 0.2 * torch.eye(M, dtype=DOUBLE)
    tau = 2 / math.pi * torch.asin(R * (1 - torch.eye(M, dtype=DOUBLE))) + torch.eye(M, dtype=DOUBLE)
    cls = FAMILIES.get(family)
    torch.testing.assert_close(cls.from_sites(cls.sites_from_tau(tau), M, like=tau).tau(), tau, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["gaussian", "student_t"])
def test_learned_tau_stays_below_its_bound_with_a_gradient(family: str) -> None:
    """At the edge of what the site can hold, tau is 0.99 and the gradient is not zero."""
    tril = torch.tensor([[1.0, 0.0], [1 - 1e-9, 4.4721e-5]], dtype=DOUBLE, requires_grad=True)
    c = FAMILIES.get(family).from_sites({"": tril, "df": torch.tensor(4.0, dtype=DOUBLE)}, 2, like=tril)
    assert 0.98 < float(c.tau()[0, 1].detach()) <= 0.99
    gradient = torch.autograd.grad(c.log_prob(torch.tensor([1.0, 0.8], dtype=DOUBLE)), tril)[0]
    assert float(gradient[1, 0].abs()) > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"family": "gausian", "modalities": 2, "tau": 0.5}, "did you mean 'gaussian'"),
        ({"family": "gaussian", "modalities": 1, "tau": 0.5}, "2 or more"),
        ({"family": "gaussian", "modalities": 2}, "needs tau"),
        ({"family": "clayton", "modalities": 2}, "needs tau"),
        ({"family": "gaussian", "modalities": 2, "tau": 1.0}, "tau < 1"),
        ({"family": "gaussian", "modalities": 3, "tau": -0.6}, "-0.333 < tau < 1"),
        ({"family": "gaussian", "modalities": 2, "tau": 0.2, "theta": 0.1}, "pass one"),
        ({"family": "gaussian", "modalities": 2, "correlation": [[1.0, 1.2], [1.2, 1.0]]}, "positive definite"),
        ({"family": "gaussian", "modalities": 2, "correlation": [[1.0, math.nan], [math.nan, 1.0]]}, "positive definite"),
        ({"family": "gaussian", "modalities": 3, "correlation": [[1.0, 0.2], [0.2, 1.0]]}, "(2, 2)"),
        ({"family": "independence", "modalities": 2, "tau": 0.5}, "tau 0"),
        ({"family": "independence", "modalities": 2, "theta": 0.5}, "no parameter"),
        ({"family": "gumbel", "modalities": 3, "tau": -0.2}, "0 <= tau < 1"),
        ({"family": "gumbel", "modalities": 2, "tau": [0.5, 1.0]}, "found [0.5, 1.0]"),
        ({"family": "joe_90", "modalities": 2, "tau": 0.5}, "tau <= 0"),
        ({"family": "clayton_270", "modalities": 2, "tau": -1.0}, "-1 < tau"),
        ({"family": "frank", "modalities": 3, "tau": -0.2}, "tau < 1"),
        ({"family": "clayton", "modalities": 2, "theta": -1.0}, "theta > 0"),
        ({"family": "gumbel", "modalities": 2, "theta": 0.5}, "theta >= 1"),
        ({"family": "joe", "modalities": 2, "theta": math.inf}, "theta >= 1"),
        ({"family": "frank", "modalities": 3, "theta": -2.0}, "theta > 0"),
        ({"family": "joe", "modalities": 2, "theta": [[1.0, 2.0], [2.0, 1.0]]}, "one parameter"),
        ({"family": "clayton", "modalities": 2, "correlation": [[1.0, 0.5], [0.5, 1.0]]}, "one parameter"),
        ({"family": "gaussian", "modalities": 2, "tau": 0.5, "df": 3.0}, "no degrees of freedom"),
        ({"family": "student_t", "modalities": 2, "tau": 0.5, "df": 2.0}, "df > 2"),
        ({"family": "student_t", "modalities": 2, "tau": 0.5, "df": math.nan}, "df > 2"),
        ({"family": "student_t", "modalities": 2, "tau": [0.1, 0.2], "df": [3.0, 4.0, 5.0]}, "found (3,)"),
    ],
)
def test_refusals_are_one_line(arguments: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_copula(**arguments)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("family", [family for family in FAMILIES.names() if family != "independence"])
def test_every_family_refuses_what_no_family_takes(family: str) -> None:
    refused: list[dict[str, Any]] = [{"tau": x} for x in (math.nan, 1.0, -1.0, math.inf)]
    for bad in (*refused, {"theta": math.nan}, {"theta": -math.inf}):
        with pytest.raises(ConfigError) as refusal:
            make_copula(family, 2, **bad)
        assert "\n" not in str(refusal.value)
    if family.endswith(("_90", "_270")):
        with pytest.raises(ConfigError, match="exactly 2 coordinates, found 3"):
            make_copula(family, 3, tau=-0.5)


@pytest.mark.parametrize("family", [family for family in FAMILIES.names() if family != "independence"])
def test_independence_as_a_limit(family: str) -> None:
    """tau = 0 is inside the range but for Clayton's copulas, whose theta is positive."""
    if "clayton" in family:
        with pytest.raises(ConfigError, match="found 0"):
            make_copula(family, 2, tau=0.0)
        return
    c = make_copula(family, 2, tau=0.0, dtype=DOUBLE)
    assert float(c.tau()[0, 1] if c.tau().dim() else c.tau()) == pytest.approx(0, abs=1e-6)
    s = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).requires_grad_()
    value = c.log_prob(s)
    if family != "student_t":  # uncorrelated, not independent
        torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-5)
    assert torch.isfinite(torch.autograd.grad(value.sum(), s)[0]).all()

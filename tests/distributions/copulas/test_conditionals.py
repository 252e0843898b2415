"""Laws of some coordinates given others: against quadrature of the density, and uniform when put through themselves."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cm2pyro.distributions import Copula

DOUBLE = torch.float64


def log_normal(s: Tensor) -> Tensor:
    return -0.5 * s.square() - 0.5 * math.log(2 * math.pi)


def nodes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights (1600, R) of a Gauss–Legendre rule of 16 points on each of 100 equal parts of [low, high], both (R,)."""
    x, w = (torch.from_numpy(v)[:, None] for v in np.polynomial.legendre.leggauss(16))
    part = (high - low) / 100
    starts = low + part * torch.arange(100, dtype=DOUBLE)[:, None, None]
    return (starts + part * (x + 1) / 2).flatten(0, 1), (part / 2 * w).expand(100, -1, -1).flatten(0, 1)


def cdf_by_quadrature(c: Copula, s: Tensor, m: int, given: Tensor) -> Tensor:
    """∫ of the density of s_m given the others up to s_m, checked to add up to 1; all rows (R, M) share the pattern `given`."""
    with_m = given | (torch.arange(c.modalities) == m)

    def integral(low: Tensor, high: Tensor) -> Tensor:
        x, w = nodes(low, high)
        rows = s.expand(len(x), -1, -1).clone()
        rows[..., m] = x
        return ((c.log_prob(rows, with_m) - c.log_prob(s, given) + log_normal(x)).exp() * w).sum(0)

    below, above = integral(torch.full_like(s[:, m], -9), s[:, m]), integral(s[:, m], torch.full_like(s[:, m], 9))
    torch.testing.assert_close(below + above, torch.ones_like(below), rtol=0, atol=1e-8)
    return below


@pytest.mark.parametrize("tau", [0.3, 0.9])
def test_draws_solve_the_conditional_distribution_function(small_of: Callable[..., Copula], tau: float) -> None:
    """Each drawn coordinate, given the observed ones and those drawn before it, sits at the quantile of its own noise."""
    c = small_of(tau)
    M, R = c.modalities, 4
    generator = torch.Generator().manual_seed(0)
    s = c.rsample(noise=torch.randn(R, M, generator=generator, dtype=DOUBLE), sample_shape=(R,))
    noise = torch.randn(R, M, generator=generator, dtype=DOUBLE)
    for code in range(2**M - 1):
        observed = torch.tensor([bool(code >> m & 1) for m in range(M)])
        drawn = c.conditional(s, observed).rsample(noise=noise)
        assert torch.equal(drawn[:, observed], s[:, observed])
        given = observed.clone()
        for m in torch.nonzero(~observed)[:, 0].tolist():
            torch.testing.assert_close(cdf_by_quadrature(c, drawn, m, given), torch.special.ndtr(noise[:, m]), rtol=0, atol=1e-7)
            given[m] = True


def test_conditional_margin(copula_of: Callable[..., Copula]) -> None:
    """F rises from 0 to 1, its derivative is the density, and the density is a difference of log_probs."""
    c = copula_of(0.6)
    M = c.modalities
    s = c.rsample((12,), noise=torch.randn(12, M, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)).requires_grad_()
    for seed, m in enumerate((0, M - 1)):
        given = torch.rand(12, M, generator=torch.Generator().manual_seed(seed)) < 0.6
        given[:, m] = False
        after = given | (torch.arange(M) == m)
        F, log_density = c.conditional_margin(s, m, given)
        torch.testing.assert_close(log_density, c.log_prob(s, after) - c.log_prob(s, given) + log_normal(s[:, m]))
        slope = torch.autograd.grad(F.sum(), s)[0]
        torch.testing.assert_close(slope[:, m].log(), log_density, rtol=1e-8, atol=1e-8)
        assert bool((slope[~after] == 0).all())
        for end, limit in ((-9.0, 0.0), (9.0, 1.0)):
            moved = s.detach().clamp(-1, 1)
            moved[:, m] = end
            torch.testing.assert_close(c.conditional_margin(moved, m, given)[0], torch.full((12,), limit, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_probability_integral_transform(larger_of: Callable[..., Copula]) -> None:
    """Patterns at random, among them nothing and everything: draws put through their conditional laws in turn are uniform."""
    c = larger_of(0.6)
    M, n = c.modalities, 500
    torch.manual_seed(M)
    patterns = torch.rand(5, M) < 0.5
    patterns[0], patterns[1] = True, False
    s, observed = torch.randn(n, M, dtype=DOUBLE), patterns[torch.randint(5, (n,))]
    drawn = c.conditional(s, observed).rsample()
    values, given = [], observed.clone()
    for m in range(M):
        F, _ = c.conditional_margin(drawn, m, given & (torch.arange(M) != m))
        values.append(F[~observed[:, m]])
        given[:, m] = True
    # The transforms of a row are independent of one another, so they may be pooled.
    pooled = torch.cat(values)
    assert len(pooled) > n
    assert stats.kstest(pooled.numpy(), "uniform").pvalue > 1e-4


def test_rows_do_not_depend_on_each_other(copula_of: Callable[..., Copula]) -> None:
    c = copula_of(0.6)
    M = c.modalities
    generator = torch.Generator().manual_seed(3)
    s, noise = (2 * torch.randn(4, M, generator=generator, dtype=DOUBLE) for _ in range(2))
    observed = torch.rand(4, M, generator=generator) < 0.5
    observed[0], observed[1] = True, False
    together = c.conditional(s, observed).rsample(noise=noise)
    apart = torch.stack([c.conditional(s[i], observed[i]).rsample(noise=noise[i]) for i in range(4)])
    # A search stops when it is within 1e-9.
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-8)
    torch.testing.assert_close(c.log_prob(s, observed), torch.stack([c.log_prob(s[i], observed[i]) for i in range(4)]))


def test_log_prob_of_the_conditional(copula_of: Callable[..., Copula]) -> None:
    """log c(all) − log c(observed), whatever stands where the observed values go, and NaN where nothing is observed."""
    c = copula_of(0.6)
    M = c.modalities
    generator = torch.Generator().manual_seed(4)
    s, other = (torch.randn(4, M, generator=generator, dtype=DOUBLE) for _ in range(2))
    observed = torch.rand(4, M, generator=generator) < 0.5
    nan = torch.tensor(torch.nan, dtype=DOUBLE)
    conditional = c.conditional(torch.where(observed, s, nan), observed)
    expected = c.log_prob(s) - c.log_prob(s, observed)
    torch.testing.assert_close(conditional.log_prob(torch.where(observed, other, s)), expected)
    drawn = conditional.rsample((3,))
    assert drawn.shape == (3, 4, M)
    assert torch.equal(drawn[:, observed], s[observed].expand(3, -1))
    assert torch.isfinite(drawn).all()

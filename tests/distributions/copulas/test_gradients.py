"""Draws carry exact implicit derivatives: against central differences with the same noise."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from cm2pyro.distributions import Copula, make_copula

DOUBLE = torch.float64
TAUS = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95], dtype=DOUBLE)
D = len(TAUS)  # one copula per element, so that every element has a derivative of its own


def patterns(M: int) -> list[Tensor]:
    """Nothing observed, the first, all but the first, and of three the first two."""
    first = [torch.arange(M) < k for k in range(M)]
    return [*first, ~first[1]]


def central(f: Callable[[Tensor], Tensor], x: Tensor, h: Tensor) -> Tensor:
    """df/dx of element by element, (D, M), by a difference of fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h[:, None])


def check(f: Callable[[Tensor], Tensor], x: Tensor, h: Tensor) -> None:
    """Both derivatives of each coordinate of f(x) (D, M) by its element of x (D,).

    A root is found within 1e-9 at worst, and to rounding as a rule, so the difference is good to 2e-9 / h.
    """
    x = x.detach().requires_grad_()
    value = f(x)
    got = torch.stack([torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in value.unbind(-1)], -1)
    expected = central(f, x.detach(), h)
    assert torch.isfinite(got).all()
    excess = (got - expected).abs() / (1e-6 * expected.abs() + 2e-9 / h[:, None])
    assert float(excess.max()) < 1, (got, expected)


def inputs(M: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(M)
    return torch.randn(D, M, generator=generator, dtype=DOUBLE), torch.randn(D, M, generator=generator, dtype=DOUBLE)


def test_by_tau(small_of: Callable[..., Copula]) -> None:
    M = small_of().modalities
    if small_of().family == "independence":
        pytest.skip("independence has no parameter")
    s, noise = inputs(M)

    def draw(observed: Tensor, tau: Tensor) -> Tensor:
        return small_of(tau).conditional(s, observed).rsample(noise=noise)

    for observed in patterns(M):
        check(partial(draw, observed), TAUS, 0.001 * (TAUS * (1 - TAUS)))


def test_by_observed_scores(small_of: Callable[..., Copula]) -> None:
    c = small_of(TAUS if small_of().family != "independence" else 0.0)
    s, noise = inputs(c.modalities)

    def draw(observed: Tensor, m: int, x: Tensor) -> Tensor:
        moved = torch.cat([s[:, :m], x[:, None], s[:, m + 1 :]], -1)
        return c.conditional(moved, observed).rsample(noise=noise)

    for observed in patterns(c.modalities):
        for m in torch.nonzero(observed)[:, 0].tolist():
            check(partial(draw, observed, m), s[:, m], torch.full((D,), 1e-3, dtype=DOUBLE))


@pytest.mark.parametrize("M", [2, 3])
def test_by_degrees_of_freedom(M: int) -> None:
    s, noise = inputs(M)
    df = torch.linspace(2.1, 40, D, dtype=DOUBLE)

    def draw(observed: Tensor, df: Tensor) -> Tensor:
        return make_copula("student_t", M, tau=TAUS, df=df).conditional(s, observed).rsample(noise=noise)

    for observed in patterns(M):
        check(partial(draw, observed), df, 0.01 * (df - 2))


def test_by_correlation() -> None:
    """By one element of the Cholesky factor's angle, other pairs staying as they are."""
    s, noise = inputs(3)
    angle = torch.linspace(0.2, 2.8, D, dtype=DOUBLE)

    def draw(family: str, observed: Tensor, angle: Tensor) -> Tensor:
        R = torch.eye(3, dtype=DOUBLE) + 0.3 * torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=DOUBLE)
        change = torch.zeros(3, 3, dtype=DOUBLE)
        change[0, 1] = change[1, 0] = 0.7
        c = make_copula(family, 3, correlation=R + angle.cos()[:, None, None] * change)
        return c.conditional(s, observed).rsample(noise=noise)

    for family in ("gaussian", "student_t"):
        for observed in patterns(3):
            check(partial(draw, family, observed), angle, torch.full((D,), 1e-3, dtype=DOUBLE))


@pytest.mark.parametrize("family", ["clayton", "gumbel", "frank", "joe", "student_t", "survival_joe"])
def test_mean_of_an_average_over_draws(family: str) -> None:
    """d/dtau E[f(s)] with f = s_1 s_2: the implicit derivative averages to the derivative of the exact expectation.

    The reference integrates f over the pair's density by a trapezoid rule; the error is that of 20000 draws.
    """
    n, tau, h = 20_000, 0.5, 1e-3

    def expectation(tau: float) -> float:
        c = make_copula(family, 2, tau=tau, dtype=DOUBLE)
        axis = torch.linspace(-8, 8, 641, dtype=DOUBLE)
        s = torch.cartesian_prod(axis, axis)
        density = (c.log_prob(s) - 0.5 * s.square().sum(-1) - math.log(2 * math.pi)).exp()
        return float((density * s.prod(-1)).sum() * (axis[1] - axis[0]) ** 2)

    torch.manual_seed(0)
    each = torch.full((n,), tau, dtype=DOUBLE, requires_grad=True)
    draws = make_copula(family, 2, tau=each).rsample()
    derivative = torch.autograd.grad(draws.prod(-1).sum(), each)[0]
    exact = (expectation(tau + h) - expectation(tau - h)) / (2 * h)
    assert float(derivative.mean()) == pytest.approx(exact, abs=5 * float(derivative.std()) / math.sqrt(n))

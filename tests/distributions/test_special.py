"""Special functions of normal scores against mpmath, through both formulas of each, with their derivatives."""

from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from cm2pyro.distributions.special import in_order, log1mexp_exp, log_ndtr, log_ndtri, log_neg_log, log_neg_log_ndtr, softplus

SINGLE, DOUBLE = torch.float32, torch.float64
# Both sides of the switches at 12 (float32) and 36 (float64), and far beyond.
SCORES = [0.0, 1e-8, 0.3, 1.0, 3.0, 5.0, 8.2, 11.99, 12.01, 13.5, 20.0, 35.99, 36.01, 37.6, 40.0, 64.0, 300.0]
SCORES = SCORES + [-s for s in SCORES[1:]]
EPS = {SINGLE: 6e-8, DOUBLE: 1.2e-16}


@pytest.fixture(autouse=True)
def _digits() -> None:
    mp.mp.dps = 50


def exact(f: Callable[[mpf], mpf], points: Tensor) -> Tensor:
    """f at the points as they are stored, rounded to float64."""
    return torch.tensor([float(f(mpf(x))) for x in points.double().tolist()], dtype=DOUBLE)


def log_cdf(s: mpf) -> mpf:
    """log Φ(s)."""
    return mp.log1p(-mp.erfc(s / mp.sqrt(2)) / 2) if s > 0 else mp.log(mp.erfc(-s / mp.sqrt(2)) / 2)


def hazard(s: mpf) -> mpf:
    """φ/Φ, the derivative of log Φ."""
    return mp.exp(-s * s / 2 - log_cdf(s)) / mp.sqrt(2 * mp.pi)


def relative(got: Tensor, expected: Tensor) -> float:
    return float(((got.detach().double() - expected) / expected).abs().max())


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_log_ndtr(dtype: torch.dtype) -> None:
    s = torch.tensor(SCORES, dtype=dtype, requires_grad=True)
    value = log_ndtr(s)
    expected = exact(log_cdf, s.detach())
    negative = s.detach() < 0
    # erfc's own argument is rounded, which costs s² of its relative error: of the logarithm −s²/2 a few parts of eps.
    assert relative(value[negative], expected[negative]) < 8 * EPS[dtype] + 1e-12 * (dtype == SINGLE)
    assert float((value.detach().double() - expected)[~negative].abs().max()) < 2 * EPS[dtype]
    slope = torch.autograd.grad(value.sum(), s)[0]
    h = exact(hazard, s.detach())
    # Above, exp(−s²/2) loses s² eps of itself; where it is no longer a normal number any size below that will do.
    floor = torch.finfo(dtype).tiny
    assert bool(((slope.double() - h).abs() <= 4 * EPS[dtype] * (1 + s.detach().double().square()) * h + floor).all())


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_log_neg_log_ndtr(dtype: torch.dtype) -> None:
    """b = −log Φ and its logarithm keep their relative precision on both sides."""
    s = torch.tensor([x for x in SCORES if abs(x) < 64], dtype=dtype, requires_grad=True)
    b, log_b = log_neg_log_ndtr(s)
    there = s.detach().abs() <= (12 if dtype == SINGLE else 36)
    squares = 1 + s.detach().double().square()
    b_exact, log_exact = exact(lambda x: -log_cdf(x), s.detach()), exact(lambda x: mp.log(-log_cdf(x)), s.detach())
    normal = there | (s.detach() < 0)
    assert bool(((b.double() - b_exact).abs() <= 4 * EPS[dtype] * squares * b_exact)[normal].all())
    assert bool(((log_b.double() - log_exact).abs() <= 4 * EPS[dtype] * squares).all())
    slope_b = torch.autograd.grad(b.sum(), s, retain_graph=True)[0]
    h = exact(hazard, s.detach())
    assert bool(((slope_b.double() + h).abs() <= 4 * EPS[dtype] * squares * h + torch.finfo(dtype).tiny).all())
    slope_l = torch.autograd.grad(log_b.sum(), s)[0]
    expected = exact(lambda x: hazard(x) / log_cdf(x), s.detach())
    assert bool(((slope_l.double() - expected).abs() <= 8 * EPS[dtype] * squares * expected.abs()).all())


@pytest.mark.parametrize("function", [log_ndtr, lambda s: log_neg_log_ndtr(s)[0], lambda s: log_neg_log_ndtr(s)[1]])
def test_second_derivatives(function: Callable[[Tensor], Tensor]) -> None:
    s = torch.tensor([-38.0, -36.5, -20.0, -5.0, -1.0, 0.2, 1.0, 4.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(function, (s,), atol=1e-6)
    assert torch.autograd.gradgradcheck(function, (s,), atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_second_derivatives_against_mpmath(which: int) -> None:
    """In closed form: h' = −h (s + h) of the hazard h, also far out, where differences would see nothing."""
    functions: list[Callable[[Tensor], Tensor]] = [log_ndtr, lambda s: log_neg_log_ndtr(s)[0], lambda s: log_neg_log_ndtr(s)[1]]
    slope = lambda s: -hazard(s) * (s + hazard(s))  # noqa: E731
    expected: list[Callable[[mpf], mpf]] = [slope, lambda s: -slope(s), lambda s: slope(s) / log_cdf(s) - (hazard(s) / log_cdf(s)) ** 2]
    s = torch.tensor([-40.0, -36.1, -35.9, -12.1, -5.0, -0.5, 0.5, 5.0, 8.0], dtype=DOUBLE, requires_grad=True)
    (first,) = torch.autograd.grad(functions[which](s).sum(), s, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), s)
    # s + h cancels to 1/s far below: at 40 three digits of the sixteen.
    assert relative(second, exact(expected[which], s.detach())) < 1e-9


def test_log_ndtri_inverts_log_ndtr() -> None:
    """From one half down to exp(−1e6), across the switch at exp(−600)."""
    log_p = torch.tensor([-0.6931471805599453, -0.6931472, -0.7, -1.0, -10.0, -599.0, -601.0, -745.0, -5e3, -9.9e5], dtype=DOUBLE)
    s = log_ndtri(log_p)
    assert bool((s <= 0).all())
    torch.testing.assert_close(exact(log_cdf, s), log_p, rtol=1e-13, atol=1e-15)
    assert not log_ndtri(log_p.requires_grad_()).requires_grad
    assert float(log_ndtri(torch.tensor(0.0, dtype=DOUBLE))) == 0


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_log1mexp_exp(dtype: torch.dtype) -> None:
    """log(1 − exp(−e^y)): relative below zero; above to the rounding of y, which cancels."""
    y = torch.tensor([-700.0, -100.0, -80.0, -30.0, -8.0, -3.0, -1e-3, 0.0, 0.5, 1.0, 3.0, 6.0, 40.0], dtype=dtype, requires_grad=True)
    value = log1mexp_exp(y)
    expected = exact(lambda v: mp.log1p(-mp.exp(-mp.exp(v))) if v > 0 else mp.log(-mp.expm1(-mp.exp(v))), y.detach())
    assert bool(((value.double() - expected).abs() <= 4 * EPS[dtype] * (1 + y.detach().double().abs())).all())
    slope = torch.autograd.grad(value.sum(), y)[0]
    expected = exact(lambda v: mp.exp(v) / mp.expm1(mp.exp(v)), y.detach())
    # Above, it is the difference of two ones.
    assert bool(((slope.double() - expected).abs() <= 16 * EPS[dtype]).all())


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_log_neg_log(dtype: torch.dtype) -> None:
    """log(−log p) whichever of p and 1 − p is tiny; the series' switch is at q = e^−5."""
    log_q = torch.tensor([-3000.0, -80.0, -20.0, -5.01, -5.0, -4.99, -1.0, -0.1, -1e-3], dtype=dtype)
    log_p = exact(lambda v: mp.log(-mp.expm1(v)), log_q).to(dtype)
    value = log_neg_log(log_p, log_q)
    expected = exact(lambda v: mp.log(-mp.log(-mp.expm1(v))), log_q)
    # log p itself is rounded: at q = e^−5 relative to 1/150 of it. The series leaves out q^7 / 8 at most.
    assert bool(((value.double() - expected).abs() <= 4 * EPS[dtype] * (150 + expected.abs()) + 1e-15).all())
    both = [x.clone().requires_grad_() for x in (log_p, log_q)]
    for gradient in torch.autograd.grad(log_neg_log(*both).sum(), both):
        assert torch.isfinite(gradient).all()


def test_softplus() -> None:
    y = torch.tensor([-700.0, -40.0, -1.0, 0.0, 2.0, 40.0, 800.0], dtype=DOUBLE, requires_grad=True)
    assert relative(softplus(y), exact(lambda v: mp.log1p(mp.exp(v)), y.detach())) < 1e-15
    slope = torch.autograd.grad(softplus(y).sum(), y)[0]
    torch.testing.assert_close(slope, torch.sigmoid(y.detach()))


def test_in_order() -> None:
    """Sorted pairs; derivatives go where the values came from, and at a tie the first counts as the smaller."""
    a, b = (torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in ([1.0, 5.0, 2.0, -40.0], [3.0, -1.0, 2.0, 40.0]))
    least, most = in_order(a, b)
    assert (least.tolist(), most.tolist()) == ([1.0, -1.0, 2.0, -40.0], [3.0, 5.0, 2.0, 40.0])
    by_a, by_b = torch.autograd.grad((least + 10 * most).sum(), (a, b))
    assert (by_a.tolist(), by_b.tolist()) == ([1, 10, 1, 1], [10, 1, 10, 10])
    apart = torch.tensor([0.3, 4.0], dtype=DOUBLE, requires_grad=True), torch.tensor([1.0, 2.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(in_order, apart)
    assert torch.autograd.gradgradcheck(lambda x, y: (in_order(x, y)[0] ** 2, in_order(x, y)[1] ** 3), apart)

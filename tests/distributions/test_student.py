"""Student's t on the scale of q (x = sqrt(ν) sinh q) against SciPy, against mpmath where SciPy ends, and by differences."""

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from mpmath import mpf
from scipy import stats
from torch import Tensor

from cm2pyro.distributions import student

DOUBLE = torch.float64
DFS = [2.05, 2.5, 4.0, 30.0, 1e3, 1e4]


@pytest.fixture(autouse=True)
def _digits() -> None:
    mp.mp.dps = 40


def tail(q: float, df: float) -> mpf:
    """log P(Q > q)."""
    nu, x = mpf(df), mp.sqrt(mpf(df)) * mp.sinh(mpf(q))
    beyond = mp.betainc(nu / 2, mpf(1) / 2, 0, nu / (nu + x * x), regularized=True) / 2
    return mp.log(beyond) if q >= 0 else mp.log1p(-beyond)


def differences(f: Callable[[Tensor], Tensor], x: Tensor, h: Tensor) -> Tensor:
    """Of fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


@pytest.mark.parametrize("df", DFS)
def test_tail_and_distribution_function_against_scipy(df: float) -> None:
    x = torch.cat([-torch.logspace(-3, 3, 25, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE), torch.logspace(-3, 3, 25, dtype=DOUBLE)])
    x = x[stats.t.sf(x.abs().numpy(), df) > 1e-200]
    q, v = torch.asinh(x / math.sqrt(df)), torch.tensor(df, dtype=DOUBLE)
    # SciPy's own tail is good to 1e-12 or so.
    torch.testing.assert_close(student.log_tail(q, v), torch.from_numpy(stats.t.logsf(x.numpy(), df)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(student.cdf(q, v), torch.from_numpy(stats.t.cdf(x.numpy(), df)), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("df", DFS)
def test_far_tail_against_mpmath(df: float) -> None:
    """Out to 1e-400, beyond what a float64 holds; relative to the logarithm, but for what a difference of lgamma's loses."""
    far = {2.05: 450.0, 2.5: 360.0, 4.0: 230.0, 30.0: 30.0, 1e3: 1.5, 1e4: 0.4}[df]
    points = [1e-9, 0.1 * far, 0.5 * far, far, -1e-3, -0.02 * far]
    got = student.log_tail(torch.tensor(points, dtype=DOUBLE), torch.tensor(df, dtype=DOUBLE))
    for value, q in zip(got.tolist(), points, strict=True):
        assert value == pytest.approx(float(tail(q, df)), rel=1e-12, abs=2e-15 * df), q


@pytest.mark.parametrize("df", DFS)
def test_scores_to_q_solves_its_equation(df: float) -> None:
    """log P(Q > q) = log Φ(−s) in forty digits, for knots, the middle of cells and the ends of tables, |s| up to 63."""
    s = [1e-4, 0.031, 0.0625, 0.5, 1.99, 3.97, 4.03, 8.0, 12.53, 36.1, 40.0, 63.2]
    q = student.scores_to_q(torch.tensor(s, dtype=DOUBLE), torch.tensor(df, dtype=DOUBLE))
    for x, value in zip(s, q.tolist(), strict=True):
        log_c = mp.loggamma((mpf(df) + 1) / 2) - mp.loggamma(mpf(df) / 2) - mp.log(mp.pi) / 2
        log_tail = tail(value, df)
        hazard = mp.exp(log_c - df * mp.log(mp.cosh(mpf(value))) - log_tail)
        error = (log_tail - mp.log(mp.erfc(mpf(x) / mp.sqrt(2)) / 2)) / hazard  # a Newton step from q
        assert abs(error) < 1e-10 * value + 1e-14, x
    mirrored = student.scores_to_q(-torch.tensor(s, dtype=DOUBLE), torch.tensor(df, dtype=DOUBLE))
    assert torch.equal(mirrored, -q)


def test_scores_to_q_beyond_the_last_knot() -> None:
    """Beyond 64 a parabola goes on: right to two parts in a thousand at 70, rising, finite, and with the derivative that it has."""
    v = torch.tensor([2.5, 30.0, 1e4], dtype=DOUBLE)
    s = torch.tensor([[63.999], [64.0], [64.001], [70.0], [150.0], [300.0]], dtype=DOUBLE, requires_grad=True)
    q = student.scores_to_q(s, v)
    assert bool((q.diff(dim=0) > 0).all())
    for column, df in enumerate(v.tolist()):
        assert float(mp.log(mp.erfc(mpf(70) / mp.sqrt(2)) / 2)) == pytest.approx(float(tail(float(q.detach()[3, column]), df)), rel=4e-3)
    got = torch.autograd.grad(q[:, 1].sum(), s)[0][:, 0]
    h = torch.full((6,), 1e-4, dtype=DOUBLE)
    expected = differences(lambda x: student.scores_to_q(x, v[1]), s.detach()[:, 0], h)
    torch.testing.assert_close(got[[0, 3, 4, 5]], expected[[0, 3, 4, 5]], rtol=1e-6, atol=1e-9)


def test_scores_to_q_in_single_precision() -> None:
    s = torch.linspace(-40, 40, 201)
    df = torch.tensor(3.3)
    q = student.scores_to_q(s, df)
    assert q.dtype == torch.float32
    torch.testing.assert_close(q.double(), student.scores_to_q(s.double(), df.double()), rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("df", DFS)
def test_q_to_scores_returns(df: float) -> None:
    s = torch.tensor([-40.0, -12.0, -3.0, -1e-3, 0.0, 0.3, 2.0, 8.0, 36.0], dtype=DOUBLE)
    v = torch.tensor(df, dtype=DOUBLE)
    torch.testing.assert_close(student.q_to_scores(student.scores_to_q(s, v), v), s, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["log_tail", "cdf", "scores_to_q", "q_to_scores"])
def test_derivatives(name: str) -> None:
    """In the argument and in ν, for ν from 2.05 to 1e4, against differences of steps in proportion to both."""
    f = getattr(student, name)
    v = torch.tensor([[x] for x in DFS], dtype=DOUBLE)
    s = torch.tensor([-12.0, -3.0, -0.4, 0.2, 1.0, 4.0, 20.0], dtype=DOUBLE)
    # The functions of q take the q of these s, so that no tail is further out than 1e-90.
    x = s.expand(len(DFS), -1).clone() if name == "scores_to_q" else student.scores_to_q(s, v)
    v = v.expand_as(x).clone()
    x.requires_grad_()
    v.requires_grad_()
    value = f(x, v)
    by_x, by_v = torch.autograd.grad(value.sum(), (x, v))
    fixed_x, fixed_v = x.detach(), v.detach()
    h = 1e-3 * fixed_x.abs().clamp_min(1e-4 if name != "scores_to_q" else 1.0)
    if name == "scores_to_q":
        h = torch.full_like(fixed_x, 5e-3)
    expected_x = differences(lambda y: f(y, fixed_v), fixed_x, h)
    # What is left of a difference of values that are each exact to 1e-13 or so.
    floor = 1e-12 * value.detach().abs().clamp_min(1e-16)
    assert bool(((by_x - expected_x).abs() <= 1e-7 * expected_x.abs() + floor / h).all())
    k = 1e-3 * (fixed_v - 2)
    expected_v = differences(lambda y: f(fixed_x, y), fixed_v, k)
    assert bool(((by_v - expected_v).abs() <= 1e-6 * expected_v.abs() + floor / k).all())


def test_gradients_sum_over_broadcast_dimensions() -> None:
    """s (5, 3) with df (), (3,) or (5, 3): each derivative has the shape of its own argument, and each row its own table."""
    s = torch.linspace(-3, 4, 15, dtype=DOUBLE).reshape(5, 3).requires_grad_()
    full = torch.tensor([2.2, 7.0, 90.0], dtype=DOUBLE).expand(5, 3).clone().requires_grad_()
    q = student.scores_to_q(s, full)
    by_s, by_full = torch.autograd.grad(q.sum(), (s, full))
    shared = full.detach()[0].clone().requires_grad_()
    torch.testing.assert_close(student.scores_to_q(s, shared), q)
    got = torch.autograd.grad(student.scores_to_q(s, shared).sum(), (s, shared))
    torch.testing.assert_close(got, (by_s, by_full.sum(0)))
    one = shared.detach()[1].clone().requires_grad_()
    column = student.scores_to_q(s, one)
    torch.testing.assert_close(column[:, 1], q[:, 1])
    assert torch.autograd.grad(column.sum(), one)[0].shape == ()
    row = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.grad(student.scores_to_q(row, shared).sum(), row)[0].shape == ()


def test_helpers() -> None:
    q = torch.tensor([-800.0, -2.0, 0.0, 1.0, 800.0], dtype=DOUBLE, requires_grad=True)
    expected = torch.tensor([float(mp.log(mp.cosh(mpf(x)))) for x in q.tolist()], dtype=DOUBLE)
    torch.testing.assert_close(student.log_cosh(q), expected)
    slope = torch.autograd.grad(student.log_cosh(q).sum(), q)[0]
    torch.testing.assert_close(slope[[0, 1, 3, 4]], torch.tanh(q.detach())[[0, 1, 3, 4]])
    df = torch.tensor([2.5, 30.0], dtype=DOUBLE)
    torch.testing.assert_close(student.log_normaliser(df), torch.from_numpy(stats.t.logpdf(0.0, df.numpy())) + 0.5 * df.log())

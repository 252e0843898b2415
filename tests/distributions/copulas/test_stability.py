"""Far from the centre: finite values and derivatives in float32 for |s| <= 40, and close to float64."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cm2pyro.distributions import Copula

SINGLE, DOUBLE = torch.float32, torch.float64
# Both sides of where the special functions change their formula (12 in float32, 36 in float64), ties, and the ends.
CORNERS = [-40.0, -36.1, -12.1, -5.0, -0.001, 0.0, 0.001, 5.0, 11.9, 12.1, 36.1, 40.0]
TAUS = [0.01, 0.99]


def corners(M: int, dtype: torch.dtype) -> Tensor:
    """All pairs; for more coordinates the ends, and 150 rows of corners at random."""
    if M == 2:
        return torch.tensor(list(itertools.product(CORNERS, repeat=2)), dtype=dtype)
    at = torch.randint(len(CORNERS), (150, M), generator=torch.Generator().manual_seed(M))
    ends = [[40.0] * M, [-40.0] * M, [0.0] * M, [40.0, *[-40.0] * (M - 1)], [-40.0, *[40.0] * (M - 1)]]
    return torch.cat([torch.tensor(CORNERS, dtype=dtype)[at], torch.tensor(ends, dtype=dtype)])


def leaves(c: Copula) -> list[Tensor]:
    """The tensors that hold a copula's parameters, asked for gradients."""
    held = [getattr(c, name) for name in ("scale_tril", "df", "_theta") if isinstance(getattr(c, name, None), Tensor)]
    return [x.requires_grad_() for x in held]


def finite(value: Tensor, *by: Tensor) -> None:
    assert torch.isfinite(value).all()
    if not value.requires_grad:
        return
    for gradient in torch.autograd.grad(value.sum(), by, allow_unused=True, retain_graph=True):
        assert gradient is None or torch.isfinite(gradient).all()


def check_finite(c: Copula, s: Tensor, seed: int) -> None:
    """log_prob with and without patterns, conditional margins, draws given far values, and the distribution function."""
    parameters = leaves(c)
    s.requires_grad_()
    finite(c.log_prob(s), s, *parameters)
    M, generator = c.modalities, torch.Generator().manual_seed(seed)
    # A handful of patterns, since rows of one pattern share their work.
    patterns = torch.rand(3, M, generator=generator) < 0.6
    observed = patterns[torch.randint(3, (len(s),), generator=generator)]
    blank = torch.where(observed, s, torch.nan)
    finite(c.log_prob(blank, observed), s, *parameters)
    noise = torch.randn(s.shape, generator=generator, dtype=s.dtype)
    drawn = c.conditional(blank, observed).rsample(noise=noise)
    assert drawn.dtype == s.dtype
    finite(drawn, s, *parameters)
    F, log_density = c.conditional_margin(s, M - 1, observed & (torch.arange(M) < M - 1))
    assert bool(((F >= 0) & (F <= 1)).all())
    finite(F, s, *parameters)
    finite(log_density, s, *parameters)
    if c.family not in ("gaussian", "student_t"):
        finite(c.log_cdf(s), s, *parameters)


@pytest.mark.parametrize("tau", TAUS)
def test_corners_are_finite(copula_of: Callable[..., Copula], tau: float) -> None:
    c = copula_of(tau, SINGLE)
    check_finite(c, corners(c.modalities, SINGLE), seed=0)


@pytest.mark.parametrize("df", [2.01, 1e4])
def test_corners_of_student_t(copula: Callable[..., Copula], df: float) -> None:
    for M in (2, 5):
        check_finite(copula("student_t", M, 0.9, SINGLE, df=df), corners(M, SINGLE), seed=0)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True)
@given(data=st.data())
def test_anything_is_finite(small_of: Callable[..., Copula], data: Any) -> None:
    c = small_of(data.draw(st.floats(0.01, 0.99), "tau"), SINGLE)
    row = st.lists(st.floats(-40, 40, width=32), min_size=c.modalities, max_size=c.modalities)
    rows = data.draw(st.lists(row, min_size=1, max_size=6), "scores")
    check_finite(c, torch.tensor(rows, dtype=SINGLE), data.draw(st.integers(0, 100), "seed"))


def in_double(c: Copula) -> Copula:
    """The same copula, with the parameters that float32 holds: rounding them is not the density's error."""
    made = c.expand(c.batch_shape)
    for name in ("scale_tril", "df", "_theta"):
        if isinstance(getattr(made, name, None), Tensor):
            setattr(made, name, getattr(made, name).double())
    return made


@pytest.mark.parametrize("tau", [*TAUS, 0.2, 0.5, 0.95])
def test_single_precision_is_near_double(copula_of: Callable[..., Copula], tau: float) -> None:
    """Within 1e-5 of 1 + |log c|, plus what rounding to 24 bits may do.

    Each s, rounded, moves log c by eps s ∂log c/∂s: tau = 0.99 makes that large on the ridge. And log c is a sum of terms as
    large as s² / 2 (800 at 40), each with a relative error of eps, that cancel where log c is small. A few of either add up.
    """
    c = copula_of(tau, SINGLE)
    generator = torch.Generator().manual_seed(0)
    near = torch.randn(200, c.modalities, generator=generator)
    s = torch.cat([corners(c.modalities, SINGLE), near, 3 * near[:, :1] + 0.05 * near])
    wide = s.double().requires_grad_()
    exact = in_double(c).log_prob(wide)
    slope = torch.autograd.grad(exact.sum(), wide)[0] if exact.requires_grad else torch.zeros_like(wide)
    exact, wide = exact.detach(), wide.detach()
    rounding = torch.finfo(SINGLE).eps * (2 * wide.square().sum(-1) + 8 * (wide * slope).abs().sum(-1))
    ratio = (c.log_prob(s).double() - exact).abs() / (1e-5 * (1 + exact.abs()) + rounding)
    assert float(ratio.max()) <= 1

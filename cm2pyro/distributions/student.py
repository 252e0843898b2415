"""Student's t distribution on the scale of normal scores: torch has neither its distribution function nor its quantiles.

Everything is on q with x = sqrt(ν) sinh q, where x has Student's t distribution with ν degrees of freedom: the density of q
is c cosh^−ν(q), c = Γ((ν + 1)/2) / (Γ(ν/2) sqrt π), so that nothing overflows however heavy the tail.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cm2pyro.distributions.special import LOG_SQRT_2PI, log_ndtr, log_ndtri

_H = 0.0625  # distance of the knots of `scores_to_q` on the scale of s
_LAST = 64.0  # the last knot
# Double-exponential quadrature on (0, inf): w = exp(x − e^−x), trapezoid rule in x.
_X = torch.linspace(-3.6, 4.4, 81, dtype=torch.float64)
_W = (_X - (-_X).exp()).exp()
_DW = (_X[1] - _X[0]) * (1 + (-_X).exp()) * _W


def log_cosh(q: Tensor) -> Tensor:
    """log cosh q, without overflow."""
    a = q.abs()
    return a + torch.log1p((-2 * a).exp()) - math.log(2)


def log_normaliser(df: Tensor) -> Tensor:
    """log c of the density of q."""
    return torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * math.log(math.pi)


def log_tail(q: Tensor, df: Tensor) -> Tensor:
    """log P(Q > q): q (...,), df broadcast against it; differentiable in both, float64 inside."""
    return _LogTail.apply(*torch.broadcast_tensors(q, df))


def cdf(q: Tensor, df: Tensor) -> Tensor:
    """P(Q <= q), to relative precision on both sides of 1/2."""
    tail = log_tail(q.abs(), df).exp()
    lower = (q < 0).to(tail.dtype)
    return lower * tail + (1 - lower) * (1 - tail)


def scores_to_q(s: Tensor, df: Tensor) -> Tensor:
    """q with P(Q <= q) = Φ(s): s (...,), df () or broadcastable (D,) against the last dimension; differentiable in both.

    By interpolation between knots on s, at which the equation is solved; beyond |s| = 64 by the quadratic that fits there.
    """
    return _ScoresToQ.apply(s, df)


def q_to_scores(q: Tensor, df: Tensor) -> Tensor:
    """s with Φ(s) = P(Q <= q), differentiable in both."""
    return _QToScores.apply(*torch.broadcast_tensors(q, df))


def _tail(q: Tensor, df: Tensor) -> tuple[Tensor, Tensor]:
    """log P(Q > q) for q >= 0, and its derivative with respect to ν; float64."""
    log_c, slope_c = log_normaliser(df), 0.5 * (torch.digamma((df + 1) / 2) - torch.digamma(df / 2))
    # The integrand falls off over a length between those of a normal (q = 0) and of an exponential (q large).
    length = 1 / (df * torch.tanh(q) + df.sqrt() / torch.cosh(q.clamp_max(300.0)))
    w = length[..., None] * _W.to(q.device)
    # log cosh(q + w) − log cosh q, without cancellation.
    rise = w + torch.log1p(torch.expm1(-2 * w) / ((2 * q.clamp_max(300.0)).exp() + 1)[..., None])
    weights = (-df[..., None] * rise).exp() * _DW.to(q.device)
    integral = weights.sum(-1)
    mean_rise = (weights * rise).sum(-1) / integral
    start = log_cosh(q)
    return log_c - df * start + (length * integral).log(), slope_c - start - mean_rise


class _LogTail(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, df: Tensor) -> Tensor:
        a, v = q.double().abs(), df.double()
        value, slope = _tail(a, v)
        upper = -torch.expm1(value)  # P(Q > q) = 1 − P(Q > |q|) for q < 0
        negative = q < 0
        out = torch.where(negative, upper.clamp_min(0.5).log(), value)
        density = (log_normaliser(v) - v * log_cosh(a)).exp()
        tail = out.exp()
        d_q = torch.where(negative, -density / tail, -(density.log() - value).exp())
        d_df = torch.where(negative, -value.exp() * slope / tail, slope)
        ctx.save_for_backward(d_q, d_df)
        return out.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        d_q, d_df = ctx.saved_tensors
        return grad * d_q.to(grad.dtype), grad * d_df.to(grad.dtype)


class _QToScores(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, df: Tensor) -> Tensor:
        a, v = q.double().abs(), df.double()
        value, slope = _tail(a, v)
        s = -log_ndtri(value)
        log_phi = -0.5 * s.square() - LOG_SQRT_2PI
        d_q = (log_normaliser(v) - v * log_cosh(a) - log_phi).exp()
        d_df = -torch.sign(q) * (value - log_phi).exp() * slope
        ctx.save_for_backward(d_q, d_df)
        return (torch.sign(q) * s).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        d_q, d_df = ctx.saved_tensors
        return grad * d_q.to(grad.dtype), grad * d_df.to(grad.dtype)


def _solve(s: Tensor, df: Tensor) -> tuple[Tensor, Tensor]:
    """q >= 0 with log P(Q > q) = log Φ(−s) for s >= 0, and dq/dν; float64."""
    target = log_ndtr(-s)
    # A Cornish–Fisher expansion in the middle, the leading term of the tail outside.
    inner = torch.asinh(s * (1 + (s.square() + 1) / (4 * df)) / df.sqrt())
    outer = (log_normaliser(df) + df * math.log(2) - df.log() - target) / df
    q = torch.where(s.square() < df.clamp_min(4.0), inner, outer.clamp_min(0.0))
    for _ in range(50):
        value, slope = _tail(q, df)
        hazard = (log_normaliser(df) - df * log_cosh(q) - value).exp()
        step = (value - target) / hazard
        q = (q + step).clamp_min(0.0)
        if bool((step.abs() <= 1e-13 * (1 + q)).all()):
            break
    value, slope = _tail(q, df)
    hazard = (log_normaliser(df) - df * log_cosh(q) - value).exp()
    return q, slope / hazard


@lru_cache(maxsize=16)  # one step of a fit asks for the same table several times
def _cells_of(df: tuple[float, ...], count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Polynomials between knots 0, h … count h: (J, count, 8) for q and (J, count, 6) for dq/dν, in (s − knot)/h."""
    v = torch.tensor(df, dtype=torch.float64, device=device)[:, None]
    s = torch.arange(count + 1, dtype=torch.float64, device=device) * _H
    q, r = _solve(*torch.broadcast_tensors(s, v))
    t = torch.tanh(q)
    # φ(s) ds = c cosh^−ν(q) dq gives q' and, differentiated along s, the rest; the same in ν gives those of r = dq/dν.
    q1 = (v * log_cosh(q) - log_normaliser(v) - 0.5 * s.square() - LOG_SQRT_2PI).exp()
    a = v * t * q1 - s
    q2 = q1 * a
    a1 = v * (1 - t.square()) * q1.square() + v * t * q2 - 1
    q3 = q2 * a + q1 * a1
    e = v * t * r - 0.5 * (torch.digamma((v + 1) / 2) - torch.digamma(v / 2)) + log_cosh(q)
    r1 = q1 * e
    r2 = q2 * e + q1 * (v * (1 - t.square()) * q1 * r + v * t * r1 + t * q1)
    return _hermite([q, q1, q2, q3]), _hermite([r, r1, r2])


def _hermite(derivatives: list[Tensor]) -> Tensor:
    """Polynomials that match value and derivatives at both ends of each cell, lowest power first: (J, cells, 2 n)."""
    n = len(derivatives)
    scaled = [d * _H**k / math.factorial(k) for k, d in enumerate(derivatives)]
    low = [d[:, :-1] for d in scaled]  # the first n coefficients
    # What the remaining coefficients must add to derivatives 0 … n − 1 (divided by k!) at the right end.
    power = [[math.comb(p, k) for p in range(2 * n)] for k in range(n)]
    rest = [scaled[k][:, 1:] - sum(power[k][p] * low[p] for p in range(k, n)) for k in range(n)]
    matrix = torch.tensor([row[n:] for row in power], dtype=torch.float64, device=derivatives[0].device)
    high = torch.linalg.solve(matrix, torch.stack(rest, -1)[..., None])[..., 0]
    return torch.cat([torch.stack(low, -1), high], -1)


class _ScoresToQ(Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, df: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(s.shape, df.shape)
        a, v = s.double().abs(), df.double()
        most = float(a.detach().max()) if a.numel() else 0.0
        # A whole number of units, so that tables can be used again.
        count = round(min(max(math.ceil(most), 4), _LAST) / _H)
        distinct, which = v.reshape(-1).unique(return_inverse=True)  # rows may repeat a few values many times
        cells = _cells_of(tuple(distinct.tolist()), count, s.device)
        a = (a / _H).expand(shape)
        # Beyond the last knot the cell's own polynomial would explode; a parabola goes on smoothly.
        last = cells[0].shape[1]
        beyond = (a > last) if most > last * _H else None
        inside = a if beyond is None else a.clamp_max(float(last))
        cell = inside.floor().clamp_max_(last - 1)
        x, i = inside - cell, cell.long()
        if df.numel() > 1:
            i = i + last * which.reshape(df.shape)
        q = _evaluate(cells[0], i, x)
        d_s = (-0.5 * s.double().square() - LOG_SQRT_2PI - log_normaliser(v) + v * log_cosh(q)).exp() if s.requires_grad else None
        if beyond is not None:
            over, edge = (a - inside) * _H, a.new_tensor(last * _H)
            slope = (v * log_cosh(q) - log_normaliser(v) - 0.5 * edge.square() - LOG_SQRT_2PI).exp()
            q = torch.where(beyond, q + slope * over + 0.5 * over.square() / v, q)
            d_s = None if d_s is None else torch.where(beyond, slope + over / v, d_s)
        sign = torch.sign(s).to(q.dtype)
        ctx.save_for_backward(d_s, sign * _evaluate(cells[1], i, x) if df.requires_grad else None)
        ctx.shapes = (s.shape, df.shape)
        return (sign * q).to(s.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        d_s, d_df = ctx.saved_tensors
        s_shape, df_shape = ctx.shapes
        for_s = None if d_s is None else (grad * d_s.to(grad.dtype)).sum_to_size(s_shape)
        return for_s, None if d_df is None else (grad * d_df.to(grad.dtype)).sum_to_size(df_shape)


def _evaluate(cells: Tensor, i: Tensor, x: Tensor) -> Tensor:
    """Polynomials (J, cells, n), numbered in that order by i (...,), at x (...,)."""
    chosen = cells.flatten(0, 1).index_select(0, i.reshape(-1)).reshape(*i.shape, cells.shape[-1])
    value = chosen[..., -1]
    for k in range(cells.shape[-1] - 2, -1, -1):
        value = torch.addcmul(chosen[..., k], value, x)
    return value

"""Special functions of normal scores that hold far into the tails, for values and gradients.

All take any shape, float32 or float64, and stay finite for |s| up to several hundred. They avoid `torch.special.log_ndtr`
and `torch.where`, which on a CPU cost ten times what they need to.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_TINY = 1e-30


def log_ndtr(s: Tensor) -> Tensor:
    """log Φ(s), to relative precision for s < 0 and to absolute precision above; differentiable to any order."""
    return _LogNdtr.apply(s) if torch.is_grad_enabled() and s.requires_grad else _log_ndtr(s)


def log_ndtri(log_p: Tensor) -> Tensor:
    """s <= 0 with log Φ(s) = log_p, for log_p from −1e6 to log ½, float64; without derivative."""
    with torch.no_grad():
        log_p = log_p.clamp(-1e6, -math.log(2))
        s = torch.where(log_p > -600, torch.special.ndtri(log_p.clamp_min(-600).exp()), -(-2 * log_p).sqrt())
        for _ in range(3):  # Newton steps on a concave function, which cannot miss
            value = log_ndtr(s)
            s = s - (value - log_p) * (value + 0.5 * s.square() + LOG_SQRT_2PI).exp()
        return s.clamp_max(0.0)


def log_neg_log_ndtr(s: Tensor) -> tuple[Tensor, Tensor]:
    """b = −log Φ(s) and log b, each to relative precision on both sides; differentiable to any order."""
    return _LogNegLogNdtr.apply(s)


def log1mexp_exp(y: Tensor) -> Tensor:
    """log(1 − exp(−exp(y))), to absolute precision above 0 and relative precision below."""
    x = y.exp().clamp_min(_TINY)
    return y + (-torch.expm1(-x) / x).log()


def softplus(y: Tensor) -> Tensor:
    """log(1 + e^y), to relative precision also where it is small."""
    return torch.logaddexp(y, torch.zeros_like(y))


def log_neg_log(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log(−log p) from log p and log q = log(1 − p), whichever of them is precise."""
    small = log_q < -5.0  # q below 0.7%: a few terms of −log(1 − q) = q + q²/2 + … suffice
    q = torch.where(small, log_q, torch.full_like(log_q, -5.0)).exp()
    series = log_q + torch.log1p(q * (1 / 2 + q * (1 / 3 + q * (1 / 4 + q * (1 / 5 + q * (1 / 6 + q / 7))))))
    direct = torch.where(small, torch.full_like(log_p, -1.0), log_p).neg().log()
    return torch.where(small, series, direct)


def in_order(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller and the larger of each pair. Unlike with `minimum`, a tie counts as a <= b, and the derivative is cheap."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _InOrder.apply(a, b)
    return torch.minimum(a, b), torch.maximum(a, b)


def one_minus_exp(x: Tensor) -> Tensor:
    """1 − e^x for x <= 0, to absolute precision: in float64 that is 1e-16, and `expm1` would take five times as long."""
    return 1 - x.exp() if x.dtype == torch.float64 else -torch.expm1(x)


def log_plus_one(x: Tensor) -> Tensor:
    """log(1 + x) for x >= 0, to absolute precision; see `one_minus_exp`."""
    return (1 + x).log() if x.dtype == torch.float64 else torch.log1p(x)


def waits(device: torch.device) -> bool:
    """Whether reading a number from the device means waiting until it has computed it: there, more is computed and nothing asked."""
    return device.type != "cpu"


def _far(dtype: torch.dtype) -> float:
    """Where erfc begins to lose precision to the least normal number."""
    return 12.0 if dtype == torch.float32 else 36.0


def _log_tail(a: Tensor) -> Tensor:
    """log Φ(−a) for a >= 12, by the asymptotic series of Mills' ratio; its first term left out is below 1e-12."""
    r = a.square().reciprocal()
    series = 1 - r * (1 - r * (3 - r * (15 - r * (105 - r * (945 - r * (10395 - r * 135135))))))
    return -0.5 * a.square() - LOG_SQRT_2PI - a.log() + series.log()


def _upper(s: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Φ(−|s|), its logarithm, and which elements are so far out that only the logarithm holds (None: none)."""
    a = s.abs()
    limit = _far(s.dtype)
    far = a > limit if waits(s.device) or (a.numel() and float(a.detach().max()) > limit) else None
    q = torch.erfc(a * math.sqrt(0.5)).mul_(0.5)
    log_q = q.clamp_min(torch.finfo(s.dtype).tiny).log_()
    return q, _with_tail(log_q, a, far), far


def _with_tail(log_q: Tensor, a: Tensor, far: Tensor | None) -> Tensor:
    """log Φ(−a) with its series in the elements that are `far`."""
    if far is None:
        return log_q
    if waits(a.device):
        return torch.where(far, _log_tail(a.clamp_min(_far(a.dtype))), log_q)
    log_q[far] = _log_tail(a[far])
    return log_q


def _negative(s: Tensor) -> Tensor:
    """1 where s < 0, else 0, as numbers: `lerp` with it is several times faster than `where`."""
    return torch.sign(s).neg_().clamp_(0, 1)


def _log_ndtr(s: Tensor) -> Tensor:
    out = torch.erfc(s * -math.sqrt(0.5)).mul_(0.5).log_()
    limit = _far(s.dtype)
    far = s < -limit if waits(s.device) or (s.numel() and float(s.min()) < -limit) else None
    return out if far is None else _with_tail(out, -s, far)


class _LogNdtr(Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        out = _log_ndtr(s)
        ctx.save_for_backward(s, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        s, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of the derivative is asked for
            out = _LogNdtr.apply(s)
        return grad * (-0.5 * s.square() - LOG_SQRT_2PI - out).exp()


class _LogNegLogNdtr(Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor) -> tuple[Tensor, Tensor]:
        q, log_q, far = _upper(s)
        negative = _negative(s)
        b = torch.lerp(-torch.log1p(-q), -log_q, negative)
        log_b = b.clamp_min(torch.finfo(s.dtype).tiny).log()
        if far is not None:
            # Above, b = −log(1 − q) = q; b itself may have gone to zero.
            log_b = torch.where(far & (s > 0), log_q, log_b)
        ctx.save_for_backward(s, b, log_b)
        return b, log_b

    @staticmethod
    def backward(ctx: Any, grad_b: Tensor, grad_l: Tensor) -> Tensor:
        s, b, log_b = ctx.saved_tensors
        if torch.is_grad_enabled():
            b, log_b = _LogNegLogNdtr.apply(s)
        log_hazard = b - 0.5 * s.square() - LOG_SQRT_2PI  # φ/Φ
        return -(grad_b * log_hazard.exp() + grad_l * (log_hazard - log_b).exp())


class _InOrder(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        least, most = torch.minimum(a, b), torch.maximum(a, b)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(_negative(b - a))  # 1 where they change places
        return least, most

    @staticmethod
    def backward(ctx: Any, grad_least: Tensor, grad_most: Tensor) -> tuple[Tensor, Tensor]:
        (swapped,) = ctx.saved_tensors
        return torch.lerp(grad_least, grad_most, swapped), torch.lerp(grad_most, grad_least, swapped)

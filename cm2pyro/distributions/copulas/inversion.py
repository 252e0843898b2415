"""Draws by inversion of a conditional distribution function, with exact implicit derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor

_FAR = 60.0  # |s| beyond which no draw goes
_STEPS = 100
_LOG_SQRT_2PI = 0.9189385332046727


def invert(law: Callable[[Tensor], tuple[Tensor, Tensor]], noise: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve F(s) = Phi(noise) by bracketed Newton steps, without gradients.

    The steps are taken on Phi^-1(F(s)) = noise, which is nearly a straight line in s.

    Args:
        law: s -> F(s) and log f(s), both float64. noise, start: (...,) float64.

    Returns:
        the root, the density there, and whether the step that led to it was small, each (...,).
    """
    with torch.no_grad():
        low, high = torch.full_like(noise, -_FAR), torch.full_like(noise, _FAR)
        s = start.clamp(-0.9 * _FAR, 0.9 * _FAR).expand_as(noise).clone()
        for _ in range(_STEPS):
            F, log_f = law(s)
            score = torch.special.ndtri(F.clamp(1e-300, 1 - 1e-16))
            excess = score - noise
            # Saturated values of F still say on which side the root lies.
            low, high = torch.where(excess < 0, s, low), torch.where(excess > 0, s, high)
            slope = (log_f + 0.5 * score.square() + _LOG_SQRT_2PI).exp()
            proposal = s - excess / slope
            inside = (proposal > low) & (proposal < high)  # also False for NaN
            proposal = torch.where(inside, proposal, 0.5 * (low + high))
            proposal = torch.where(excess == 0, s, proposal)
            moved = (proposal - s).abs()
            s = proposal
            if bool((moved <= 1e-9).all()):
                break
        F, log_f = law(s)
        found = (torch.special.ndtri(F.clamp(1e-300, 1 - 1e-16)) - noise).abs() < 1e-5
        return s, log_f.exp(), found


def attach(root: Tensor, density: Tensor, found: Tensor, cdf: Callable[[Tensor], Tensor]) -> Tensor:
    """Give a root its implicit derivative: one Newton step with root, draw and density held constant.

    Where nothing asks for a gradient the root comes back as it is; where the search ended at its bound it carries none.
    """
    if not torch.is_grad_enabled():
        return root
    F = cdf(root)
    if not F.requires_grad:
        return root
    safe = torch.where(found, density, torch.ones_like(density))
    return torch.where(found, root - (F - F.detach()) / safe, root)


def increasing_inverse(f: Callable[[Tensor], Tensor], target: Tensor, low: float, high: float) -> Tensor:
    """x with f(x) = target for an increasing f, with the derivative 1 / f'(x) with respect to the target.

    Args:
        f: elementwise, differentiable, float64. target: (...,). low, high: enclose the solution; both positive.
    """
    with torch.no_grad():
        wanted = target.detach().double()
        below, above = torch.full_like(wanted, low), torch.full_like(wanted, high)
        x = (below * above).sqrt()
        for _ in range(_STEPS):
            value, slope = _with_slope(f, x)
            below, above = torch.where(value < wanted, x, below), torch.where(value > wanted, x, above)
            proposal = x - (value - wanted) / slope
            inside = (proposal > below) & (proposal < above)
            proposal = torch.where(inside, proposal, (below * above).sqrt())
            proposal = torch.where(value == wanted, x, proposal)
            moved = ((proposal - x).abs() / x).max() if x.numel() else x.new_zeros(())
            x = proposal
            if float(moved) < 1e-13:
                break
        _, slope = _with_slope(f, x)
    return (x + (target.double() - wanted) / slope).to(target.dtype)


def _with_slope(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        slope = torch.autograd.grad(value.sum(), x)[0]
    return value.detach(), slope

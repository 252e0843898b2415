"""Draws by inversion of a conditional distribution function, with exact implicit derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor

from cm2pyro.distributions.special import LOG_SQRT_2PI, log_ndtri

_FAR = 60.0  # |s| beyond which no draw goes
_STEPS = 100


# Some of the rows (None: all), and their values s -> log F(s), log(1 − F(s)) and log f(s).
Law = Callable[[Tensor | None, Tensor], tuple[Tensor, Tensor, Tensor]]


def invert(law: Law, noise: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Solve F(s) = Phi(noise) by bracketed Newton steps, without gradients.

    The steps are taken on Phi^-1(F(s)) = noise, which is nearly a straight line in s; a step that does not halve what is
    left is followed by a bisection, so that the search ends however F is shaped. Rows that are done leave the search.

    Args:
        law: see `Law`. noise, start: (N,). All float64.

    Returns:
        the root, and whether the equation holds there, each (N,).
    """
    with torch.no_grad():
        s = start.clamp(-0.9 * _FAR, 0.9 * _FAR).clone()
        rows: Tensor | None = None
        x, wanted = s, noise
        low, high, left = torch.full_like(noise, -_FAR), torch.full_like(noise, _FAR), torch.full_like(noise, torch.inf)
        for _ in range(_STEPS):
            lower, upper, log_density = law(rows, x)
            score = _score(lower, upper)
            excess = score - wanted
            low, high = torch.where(excess < 0, x, low), torch.where(excess > 0, x, high)
            newton = x - excess / (log_density + 0.5 * score.square() + LOG_SQRT_2PI).exp()
            # False also for NaN. Close to the root rounding keeps a step from halving what is left.
            good = (newton >= low) & (newton <= high) & ((excess.abs() <= 0.5 * left) | (excess.abs() <= 1e-7))
            proposal = torch.where(good, newton, 0.5 * (low + high))
            left = torch.where(good, excess.abs(), torch.full_like(left, torch.inf))
            done = good & ((newton - x).abs() <= 1e-9) & (excess.abs() <= 1e-5) | (excess.abs() <= 1e-13)
            proposal = torch.where(excess.abs() <= 1e-13, x, proposal)
            open_ = ~done & (high - low > 1e-12)
            if rows is None:
                s = proposal
            else:
                s[rows] = proposal
            still = torch.nonzero(open_)[:, 0]
            if not len(still):
                break
            if len(still) < 0.7 * len(x):
                rows = still if rows is None else rows[still]
                x, wanted, low, high, left = proposal[still], wanted[still], low[still], high[still], left[still]
            else:
                x = proposal
        lower, upper, _ = law(None, s)
        return s, (_score(lower, upper) - noise).abs() < 1e-5


def _score(lower: Tensor, upper: Tensor) -> Tensor:
    """Phi^-1(F) from log F and log(1 − F), whichever is precise."""
    smaller = log_ndtri(torch.minimum(lower, upper))
    return torch.where(lower < upper, smaller, -smaller)


def attach(root: Tensor, found: Tensor, law: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Give a root its implicit derivative: one Newton step with root, draw and density held constant.

    Where nothing asks for a gradient the root comes back as it is; where the search ended at its bound it carries none.

    Args:
        root, found: (...,). law: s -> log F(s), log(1 − F(s)) and log f(s), at all rows.
    """
    if not torch.is_grad_enabled():
        return root
    lower, upper, log_density = law(root)
    if not lower.requires_grad:
        return root
    # The side that is precise; the other's factor is zero.
    below = lower.detach() < upper.detach()
    change = torch.where(below, lower.detach().exp() * lower, -upper.detach().exp() * upper)
    safe = torch.where(found, log_density.detach().exp(), torch.ones_like(root))
    return torch.where(found, root - (change - change.detach()) / safe, root)


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

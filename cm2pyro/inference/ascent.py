"""The last part of the way to a maximum a posteriori, along which the log posterior's curvature is known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cm2pyro.inference.curvature import Derivatives, derivatives
from cm2pyro.inference.free_sites import FreeSites

_CONVERGED = 0.01  # nats that a Newton step could still gain
_ROUNDS = 4  # of new curvature; with the second most searches have ended
_STEPS = 60  # in each
_LEAST_CURVATURE = 0.1  # priors have at least about as much; with less, first steps go far
_NEAR, _AT, _BOUND = 0.05, 1e-4, 1e-6  # change of a value per unit: near its bound; to be held there; where it is put
_PULL = 1.0  # nats per unit of a value, in its bound's way, that a held parameter may withstand


@dataclass(frozen=True)
class Maximum:
    """Where a search has ended.

    Attributes:
        x: (P,). at: derivatives there. held: (P,) bool, parameters at a bound of their support, such as tau = 0, towards which the density
            rises: in unbounded coordinates their maximum is at infinity, and they do not move with the data.
    """

    x: Tensor
    at: Derivatives
    held: Tensor

    @property
    def information(self) -> Tensor:
        """(F, F) of the parameters that are not held."""
        return self.at.information[~self.held][:, ~self.held]

    @property
    def scores(self) -> Tensor:
        """(N, F)."""
        return self.at.scores[:, ~self.held]

    def whitener(self) -> Tensor:
        """(F, F) W with W'HW = 1 for the information H, where H is positive definite; elsewhere for |H|."""
        curvature, directions = torch.linalg.eigh(self.information)
        return directions * curvature.abs().clamp_min(_LEAST_CURVATURE).rsqrt()

    def gain(self) -> float:
        """Nats that a Newton step promises."""
        return 0.5 * float((self.whitener().mT @ self.at.gradient[~self.held]).square().sum())


def ascend(free: FreeSites, x: Tensor, z: Tensor, observed: Tensor) -> Maximum:
    """Climb from x (P,) until a Newton step promises less than 0.01 nats, by L-BFGS in coordinates in which the curvature is one.

    Parameters whose maximum is at a bound are put there and held; at a saddle it stops.
    """
    end = Maximum(x, derivatives(free, x, z, observed), torch.zeros(len(x), dtype=torch.bool))
    for _ in range(_ROUNDS):
        x, held = _bounds(free, end, z, observed)
        end = Maximum(x, end.at if torch.equal(x, end.x) else derivatives(free, x, z, observed), held)
        if end.gain() < _CONVERGED:
            break
        x = climb(free, end, z, observed, _STEPS)
        end = Maximum(x, derivatives(free, x, z, observed), held)
    return end


def climb(free: FreeSites, start: Maximum, z: Tensor, observed: Tensor, steps: int) -> Tensor:
    """(P,) where at most so many steps of L-BFGS lead from `start` on these rows, in its whitened coordinates."""
    whitener = start.whitener()
    y = whitener.new_zeros(len(whitener), requires_grad=True)
    optimiser = torch.optim.LBFGS([y], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=2e-3, tolerance_change=1e-9)

    def at(y: Tensor) -> Tensor:
        return start.x.index_add(0, (~start.held).nonzero()[:, 0], whitener @ y)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -free.objective(at(y), z, observed)
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        found = at(y)
        # A line search that met a singular density leaves no number.
        return found if bool(torch.isfinite(found).all()) else start.x


def _bounds(free: FreeSites, end: Maximum, z: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """x with parameters put to their bounds, or taken away from there, where that is uphill; and which are held."""
    x, gradient = end.x.clone(), end.at.gradient
    speed = free.speed(x)
    near = speed < _NEAR
    outward = torch.sign(speed - free.speed(x + 1e-4 * near))
    with torch.no_grad():
        height = float(free.objective(x, z, observed))
        for i in (near & (speed > 10 * _BOUND) & (gradient * outward > 0)).nonzero()[:, 0].tolist():
            moved = x.clone()
            moved[i] += outward[i] * math.log(float(speed[i]) / _BOUND)
            reached = float(free.objective(moved, z, observed))
            if reached >= height:
                x, height = moved, reached
    back = (speed < _AT) & (-gradient * outward > _PULL * speed)
    x[back] -= outward[back] * (_NEAR / speed[back].clamp_min(1e-12)).log()
    return x, free.speed(x) < _AT

"""NUTS for the global sites on latents that stand still: the standard by which approximate posteriors are judged."""

import warnings
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.infer import MCMC, NUTS
from torch import Tensor
from torch.distributions import biject_to

from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import CM2Error
from cm2pyro.inference.maximise import inside
from cm2pyro.models.priors import unchecked

Values = dict[str, Tensor]
Progress = Callable[[int, int, int], None]  # chain, iterations done, iterations in all

_DENSE = 500  # numbers up to which the curvature at the mode is computed
_TRIES = 20
_MODE_STEPS = 100
_STEP = 1e-4
_LEAST_CURVATURE = 0.1  # of the potential at its mode: no direction is taken to be wider than 3 sd of a standard normal


@dataclass(frozen=True)
class Chains:
    """Draws of several chains.

    Attributes:
        values: site -> (C, S, …). divergences: per chain, after warm-up. warmup: iterations of each chain that were dropped.
    """

    values: Values
    divergences: list[int]
    warmup: int = 0

    @property
    def draws(self) -> int:
        """C S."""
        first = next(iter(self.values.values()))
        return first.shape[0] * first.shape[1]


class Potential:
    """−log p(sites, z_observed, y) at β = 1, on unconstrained values laid end to end: what NUTS moves in.

    Args:
        priors: site -> prior, of the mixture's sites and of others that `extra` reads. z: (N, M, D). observed: (N, M).
        extra: values and their mixture -> () further log likelihood, such as the outcome's; None: none.

    Attributes:
        size: P, how many numbers; sizes: of each site.
    """

    def __init__(
        self,
        structure: MixtureStructure,
        priors: dict[str, TorchDistribution],
        z: Tensor,
        observed: Tensor,
        extra: Callable[[Values, CopulaMixture], Tensor] | None = None,
    ) -> None:
        self.structure, self.z, self.extra = structure, z.detach().double(), extra
        self.observed = None if bool(observed.all()) else observed
        # Values come out of the sites' own bijections: looking whether they lie in the support would be a tenth of the time.
        self.priors = {name: unchecked(prior) for name, prior in priors.items()}
        self.transforms = {name: biject_to(prior.support) for name, prior in self.priors.items()}
        self._shapes = {name: t.inverse_shape(self.priors[name].shape()) for name, t in self.transforms.items()}
        self.sizes = [shape.numel() for shape in self._shapes.values()]
        self.size = sum(self.sizes)

    def free(self, x: Tensor) -> Values:
        """(..., P) -> unconstrained values of the sites."""
        parts = x.split(self.sizes, -1)
        return {name: part.reshape(*x.shape[:-1], *shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}

    def constrain(self, x: Tensor) -> Values:
        """(..., P) -> values of the sites."""
        return {name: self.transforms[name](part) for name, part in self.free(x).items()}

    def unconstrain(self, values: Values) -> Tensor:
        """Values of the sites -> (P,) float64."""
        kept = {name: inside(values[name].detach().double(), prior.support) for name, prior in self.priors.items()}
        return torch.cat([t.inv(kept[name]).reshape(-1) for name, t in self.transforms.items()])

    def log_likelihood(self, values: Values) -> Tensor:
        """log p(z_observed, y | values), ()."""
        mixture = self.structure.build(values)
        likelihood = mixture.log_prob(self.z, self.observed).sum()
        return likelihood if self.extra is None else likelihood + self.extra(values, mixture)

    def log_prior(self, values: Values) -> Tensor:
        """log p(values), ()."""
        return torch.stack([prior.log_prob(values[name]).sum() for name, prior in self.priors.items()]).sum()

    def __call__(self, x: Tensor) -> Tensor:
        """(P,) -> ()."""
        free = self.free(x)
        values = {name: transform(free[name]) for name, transform in self.transforms.items()}
        volume = torch.stack([t.log_abs_det_jacobian(free[name], values[name]).sum() for name, t in self.transforms.items()]).sum()
        return -(self.log_prior(values) + volume + self.log_likelihood(values))


def sample_chains(
    potential: Potential,
    start: Values,
    chains: int = 2,
    warmup: int = 300,
    draws: int = 500,
    seed: int = 0,
    progress: Progress | None = None,
    target_accept: float = 0.9,
    kept: MutableMapping[int, Chains] | None = None,
) -> Chains:
    """Draw from p(sites | z_observed, y) by NUTS (Hoffman & Gelman 2014), chain after chain, each from its own seed.

    Coordinates are those of the normal approximation at the mode next to the start, so that warm-up has little left to learn.

    Args:
        start: values of all sites of the potential. progress: called after every iteration. target_accept: mean acceptance that the
            step size aims at, in (0, 1). kept: chain -> its draws; chains that are in it are taken from it, others put into it as they end.

    Raises:
        CM2Error: no point near the start at which potential and gradient are finite.
    """
    kept = {} if kept is None else kept
    near: tuple[Tensor, Tensor] | None = None
    for chain in range(chains):
        if chain not in kept:
            near = approximation(potential, potential.unconstrain(start)) if near is None else near
            done = _Counter(chain, warmup + draws, progress)
            kept[chain] = _sample_chain(potential, *near, warmup, draws, target_accept, (seed + 7919 * chain) % 2**32, done)
    parts = [kept[chain] for chain in range(chains)]
    values = {name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values}
    return Chains(values, [part.divergences[0] for part in parts], warmup)


def _sample_chain(
    potential: Potential, mode: Tensor, root: Tensor, warmup: int, draws: int, target_accept: float, seed: int, done: "_Counter"
) -> Chains:
    def moved(y: Values) -> Tensor:
        return _guarded(potential, mode + root @ y["y"])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initial = _finite_start(moved, mode)
        # With the curvature known, a mass matrix learned from a short warm-up is worse than none.
        kernel = NUTS(potential_fn=moved, adapt_mass_matrix=potential.size > _DENSE, target_accept_prob=target_accept)
        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, initial_params=initial, disable_progbar=True, hook_fn=done)
        with warnings.catch_warnings():
            # Of a step that diverges the gradient may be NaN; NUTS rejects it and counts it.
            warnings.simplefilter("ignore")
            mcmc.run()
        with torch.no_grad():
            values = potential.constrain(mode + mcmc.get_samples()["y"] @ root.mT)
    return Chains({name: value[None] for name, value in values.items()}, [done.divergences], warmup)


def approximation(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mode near x and a root of the covariance of the normal approximation there: (P,), (P, P); a diagonal root where P is large."""
    x = x.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([x], max_iter=_MODE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = _guarded(potential, x)
        loss.backward()
        # The line search compares: NaN is neither less nor more, and would end it in an error.
        return torch.where(torch.isfinite(loss), loss, torch.inf)

    begin = x.detach().clone()
    optimiser.step(closure)
    mode = x.detach()
    if not bool(torch.isfinite(mode).all()):
        mode = begin
    if potential.size > _DENSE:
        return mode, torch.eye(potential.size, dtype=x.dtype, device=x.device)
    hessian = _hessian(potential, mode)
    if not bool(torch.isfinite(hessian).all()):
        return mode, torch.eye(potential.size, dtype=x.dtype, device=x.device)
    values, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
    # Flat or downhill directions: about as wide as a prior.
    return mode, vectors * values.clamp_min(_LEAST_CURVATURE).rsqrt()


class _Counter:
    """Counts a chain's iterations, and those after warm-up that diverged."""

    def __init__(self, chain: int, total: int, progress: Progress | None) -> None:
        self.chain, self.total, self.progress, self.done, self.divergences = chain, total, progress, 0, 0

    def __call__(self, kernel: NUTS, *_: Any) -> None:
        self.done += 1
        if self.done == self.total:
            # From the kernel: MCMC.diagnostics also computes R-hat, which fails for fewer than four draws.
            self.divergences = len(kernel.diagnostics()["divergences"])
        if self.progress is not None:
            self.progress(self.chain, self.done, self.total)


def _hessian(potential: Potential, x: Tensor) -> Tensor:
    """(P, P) by central differences of gradients: the copulas' own derivatives have none of their own."""

    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(_guarded(potential, at), at)[0]

    steps = _STEP * torch.eye(len(x), dtype=x.dtype, device=x.device)
    rows = [(gradient(x + step) - gradient(x - step)) / (2 * _STEP) for step in steps]
    return torch.stack(rows)


def _guarded(potential: Potential, x: Tensor) -> Tensor:
    """The potential, NaN where x is not finite: factorisations and checks would raise there what a search may step over."""
    return potential(x) if bool(torch.isfinite(x).all()) else x.sum() * torch.nan


def _finite_start(potential: Callable[[Values], Tensor], like: Tensor) -> Values:
    for _ in range(_TRIES):
        y = torch.randn(like.shape, dtype=like.dtype).to(like.device).requires_grad_()
        value = potential({"y": y})
        (gradient,) = torch.autograd.grad(value, y)
        if bool(torch.isfinite(value)) and bool(torch.isfinite(gradient).all()):
            return {"y": y.detach()}
    raise CM2Error("nuts: potential or gradient is not finite near the point estimate; fit longer, or choose narrower priors")

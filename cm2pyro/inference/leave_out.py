"""Expected log predictive density of given latents: every subject left out in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to

from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.maximise import maximise

_STEP = 1e-6  # of forward differences of log densities, in float64: an error of 1e-6 relative; of gradients ten times that
_MOST_LEVERAGE = 0.5  # up to here the estimate was within 10% of exact refits (tests/inference/test_select.py)
_MOST_PARAMETERS = 500  # the jackknife costs two evaluations a parameter; with more, folds cost less
_MOST_REFITS = 20  # subjects that are left out exactly, one at a time; with more, folds cost less
_CONVERGED = 0.01  # nats that a Newton step could still gain
_REFIT_STEPS = 30  # a single subject moves the maximum little
_ATTEMPTS = 3


@dataclass(frozen=True)
class LeftOut:
    """Out-of-sample fit of one mixture.

    Attributes:
        elpd: (S,) log density of each subject's rows under the fit to all others. effective: Σ (in-sample − out-of-sample), the
            effective number of parameters. refits: subjects whose value comes from a refit, S where folds were needed.
        values: the global sites at the maximum. objective: log likelihood + log prior there.
    """

    elpd: Tensor
    effective: float
    refits: int
    values: dict[str, Tensor]
    objective: float


class Sites:
    """All global sites as one unconstrained vector (P,), in float64; P counts free parameters."""

    def __init__(self, structure: MixtureStructure, priors: dict[str, TorchDistribution], values: dict[str, Tensor]) -> None:
        self.structure, self.priors = structure, {name: priors[name] for name in values}
        self.transforms = {name: biject_to(prior.support) for name, prior in self.priors.items()}
        parts = {name: self.transforms[name].inv(value.detach().double()) for name, value in values.items()}
        self.shapes = {name: part.shape for name, part in parts.items()}
        self.vector = torch.cat([part.reshape(-1) for part in parts.values()])

    def values(self, x: Tensor) -> dict[str, Tensor]:
        parts = x.split([shape.numel() for shape in self.shapes.values()])
        return {name: self.transforms[name](part.reshape(self.shapes[name])) for name, part in zip(self.shapes, parts, strict=True)}

    def log_prob(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """(N,) log density of every row."""
        return self.structure.build(self.values(x)).log_prob(z, observed)

    def log_prior(self, x: Tensor) -> Tensor:
        """On the constrained scale, as `maximise` has it."""
        return torch.stack([self.priors[name].log_prob(value).sum() for name, value in self.values(x).items()]).sum()

    def objective(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        return self.log_prob(x, z, observed).sum() + self.log_prior(x)

    def gradient(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(self.objective(x, z, observed), x)[0]

    def hessian(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """(P, P) of the objective, by differences of gradients: the t quantile of `student_t` has no second derivative in autograd."""
        at = self.gradient(x, z, observed)
        columns = torch.stack([(self.gradient(moved, z, observed) - at) / (10 * _STEP) for moved in self._moved(x, 10 * _STEP)], 1)
        return (columns + columns.mT) / 2

    def scores(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """(N, P) gradient of every row's log density."""
        with torch.no_grad():
            at = self.log_prob(x, z, observed)
            return torch.stack([(self.log_prob(moved, z, observed) - at) / _STEP for moved in self._moved(x, _STEP)], 1)

    @staticmethod
    def _moved(x: Tensor, step: float) -> Iterator[Tensor]:
        for i in range(len(x)):
            moved = x.clone()
            moved[i] += step
            yield moved


def leave_out(
    structure: MixtureStructure,
    priors: dict[str, TorchDistribution],
    values: dict[str, Tensor],
    z: Tensor,
    observed: Tensor,
    subjects: Tensor,
    folds: int = 10,
    seed: int = 0,
) -> LeftOut:
    """Leave every subject out of the maximum a posteriori fit that `values` are at.

    The infinitesimal jackknife: without subject s the maximum moves by −H⁻¹ g_s, g_s the gradient of its log density and H the
    negative Hessian of log likelihood + log prior, so that elpd_s = log p(z_s) − g_s' H⁻¹ g_s (Giordano et al. 2019, AISTATS; its
    sum is the penalty of Takeuchi's information criterion). Subjects with a leverage g_s' H⁻¹ g_s beyond 0.5 are left out exactly,
    by refits. Where these are more than 20, H is not positive definite after further steps, or there are more than 500 parameters,
    all are left out by refits, in folds, each predicted by the fit to the others.

    Args:
        values: of all global sites, from `maximise`. z: (N, M, D). observed: (N, M) bool. subjects: (N,) codes 0 … S − 1.
        folds: of the refits. seed: of their order.
    """
    z = z.double()
    count = int(subjects.max()) + 1
    climb = Climb(structure, priors, z, observed, seed)
    sites = Sites(structure, priors, values)
    leverage = None
    for attempt in range(_ATTEMPTS if len(sites.vector) <= _MOST_PARAMETERS else 0):
        values, x, scores = climb.settle(values)
        sites = Sites(structure, priors, values)
        information = -sites.hessian(x, z, observed)
        leverage = _leverage(information, _sums(scores, subjects, count))
        if leverage is not None or attempt + 1 == _ATTEMPTS:
            break
        values = climb.escape(sites, information)
    values = sites.values(sites.vector)
    with torch.no_grad():
        inside = _sums(sites.log_prob(sites.vector, z, observed), subjects, count)
        objective = float(inside.sum() + sites.log_prior(sites.vector))
    far = [] if leverage is None else (leverage > _MOST_LEVERAGE).nonzero()[:, 0].tolist()
    if leverage is None or len(far) > _MOST_REFITS:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        fold = torch.empty(count, dtype=torch.long)
        fold[order] = torch.arange(count) % min(folds, count)
        elpd, left_out, refits = inside.clone(), [(fold == i).nonzero()[:, 0] for i in range(min(folds, count))], count
    else:
        elpd, left_out, refits = inside - leverage, [torch.tensor([s]) for s in far], len(far)
    for group in left_out:
        out = torch.isin(subjects, group)
        found, _ = maximise(
            structure, priors, values, list(values), z[~out], observed[~out], _REFIT_STEPS if len(group) == 1 else 100, seed
        )
        with torch.no_grad():
            found = {name: value.double() for name, value in found.items()}
            rows = structure.build(found).log_prob(z[out], observed[out])
        elpd[group] = _sums(rows, subjects[out], count)[group]
    return LeftOut(elpd, float((inside - elpd).sum()), refits, values, objective)


@dataclass(frozen=True)
class Climb:
    """Further steps of a search that has nearly ended."""

    structure: MixtureStructure
    priors: dict[str, TorchDistribution]
    z: Tensor
    observed: Tensor
    seed: int

    def _maximise(self, values: dict[str, Tensor], steps: int = 200) -> dict[str, Tensor]:
        return maximise(self.structure, self.priors, values, list(values), self.z, self.observed, steps=steps, seed=self.seed)[0]

    def settle(self, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Steps until a Newton step promises nothing, since the jackknife takes the gradient to be zero: values, vector and scores."""
        values = {name: value.detach().double() for name, value in values.items()}
        for left in range(_ATTEMPTS, -1, -1):
            sites = Sites(self.structure, self.priors, values)
            x = sites.vector
            gradient, scores = sites.gradient(x, self.z, self.observed), sites.scores(x, self.z, self.observed)
            # The outer product of scores stands in for the Hessian, which costs twice as much again.
            metric = scores.mT @ scores + torch.eye(len(x), dtype=torch.float64) * 1e-6
            if left == 0 or 0.5 * float(gradient @ torch.linalg.solve(metric, gradient)) < _CONVERGED:
                break
            values = self._maximise(values)
        return values, x, scores

    def escape(self, sites: Sites, information: Tensor) -> dict[str, Tensor]:
        """Off a saddle, such as two components that are one: down the direction of least curvature on both sides, the better kept."""
        curvature, directions = torch.linalg.eigh(information)
        step = directions[:, 0] * min(1.0, float((-2 / curvature[0].clamp_max(-1e-6)).sqrt()))
        ends = [self._maximise(sites.values(sites.vector + side * step), 30) for side in (-1, 1)]
        vectors = [Sites(self.structure, self.priors, values).vector for values in ends]
        with torch.no_grad():
            heights = [float(sites.objective(x, self.z, self.observed)) for x in vectors]
        return ends[0] if heights[0] >= heights[1] else ends[1]


def _leverage(information: Tensor, gradients: Tensor) -> Tensor | None:
    """(S,) g' H⁻¹ g for gradients (S, P); None where H (P, P) is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(information)
    if bool(failed) or not bool(torch.isfinite(factor).all()):
        return None
    return torch.linalg.solve_triangular(factor, gradients.mT, upper=False).square().sum(0)


def _sums(rows: Tensor, subjects: Tensor, count: int) -> Tensor:
    """Sums over the rows of each subject: (N, ...) -> (S, ...)."""
    return rows.new_zeros(count, *rows.shape[1:]).index_add(0, subjects, rows.detach())

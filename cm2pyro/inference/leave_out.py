"""Expected log predictive density of given latents: every subject left out in turn."""

from dataclasses import dataclass

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.ascent import Maximum, ascend, climb
from cm2pyro.inference.curvature import derivatives
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.inference.maximise import maximise

MOST_PARAMETERS = 500  # whose curvature is computed; with more, folds cost less
_MOST_LEVERAGE = 0.5  # up to here the estimate was within 10% of exact refits (tests/inference/test_select.py)
_MOST_REFITS = 200  # subjects that are left out exactly, one at a time; with more, folds cost far less
_REFIT_STEPS = 100
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

    @property
    def in_folds(self) -> bool:
        """Whether every value comes from a refit."""
        return self.refits == len(self.elpd)


def leave_out(
    structure: MixtureStructure,
    priors: dict[str, TorchDistribution],
    values: dict[str, Tensor],
    z: Tensor,
    observed: Tensor,
    subjects: Tensor,
    folds: int = 10,
    seed: int = 0,
    in_folds: bool = False,
) -> LeftOut:
    """Leave every subject out of the maximum a posteriori fit that `values` are at.

    The infinitesimal jackknife: without subject s the maximum moves by −H⁻¹ g_s, g_s the gradient of its log density and H the
    negative Hessian of log likelihood + log prior, so that elpd_s = log p(z_s) − g_s' H⁻¹ g_s (Giordano et al. 2019, AISTATS; its
    sum is the penalty of Takeuchi's information criterion). Subjects with a leverage g_s' H⁻¹ g_s beyond 0.5 are left out exactly,
    by refits. Parameters whose maximum is at a bound, such as τ = 0, stay there (see `Maximum`). Where more than 200 subjects ask for a
    refit, H is not positive definite after further steps, or there are more than 500 parameters, all are left out by refits, in
    folds, each predicted by the fit to the others.

    Args:
        values: of all global sites, from `maximise`. z: (N, M, D). observed: (N, M) bool. subjects: (N,) codes 0 … S − 1.
        folds: of the refits. seed: of their order. in_folds: whether to use them in any case.
    """
    z = z.double()
    count = int(subjects.max()) + 1
    free = FreeSites(structure, priors, values)
    end, leverage = _settled(free, z, observed, subjects, count) if len(free.vector) <= MOST_PARAMETERS else (None, None)
    x = free.vector if end is None else end.x
    with torch.no_grad():
        inside = _sums(free.log_prob(x, z, observed), subjects, count)
        objective = float(inside.sum() + free.log_prior(x))
        values = free.values(x)
    far = [] if leverage is None else (leverage > _MOST_LEVERAGE).nonzero()[:, 0].tolist()
    if in_folds or leverage is None or len(far) > _MOST_REFITS:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        fold = torch.empty(count, dtype=torch.long)
        fold[order] = torch.arange(count) % min(folds, count)
        elpd, left_out, refits = inside.clone(), [(fold == i).nonzero()[:, 0] for i in range(min(folds, count))], count
    else:
        elpd, left_out, refits = inside - leverage, [torch.tensor([s]) for s in far], len(far)
    for group in left_out:
        out = torch.isin(subjects, group)
        if end is None:
            refit, _ = maximise(structure, priors, values, list(values), z[~out], observed[~out], _REFIT_STEPS, seed)
        else:
            refit = free.values(climb(free, end, z[~out], observed[~out], _REFIT_STEPS))
        with torch.no_grad():
            rows = structure.build(refit).log_prob(z[out], observed[out])
        elpd[group] = _sums(rows, subjects[out], count)[group]
    return LeftOut(elpd, float((inside - elpd).sum()), refits, values, objective)


def _settled(free: FreeSites, z: Tensor, observed: Tensor, subjects: Tensor, count: int) -> tuple[Maximum, Tensor | None]:
    """The maximum, and the leverage (S,) of every subject there; None where H is not positive definite, off saddles too."""
    end = ascend(free, free.vector, z, observed)
    for attempt in range(_ATTEMPTS):
        leverage = _leverage(end.information, _sums(end.scores, subjects, count))
        if leverage is not None or attempt + 1 == _ATTEMPTS:
            break
        end = ascend(free, _escape(free, end, z, observed), z, observed)
    return end, leverage


def _escape(free: FreeSites, end: Maximum, z: Tensor, observed: Tensor) -> Tensor:
    """Off a saddle, such as two components that are one: down the direction of least curvature on both sides, the better kept."""
    curvature, directions = torch.linalg.eigh(end.information)
    step = torch.zeros_like(end.x)
    step[~end.held] = directions[:, 0] * min(1.0, float((-2 / curvature[0].clamp_max(-1e-6)).sqrt()))
    ends = []
    for side in (-1, 1):
        x = end.x + side * step
        ends.append(climb(free, Maximum(x, derivatives(free, x, z, observed), end.held), z, observed, 30))
    with torch.no_grad():
        heights = [float(free.objective(x, z, observed)) for x in ends]
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

"""Derivatives of a copula mixture's log density in all of its global sites, by what the mixture is made of.

log p = log Σ_t e^(l_t) with l_t = log w_t + log p(z | t). With responsibilities r and the gradients a_t of l_t,

    ∇ log p = Σ_t r_t a_t,    ∇² log p = Σ_t r_t ∇² l_t + Σ_t r_t a_t a_t' − (Σ_t r_t a_t)(Σ_t r_t a_t)'

(Louis 1982, JRSS B 44). The a_t of locations and scales come from one derivative in the normal scores. ∇² l_t has no terms between
latent dimensions nor, where joint components share no component of a modality, between components: differences of the gradient of
Σ r_t l_t, r held, in all of these at once give it (Curtis, Powell & Reid 1974, IMA J. Applied Mathematics 13), a dozen in place
of one for each of hundreds of parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from cm2pyro import sites
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.inference.free_sites import FreeSites

_STEP = 1e-6  # of forward differences of log densities, in float64: an error of 1e-6 relative; of gradients ten times that
_BLOCK = 4_000_000  # numbers held at a time
_ANY = -1


@dataclass(frozen=True)
class Derivatives:
    """At one point x (P,).

    Attributes:
        scores: (N, P) gradient of every row's log density. information: (P, P) negative Hessian of log likelihood + log prior.
        gradient: (P,) of log likelihood + log prior.
    """

    scores: Tensor
    information: Tensor
    gradient: Tensor


def derivatives(free: FreeSites, x: Tensor, z: Tensor, observed: Tensor) -> Derivatives:
    """Scores, gradient and information at x (P,) for rows z (N, M, D), observed (N, M) bool."""
    layout = _Layout(free)
    mixture = free.structure.build(free.values(x))
    T, P = mixture.joint_components, len(x)
    size = max(1, _BLOCK // (T * P))
    scores, outer, responsibilities = [], x.new_zeros(P, P), []
    for i in range(0, len(z), size):
        part, seen = z[i : i + size], observed[i : i + size]
        with torch.no_grad():
            r = mixture.responsibilities(part, seen).exp()
        a = _by_component(free, layout, mixture, x, part, seen)  # (n, T, P)
        score = (r[..., None] * a).sum(1)
        weighted = (r.sqrt()[..., None] * a).reshape(-1, P)
        outer += weighted.mT @ weighted - score.mT @ score
        scores.append(score)
        responsibilities.append(r)
    within = _within(free, layout, x, z, observed, torch.cat(responsibilities))
    slope, curvature = _prior(free, x)
    total = torch.cat(scores)
    return Derivatives(total, -(outer + within + curvature), total.sum(0) + slope)


def _prior(free: FreeSites, x: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) gradient and (P, P) second derivatives of the log prior: of each site by differences, which are drawn up as one batch."""
    slope, curvature = torch.zeros_like(x), x.new_zeros(len(x), len(x))
    for name, place in free.places.items():
        size = place.stop - place.start
        steps = torch.cat([x.new_zeros(1, size), 10 * _STEP * torch.eye(size, dtype=x.dtype)])
        moved = (x[place] + steps).reshape(size + 1, *free.shapes[name]).requires_grad_()
        rows = torch.autograd.grad(free.priors[name].log_prob(free.transforms[name](moved)).sum(), moved)[0].reshape(size + 1, size)
        slope[place] = rows[0]
        columns = (rows[1:] - rows[0]) / (10 * _STEP)
        curvature[place, place] = (columns + columns.mT) / 2
    return slope, curvature


class _Layout:
    """Which dimension and which component each parameter but the weights' belongs to, and which are moved together.

    `dimension` and `component` (P,) are _ANY for a parameter of all. `groups`: parameters of which no two meet in one l_t and dimension.
    """

    def __init__(self, free: FreeSites) -> None:
        structure, P = free.structure, len(free.vector)
        self.places = free.places
        self.dimension, self.component = torch.full((P,), _ANY), torch.full((P,), _ANY)
        kind = torch.zeros(P, dtype=torch.long)
        count = 0
        M, K, D = structure.modalities, structure.components, structure.dim
        shared = structure.coupling == "shared"
        per_dimension = bool(structure.copula.batch_shape)
        for name, place in self.places.items():
            size = place.stop - place.start
            if name == sites.WEIGHTS:
                continue
            if name in (sites.LOCS, sites.SCALES):
                m, k, d = (i.reshape(-1) for i in torch.meshgrid(torch.arange(M), torch.arange(K), torch.arange(D), indexing="ij"))
                self.dimension[place] = d
                if shared:
                    self.component[place] = k
                kind[place] = count + (m if shared else m * K + k)
            elif per_dimension and name != sites.copula("weights"):
                each = size // D
                self.dimension[place] = torch.arange(D).repeat_interleave(each)
                kind[place] = count + torch.arange(each).repeat(D)
            else:
                kind[place] = count + torch.arange(size)
            count = int(kind[place].max()) + 1
        rest = torch.ones(P, dtype=torch.bool)
        rest[self.places[sites.WEIGHTS]] = False
        self.groups = [((kind == i) & rest).nonzero()[:, 0] for i in range(count)]
        self.copula = [
            group for group in self.groups if not any(place.start <= int(group[0]) < place.stop for place in self._places_of_margins())
        ]

    def _places_of_margins(self) -> list[slice]:
        return [self.places[name] for name in (sites.LOCS, sites.SCALES)]

    def meet(self) -> Tensor:
        """(P, P) whether the second derivative of some l_t in two parameters may differ from zero."""

        def agree(label: Tensor) -> Tensor:
            return (label[:, None] == label) | (label[:, None] == _ANY) | (label == _ANY)

        found = agree(self.dimension) & agree(self.component)
        weights = self.places[sites.WEIGHTS]
        found[weights], found[:, weights] = False, False
        return found


def _by_component(free: FreeSites, layout: _Layout, mixture: CopulaMixture, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
    """(N, T, P) gradients of l_t."""
    structure = free.structure
    M, K, D = structure.modalities, structure.components, structure.dim
    T, seen = mixture.joint_components, observed[:, None, None, :]
    s = [part.detach().requires_grad_() for part in mixture.standardise(z, observed)]
    log_c = mixture.copula.log_prob_of(s, seen)  # (N, T, D)
    slopes = torch.autograd.grad(log_c.sum(), s, materialize_grads=True) if log_c.requires_grad else [torch.zeros_like(part) for part in s]
    found = z.new_zeros(len(z), T, len(x))
    with torch.no_grad():
        there = observed.to(z.dtype)
        inverse = mixture.scales[torch.arange(M), mixture.assignment].reciprocal()  # (T, M, D)
        # Along one modality's locations: d/ds of log c − s² / 2, times ds/dloc = −1/scale.
        rise = [there[:, m, None, None] * s[m] - slopes[m] for m in range(M)]
        loc = torch.stack([rise[m] * inverse[:, m] for m in range(M)], 2)
        scale = torch.stack([(rise[m] * s[m] - there[:, m, None, None]) * inverse[:, m] for m in range(M)], 2)
        index = (torch.arange(M) * K + mixture.assignment)[..., None] * D + torch.arange(D)  # (T, M, D)
        rows = torch.arange(T)[:, None]
        found[:, rows, index.reshape(T, -1) + layout.places[sites.LOCS].start] = loc.reshape(len(z), T, -1)
        place = layout.places[sites.SCALES]
        found[:, rows, index.reshape(T, -1) + place.start] = scale.reshape(len(z), T, -1)
    found[..., place] *= _slope(free, sites.SCALES, x)
    place = layout.places[sites.WEIGHTS]
    if place.stop > place.start:  # one component has no weight to learn
        found[..., place] = jacobian(lambda part: free.transforms[sites.WEIGHTS](part).log(), x[place])
    with torch.no_grad():
        for group in layout.copula:
            moved = x.clone()
            moved[group] += _STEP
            copula = structure.copula.build(free.values(moved), z)
            change = (copula.log_prob_of([part.detach() for part in s], seen) - log_c) / _STEP
            found[..., group] = change if len(group) > 1 else change.sum(-1, keepdim=True)
    return found


def _slope(free: FreeSites, site: str, x: Tensor) -> Tensor:
    """Derivative of an elementwise transform."""
    part = x[free.places[site]].reshape(free.shapes[site]).detach().clone().requires_grad_()
    return torch.autograd.grad(free.transforms[site](part).sum(), part)[0].reshape(-1)


def _within(free: FreeSites, layout: _Layout, x: Tensor, z: Tensor, observed: Tensor, r: Tensor) -> Tensor:
    """(P, P) of Σ over rows and components of r ∇² l_t, r (N, T) held."""
    P = len(x)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().clone().requires_grad_()
        total = (r * free.structure.build(free.values(x)).component_log_prob(z, observed)).sum()
        return torch.autograd.grad(total, x)[0]

    meet = layout.meet()
    at = gradient(x)
    found, known = x.new_zeros(P, P), torch.zeros(P, P, dtype=torch.bool)
    together = torch.zeros(len(layout.groups), P, dtype=x.dtype)
    for i, group in enumerate(layout.groups):
        together[i, group] = 1
    for group, moved in zip(layout.groups, _moved(x, together, 10 * _STEP), strict=True):
        change = (gradient(moved) - at) / (10 * _STEP)
        # A row's change is one column's where it meets one of those that were moved.
        own = meet[:, group] & (meet[:, group].sum(1, keepdim=True) == 1)
        found[:, group] = torch.where(own, change[:, None], 0)
        known[:, group] = own
    both = known & known.mT
    found = torch.where(both, (found + found.mT) / 2, found + found.mT)
    place, total = layout.places[sites.WEIGHTS], r.sum(0)
    if place.stop > place.start:
        found[place, place] = hessian(lambda part: (total * free.transforms[sites.WEIGHTS](part).log()).sum(), x[place])
    return found


def _moved(x: Tensor, directions: Tensor, step: float) -> Iterator[Tensor]:
    for direction in directions:
        yield x + step * direction

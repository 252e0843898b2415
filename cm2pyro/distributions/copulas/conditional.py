"""A copula given some of its coordinates."""

from typing import TYPE_CHECKING, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.patterns import Groups

if TYPE_CHECKING:
    from cm2pyro.distributions.copulas.base import Copula, Shape


class ConditionalCopula(TorchDistribution):
    """Missing coordinates given observed ones; `rsample` leaves the observed coordinates unchanged.

    `log_prob(s)` is log c(all) - log c(observed): the density of the missing coordinates given the observed ones, on
    the same scale as the copula's own `log_prob` (with respect to u, without normal margins).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, copula: "Copula", s: Tensor, observed: Tensor) -> None:
        shape = torch.broadcast_shapes(s.shape, observed.shape, copula.batch_shape + copula.event_shape)
        self.copula = copula
        self.observed = observed
        self.s = torch.where(observed, s, torch.zeros((), dtype=s.dtype, device=s.device))
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def rsample(self, sample_shape: "Shape" = torch.Size(), noise: Tensor | None = None) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        copula, M = self.copula, self.copula.modalities
        if noise is None:
            noise = torch.randn(shape, dtype=self.s.dtype, device=self.s.device)
        drawn_at_once = copula._draw(self.s.expand(shape), self.observed, noise.expand(shape))
        if drawn_at_once is not None:
            return drawn_at_once
        groups = Groups(self.observed, shape[:-1], len(copula.batch_shape))
        parts = []
        for p, given in enumerate(groups.patterns):
            missing = tuple(m for m in range(M) if m not in given)
            known = groups.part(p, self.s, given)
            if not missing:
                parts.append(known)
                continue
            drawn = copula._of_rows(groups.dimension[p])._complete(given, known, groups.part(p, noise, missing))
            order = sorted(range(M), key=(*given, *missing).__getitem__)
            parts.append(torch.cat([known, drawn], -1)[..., order])
        return groups.join(parts) if parts else self.s.new_zeros(shape)

    def log_prob(self, s: Tensor) -> Tensor:
        s = torch.where(self.observed, self.s, s)
        return self.copula.log_prob(s) - self.copula.log_prob(self.s, self.observed)

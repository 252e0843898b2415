"""Distributions behind the latent sites `z_<modality>` of model and guide.

Latents of a minibatch have the shape (B, D), or (L, B, D) where L completions of the missing modalities share one
draw of the observed ones. Observed latents are then the same in every completion and are scored once, in the first.
"""

from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import Shape
from cm2pyro.distributions.mixture import CopulaMixture


def _score_once(log_prob: Tensor, batch_shape: torch.Size) -> Tensor:
    """(B,) -> batch shape (B,) or (L, B), zero beyond the first completion."""
    if len(batch_shape) == 1:
        return log_prob
    rest = log_prob.new_zeros(batch_shape[0] - 1, batch_shape[1])
    return torch.cat([log_prob[None], rest])


class LatentChain:
    """The copula mixture written by the chain rule, one factor a modality.

    Append each latent to `values` as it is sampled. All factors of a minibatch are then scored in one pass.

    Args:
        mixture: the joint prior. scored: (B, M) bool, which latents are scored. batch_shape: (B,) or (L, B).
    """

    def __init__(self, mixture: CopulaMixture, scored: Tensor, batch_shape: torch.Size) -> None:
        self.mixture, self.scored, self.batch_shape = mixture, scored, batch_shape
        self.values: list[Tensor] = []
        self._gains: Tensor | None = None

    def factor(self) -> "LatentGivenEarlier":
        """p(z_m | z_1 … z_(m−1)) for the modality whose turn it is."""
        return LatentGivenEarlier(self, len(self.values))

    def stack(self, values: list[Tensor]) -> Tensor:
        """Values of the first modalities, zeros for the rest: (*batch_shape, M, D)."""
        M, D = self.mixture.event_shape
        values = [value.expand(*self.batch_shape, D) for value in values]
        return torch.stack(values + [self.mixture.locs.new_zeros(*self.batch_shape, D)] * (M - len(values)), -2)

    def gain(self, m: int, value: Tensor) -> Tensor:
        """log p(z_scored of the first m + 1 modalities) − log p(z_scored of the first m), (B,)."""
        if len(self.values) == self.mixture.event_shape[0] and value is self.values[m]:
            if self._gains is None:
                self._gains = self._prefix_gains(self.values)
            return self._gains[m]
        return self._prefix_gains([*self.values[:m], value])[m]

    def _prefix_gains(self, values: list[Tensor]) -> Tensor:
        z = self.stack(values)
        z = z[0] if len(self.batch_shape) == 2 else z
        M = z.shape[-2]
        prefixes = torch.ones(M, M, dtype=torch.bool, device=z.device).tril()[:, None]  # (M, 1, M)
        log_prob = self.mixture.log_prob(z.expand(M, *z.shape), self.scored & prefixes)  # (M, B)
        gains = log_prob.diff(dim=0, prepend=torch.zeros_like(log_prob[:1]))
        return torch.where(self.scored.mT, gains, gains.new_zeros(()))


class LatentGivenEarlier(TorchDistribution):
    """z_m ~ p(z_m | z_1 … z_(m−1)): a factor of the copula mixture's chain rule.

    `sample` conditions on all earlier modalities. `log_prob` is that of the scored ones: in a row where modality m is
    not scored it is 0, and modalities that are not scored are marginalised, so that the factors of a row add up to
    log p(z_scored).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, chain: LatentChain, m: int) -> None:
        self.chain, self.m = chain, m
        self.earlier = list(chain.values)
        super().__init__(chain.batch_shape, torch.Size(chain.mixture.event_shape[1:]), validate_args=False)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        z = self.chain.stack(self.earlier)
        known = (torch.arange(z.shape[-2], device=z.device) < self.m).expand(z.shape[:-1])
        drawn = self.chain.mixture.conditional(z.expand(*sample_shape, *z.shape), known.expand(*sample_shape, *known.shape))
        return drawn[..., self.m, :]

    def log_prob(self, value: Tensor) -> Tensor:
        return _score_once(self.chain.gain(self.m, value), self.batch_shape)


class DrawnLatent(TorchDistribution):
    """A latent that the guide has drawn for all modalities at once, handed to Pyro one modality at a time.

    Args:
        value: (B, D) or (L, B, D), with its gradients. log_q: (B,) log density of the draw where it is scored, else 0.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, value: Tensor, log_q: Tensor) -> None:
        self.value, self.log_q = value, log_q
        super().__init__(value.shape[:-1], value.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        return self.value.expand(*sample_shape, *self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The density of the drawn value; the guide is never scored at another one."""
        return _score_once(self.log_q, self.batch_shape)

"""How the guide treats the latents of missing modalities. A new treatment is one class and one line here."""

import torch
from torch import Tensor

from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.guides.imputation_network import Amortized
from cm2pyro.guides.treatment import Noise, Represented, Treatment
from cm2pyro.registry import Registry

__all__ = ["TREATMENTS", "Noise", "Represented", "Treatment"]


class Conditional(Treatment):
    """z_missing ~ p(z_missing | z_observed), the model's own conditional: its density cancels against the prior's."""

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        chosen = None if noise is None else (noise[0][..., 0], noise[1])
        return mixture.conditional(z, observed, chosen), z.new_zeros(observed.shape)


class Marginal(Treatment):
    """z_m ~ p(z_m), whatever the other modalities say (the paper's choice)."""

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        filled, log_q = [], []
        for m in range(z.shape[-2]):
            alone = mixture.alone(m)
            none = torch.zeros_like(observed[..., m : m + 1])
            own = None if noise is None else (noise[0][..., m], noise[1][..., m : m + 1, :])
            drawn = alone.conditional(z[..., m : m + 1, :], none, own)
            filled.append(torch.where(observed[..., m, None], z[..., m, :], drawn[..., 0, :]))
            log_q.append(torch.where(observed[..., m], z.new_zeros(()), alone.log_prob(drawn)))
        return torch.stack(filled, -2), torch.stack(log_q, -1)


class Mean(Treatment):
    """The mean of the modality's mixture, a constant without density (a baseline)."""

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        means = torch.stack([mixture.marginal(m).mean for m in range(z.shape[-2])]).detach()
        return torch.where(observed[..., None], z, means), z.new_zeros(observed.shape)


class Zero(Treatment):
    """Zeros, a constant without density (a baseline)."""

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        return torch.where(observed[..., None], z, z.new_zeros(())), z.new_zeros(observed.shape)


TREATMENTS: Registry[type[Treatment]] = Registry("treatment of missing modalities")
TREATMENTS.register("conditional", Conditional)
TREATMENTS.register("amortized", Amortized)
TREATMENTS.register("marginal", Marginal)
TREATMENTS.register("mean", Mean)
TREATMENTS.register("zero", Zero)

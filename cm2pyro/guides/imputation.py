"""How the guide treats the latents of missing modalities. A new treatment is one function and one line here."""

from collections.abc import Callable

import torch
from torch import Tensor

from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.registry import Registry

Noise = tuple[Tensor, Tensor]  # uniform (..., M) for the choice of components, standard normal (..., M, D)
Treatment = Callable[[CopulaMixture, Tensor, Tensor, Noise | None], tuple[Tensor, Tensor]]


def conditional(mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """z_missing ~ p(z_missing | z_observed), the model's own conditional: its density cancels against the prior's."""
    chosen = None if noise is None else (noise[0][..., 0], noise[1])
    return mixture.conditional(z, observed, chosen), z.new_zeros(observed.shape)


def marginal(mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """z_m ~ p(z_m), whatever the other modalities say (the paper's choice)."""
    filled, log_q = [], []
    for m in range(z.shape[-2]):
        alone = mixture.alone(m)
        none = torch.zeros_like(observed[..., m : m + 1])
        own = None if noise is None else (noise[0][..., m], noise[1][..., m : m + 1, :])
        drawn = alone.conditional(z[..., m : m + 1, :], none, own)
        filled.append(torch.where(observed[..., m, None], z[..., m, :], drawn[..., 0, :]))
        log_q.append(torch.where(observed[..., m], z.new_zeros(()), alone.log_prob(drawn)))
    return torch.stack(filled, -2), torch.stack(log_q, -1)


def mean(mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """The mean of the modality's mixture, a constant without density (a baseline)."""
    means = torch.stack([mixture.marginal(m).mean for m in range(z.shape[-2])]).detach()
    return torch.where(observed[..., None], z, means), z.new_zeros(observed.shape)


def zero(mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """Zeros, a constant without density (a baseline)."""
    return torch.where(observed[..., None], z, z.new_zeros(())), z.new_zeros(observed.shape)


TREATMENTS: Registry[Treatment] = Registry("treatment of missing modalities")
TREATMENTS.register("conditional", conditional)
TREATMENTS.register("marginal", marginal)
TREATMENTS.register("mean", mean)
TREATMENTS.register("zero", zero)

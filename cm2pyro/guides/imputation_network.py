"""The amortized treatment: a network draws the missing latents from what the encoders say about the observed ones."""

import math

import torch
from torch import Tensor, nn

from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.guides.treatment import Noise, Represented, Treatment
from cm2pyro.noise import normal_like

_HIDDEN = 64
_LEAST_SCALE = 1e-3
_FIRST_SCALE = math.log(math.expm1(1.0))  # softplus gives 1: as wide as the latents themselves, before anything is learned


class Amortized(Treatment):
    """z_missing ~ Normal(loc, scale), independent over modalities and dimensions, from one network.

    It reads loc and scale of q(z_m | x_m) for the observed modalities, zeros for the others, and the mask. Unlike the model's
    conditional it is trained, through the ELBO, in which its density stands; and it has one mode.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__(modalities, dim)
        self.network = nn.Sequential(nn.Linear(modalities * (2 * dim + 1), _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2 * modalities * dim))

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        known = (z, torch.zeros_like(z)) if represented is None else represented
        # Draws that share a row's representation share its mask: the network reads a row once.
        row = observed[(0,) * (observed.dim() + 1 - known[0].dim())]
        loc, scale = self.parameters_of(known, row)
        normal = normal_like(z, -3) if noise is None else noise[1]
        drawn = loc + scale * normal
        log_q = torch.distributions.Normal(loc, scale, validate_args=False).log_prob(drawn).sum(-1)
        return torch.where(observed[..., None], z, drawn), torch.where(observed, log_q.new_zeros(()), log_q)

    def parameters_of(self, represented: Represented, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Represented rows (..., M, D) and their mask (..., M) -> loc and scale of every modality, (..., M, D) each."""
        seen = [torch.where(observed[..., None], x, x.new_zeros(())) for x in represented]
        read = torch.cat([*seen, observed[..., None].to(seen[0].dtype)], -1).flatten(-2)
        loc, raw = self.network(read).unflatten(-1, (self.modalities, 2 * self.dim)).split(self.dim, -1)
        return loc, nn.functional.softplus(raw + _FIRST_SCALE) + _LEAST_SCALE

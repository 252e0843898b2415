"""Auxiliary heads: the outcome from one modality alone."""

from collections.abc import Sequence

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from cm2pyro import sites
from cm2pyro.models.likelihoods import Likelihood


class AuxiliaryHeads(nn.Module):
    """y_i ~ Likelihood_m(head_m(z_im)) for every modality m that row i has, weighted by `weight`.

    A composite likelihood beside the model's own, for training alone: each encoder learns from the outcome directly, also
    where another modality would explain it. Prediction does not use these heads.

    Args:
        names: the modalities. dim: latent width D. likelihoods: one a modality, since each has its own noise. weight: > 0.
    """

    def __init__(self, names: tuple[str, ...], dim: int, likelihoods: Sequence[Likelihood], weight: float) -> None:
        super().__init__()
        self.names, self.weight = names, weight
        self.heads = nn.ModuleList(nn.Linear(dim, likelihood.outputs) for likelihood in likelihoods)
        self.likelihoods = nn.ModuleList(likelihoods)
        self._each = tuple(zip(names, self.heads, likelihoods, strict=True))

    def forward(self, z: Tensor, observed: Tensor, labels: Tensor, labelled: Tensor) -> None:
        """Score the labels, one site a modality, inside the plate of the data.

        Args:
            z: (B, M, D), anything where not observed. observed: (B, M). labels, labelled: as in a batch.
        """
        for m, (name, head, likelihood) in enumerate(self._each):
            scored = labelled & observed[:, m]
            # Rows that lack the modality are left out before the head, so that nothing drawn for them reaches a gradient.
            seen = torch.where(observed[:, m, None], z[:, m], z.new_zeros(()))
            outcome = likelihood.distribution(head(seen), likelihood.known(labels))
            with poutine.scale(scale=self.weight):
                pyro.sample(sites.auxiliary(name), outcome.mask(scored), obs=likelihood.labels(labels, z.dtype))

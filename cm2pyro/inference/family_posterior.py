"""Which copula family the data come from: a posterior over families for the whole data set."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.distributions.copulas import FAMILIES
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.start import start_margins
from cm2pyro.models.priors import site_priors


@dataclass(frozen=True)
class FamilyPosterior:
    """f ~ Categorical(λ) once for the whole data set, z_i ~ p_f for every row: weights are probabilities of families.

    (For proportions of rows see `FamilyMixture`.)

    Attributes:
        weights: family -> p(f | z_1 … z_N), by the Bayesian information criterion's approximation of the evidence.
        log_evidence: family -> log p̂(z_1 … z_N | f). mixtures: family -> the copula mixture at its maximum.
    """

    weights: dict[str, float]
    log_evidence: dict[str, float]
    mixtures: dict[str, CopulaMixture]

    def best(self) -> str:
        """The family with the largest weight."""
        return max(self.weights, key=self.weights.__getitem__)

    def log_prob(self, z: Tensor, observed: Tensor | None = None) -> Tensor:
        """log Σ_f p(f | data) Π_i p_f(z_i) of further rows that share the family: z (N, M, D) -> ()."""
        terms = [math.log(w) + self.mixtures[f].log_prob(z, observed).sum() for f, w in self.weights.items() if w > 0]
        return torch.logsumexp(torch.stack(terms), 0)


def family_posterior(
    structure: MixtureStructure,
    z: Tensor,
    observed: Tensor,
    families: Sequence[str],
    prior: dict[str, float] | None = None,
    priors: Priors | None = None,
    restarts: int = 3,
    seed: int = 0,
) -> FamilyPosterior:
    """Fit every family to the same latents and weigh them.

    For each family all global sites (weights, locs, scales, copula) are maximised a posteriori, from the same start;
    log p̂(z | f) = log likelihood − ½ (copula parameters of f) log N. Densities of latents from different encoders cannot be
    compared: pass the latents of one fit.

    Args:
        structure: modalities, dimensions, components and coupling; its family is not used.
        z: (N, M, D) latents. observed: (N, M) bool. families: two or more names. prior: family -> λ, equal if not given.
        priors: of the sites other than the copula's. restarts: of the mixture's start.

    Raises:
        ConfigError: fewer than two families, an unknown one, or one that cannot tie M modalities.
    """
    if len(families) < 2 or len(set(families)) < len(families):
        raise ConfigError(f"families: expected two or more different ones, found {', '.join(families) or 'none'}; name them")
    for name in families:
        FAMILIES.get(name, "families")
    if prior is not None and (set(prior) != set(families) or min(prior.values()) < 0 or sum(prior.values()) <= 0):
        raise ConfigError(f"prior: expected a weight for each of {', '.join(families)}, found {prior}; mend it")
    priors = (priors or Priors()).model_copy(update={"copula": None, "copula_df": None, "copula_weights": None})
    evidence, mixtures = {}, {}
    margins, tau = start_margins(structure, z, observed, restarts, seed)
    for name in families:
        own = dataclasses.replace(structure, family=name, families=())
        values = margins | own.copula.start(tau)
        found, likelihood = maximise(own, site_priors(own, priors), values, list(values), z, observed, seed=seed)
        mixtures[name] = own.build(found)
        # Of a Cholesky factor only the part below the diagonal is free.
        free = sum(value.numel() if value.dim() < 2 else value.tril(-1).count_nonzero().item() for value in _copula(found).values())
        evidence[name] = likelihood - 0.5 * free * math.log(len(z))
    log_prior = {name: math.log(prior[name]) if prior and prior[name] > 0 else (0.0 if prior is None else -math.inf) for name in families}
    joint = torch.tensor([evidence[name] + log_prior[name] for name in families], dtype=torch.float64)
    weights = dict(zip(families, joint.softmax(0).tolist(), strict=True))
    return FamilyPosterior(weights, evidence, mixtures)


def _copula(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if name.startswith(sites.COPULA)}

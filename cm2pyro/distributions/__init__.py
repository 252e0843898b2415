"""Copulas on normal scores and the copula mixture over the latents of all modalities."""

from cm2pyro.distributions.copulas import FAMILIES, Copula, make_copula, register_copula
from cm2pyro.distributions.copulas.family_mixture import FamilyMixture
from cm2pyro.distributions.mixture import CopulaMixture

__all__ = ["FAMILIES", "Copula", "CopulaMixture", "FamilyMixture", "make_copula", "register_copula"]

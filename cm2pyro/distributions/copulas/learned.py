"""Copulas whose parameters are global sites of the model."""

from dataclasses import dataclass
from functools import lru_cache

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.copulas import FAMILIES
from cm2pyro.distributions.copulas.base import Copula
from cm2pyro.distributions.copulas.family_mixture import FamilyMixture
from cm2pyro.errors import ConfigError
from cm2pyro.registry import UnknownNameError, nearest

MIXTURE = "mixture"


@dataclass(frozen=True)
class LearnedCopula:
    """A family, or a mixture of families, for M modalities; knows its sites, their priors and their starts.

    Args:
        family: a name in FAMILIES, or `mixture`. families: those of the mixture.
        modalities: M. batch_shape: () where one copula serves all latent dimensions, else (D,).

    Raises:
        ConfigError: unknown family, a mixture of fewer than two, a family that cannot tie M coordinates.
    """

    family: str
    families: tuple[str, ...]
    modalities: int
    batch_shape: torch.Size

    def __post_init__(self) -> None:
        if self.family == MIXTURE:
            if len(self.families) < 2 or len(set(self.families)) < len(self.families):
                found = ", ".join(self.families) or "none"
                raise ConfigError(f"prior.copula.families: a mixture needs two or more different families, found {found}; name them")
            for name in self.families:
                FAMILIES.get(name, "prior.copula.families")
        else:
            if self.families:
                raise ConfigError(f"prior.copula.families: belongs to family mixture, this one is {self.family}; remove it")
            if self.family not in FAMILIES:
                hint = nearest(self.family, [*FAMILIES.names(), MIXTURE])
                raise UnknownNameError(f"prior.copula.family: unknown copula family '{self.family}'; {hint}")
            FAMILIES.get(self.family, "prior.copula.family")
        if self.modalities > 1:
            self.priors()

    def _members(self) -> dict[str, type[Copula]]:
        """Prefix of the sites -> class."""
        # One modality has nothing to be tied to.
        if self.modalities < 2:
            return {"": FAMILIES.get("independence")}
        return {name: FAMILIES.get(name) for name in self.families} if self.families else {"": FAMILIES.get(self.family)}

    def priors(self) -> dict[str, TorchDistribution]:
        """Default prior of every site."""
        found: dict[str, TorchDistribution] = {}
        for prefix, cls in self._members().items():
            for suffix, prior in cls.site_priors(self.modalities, self.batch_shape).items():
                found[sites.copula(prefix, suffix)] = prior
        if self.families and self.modalities > 1:
            found[sites.copula("weights")] = dist.Dirichlet(torch.ones(len(self.families)))
        return found

    def meanings(self) -> dict[str, str]:
        """What every site holds, in a few words; sites of a family that does not say are left out."""
        found: dict[str, str] = {}
        for prefix, cls in self._members().items():
            found |= {sites.copula(prefix, suffix): text for suffix, text in cls.site_meanings(self.modalities).items()}
        if self.families and self.modalities > 1:
            found[sites.copula("weights")] = "weights of the copula families, in the order of prior.copula.families"
        return found

    def build(self, values: dict[str, Tensor], like: Tensor) -> Copula:
        """The copula for values of its sites; `like` gives dtype and device where it has none."""
        members = []
        for cls, names in _sites_of(tuple(self._members().items()), self.modalities, self.batch_shape):
            members.append(cls.from_sites({suffix: values[name] for suffix, name in names.items()}, self.modalities, like))
        if len(members) == 1:
            return members[0]
        return FamilyMixture(members, values[sites.copula("weights")].log(), validate_args=False)

    def start(self, tau: Tensor) -> dict[str, Tensor]:
        """Values of the sites that come near pairwise tau (D, M, M)."""
        tau = tau if self.batch_shape else tau.mean(0)
        found: dict[str, Tensor] = {}
        for prefix, cls in self._members().items():
            found |= {sites.copula(prefix, suffix): value for suffix, value in cls.sites_from_tau(tau).items()}
        if self.families and self.modalities > 1:
            found[sites.copula("weights")] = tau.new_full((len(self.families),), 1 / len(self.families))
        return found


@lru_cache(maxsize=64)  # asked for at every step; priors are made to learn their names
def _sites_of(
    members: tuple[tuple[str, type[Copula]], ...], modalities: int, batch_shape: torch.Size
) -> list[tuple[type[Copula], dict[str, str]]]:
    """Of each member its class, and suffix -> site."""
    return [(cls, {suffix: sites.copula(prefix, suffix) for suffix in cls.site_priors(modalities, batch_shape)}) for prefix, cls in members]

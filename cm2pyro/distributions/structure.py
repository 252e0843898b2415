"""The shape of the copula mixture, and how values of the global sites become one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.copulas import FAMILIES, Copula
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.errors import ConfigError

_MOST_JOINT_COMPONENTS = 4096


@dataclass(frozen=True)
class MixtureStructure:
    """M modalities, D latent dimensions, K components each, joined by `coupling`.

    shared: T = K joint components, a(t, m) = t. full: T = K^M, one per tuple of components.

    Raises:
        ConfigError: unknown family, a family that cannot tie M coordinates, too many joint components.
    """

    modalities: int
    dim: int
    components: int
    coupling: str = "shared"
    family: str = "gaussian"
    tied: bool = False
    scale_floor: float = 0.1
    assignment: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        FAMILIES.get(self.family, "prior.copula.family")
        M, K = self.modalities, self.components
        if self.coupling == "full":
            if K**M > _MOST_JOINT_COMPONENTS:
                raise ConfigError(
                    f"prior.coupling: full needs components ** modalities = {K**M} joint components, at most {_MOST_JOINT_COMPONENTS} "
                    "are allowed; use shared or fewer components"
                )
            assignment = torch.cartesian_prod(*[torch.arange(K)] * M).reshape(K**M, M)
        else:
            assignment = torch.arange(K)[:, None].expand(K, M)
        object.__setattr__(self, "assignment", assignment)

    @property
    def joint_components(self) -> int:
        """T."""
        return len(self.assignment)

    @property
    def copula_class(self) -> type[Copula]:
        # One modality has nothing to be tied to.
        return FAMILIES.get(self.family if self.modalities > 1 else "independence")

    @property
    def copula_batch_shape(self) -> torch.Size:
        return torch.Size() if self.tied else torch.Size((self.dim,))

    def build(self, values: dict[str, Tensor]) -> CopulaMixture:
        """The mixture for values of the global sites: weights (T,), locs and scales (M, K, D), and the copula's site."""
        locs = values[sites.LOCS]
        value = values.get(sites.COPULA)
        copula = self.copula_class.from_site(locs if value is None else value, self.modalities)
        assignment = self.assignment.to(locs.device)
        return CopulaMixture(values[sites.WEIGHTS].log(), assignment, locs, values[sites.SCALES], copula, validate_args=False)

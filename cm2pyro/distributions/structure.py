"""The shape of the copula mixture, and how values of the global sites become one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.copulas.independence import IndependenceCopula
from cm2pyro.distributions.copulas.learned import LearnedCopula
from cm2pyro.distributions.mixture import CopulaMixture, IndependentMargins
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
    families: tuple[str, ...] = ()
    assignment: Tensor = field(init=False, repr=False, compare=False)
    copula: LearnedCopula = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        batch_shape = torch.Size() if self.tied else torch.Size((self.dim,))
        object.__setattr__(self, "copula", LearnedCopula(self.family, self.families, self.modalities, batch_shape))
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

    def build(self, values: dict[str, Tensor], margins_only: bool = False) -> CopulaMixture:
        """The mixture for values of the global sites: weights (T,), locs and scales (M, K, D), and the copula's sites.

        Args:
            margins_only: leave the copula out, see `IndependentMargins`.
        """
        locs = values[sites.LOCS]
        log_weights, assignment, scales = values[sites.WEIGHTS].log(), self.assignment.to(locs.device), values[sites.SCALES]
        if margins_only:
            copula = IndependenceCopula(self.modalities, locs)
            return IndependentMargins(log_weights, assignment, locs, scales, copula, validate_args=False)
        return CopulaMixture(log_weights, assignment, locs, scales, self.copula.build(values, locs), validate_args=False)

    def ordered(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same mixture with its components in the order of their locations, so that draws of it can be compared.

        shared: by the first modality's first dimension; full: each modality by its own first dimension.

        Args:
            values: of the sites; weights (..., T), locs and scales (..., M, K, D), other sites as they are.
        """
        locs = values[sites.LOCS]
        K = self.components
        if self.coupling == "full":
            order = locs[..., 0].argsort(-1)  # (..., M, K)
            column = self.assignment.mT.to(locs.device).expand(*order.shape[:-1], -1)  # (..., M, T): the new component of each modality
            power = K ** torch.arange(self.modalities - 1, -1, -1, device=locs.device)
            joint = (order.gather(-1, column) * power[:, None]).sum(-2)  # which joint component that was
        else:
            joint = locs[..., 0, :, 0].argsort(-1)  # (..., T = K)
            order = joint[..., None, :].expand(*locs.shape[:-1])
        index = order[..., None].expand(locs.shape)
        moved = {name: values[name].gather(-2, index) for name in (sites.LOCS, sites.SCALES)}
        return values | moved | {sites.WEIGHTS: values[sites.WEIGHTS].gather(-1, joint)}

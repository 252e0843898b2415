"""The independence copula."""

from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import Copula, Shape
from cm2pyro.errors import ConfigError


class IndependenceCopula(Copula):
    """Independent coordinates: c(u) = 1, Kendall's tau 0, no tail dependence."""

    family = "independence"
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, modalities: int, like: Tensor | None = None, validate_args: bool | None = None) -> None:
        self._like = torch.zeros(()) if like is None else like.new_zeros(())
        super().__init__(modalities, torch.Size(), validate_args)

    def _log_density(self, s: Tensor, observed: Tensor | None) -> Tensor:
        return s.new_zeros(s.shape[:-1])

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
        return noise

    def conditional_margin(self, s: Tensor, m: int, given: Tensor) -> tuple[Tensor, Tensor]:
        normal = torch.distributions.Normal(s.new_zeros(()), s.new_ones(()))
        return normal.cdf(s[..., m]), normal.log_prob(s[..., m])

    def select(self, dimension: int) -> Self:
        return self

    def tau(self) -> Tensor:
        return self._like

    @property
    def theta(self) -> Tensor:
        return self._like

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return type(self)(self.modalities, self._like, validate_args=False)

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        if bool((tau != 0).any()):
            raise ConfigError(f"tau: the independence copula has Kendall's tau 0, found {tau.tolist()}; set tau to 0 or choose a family")
        return cls(modalities, tau)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        raise ConfigError("theta: the independence copula has no parameter; leave it out")

    @classmethod
    def default_prior(cls, modalities: int, batch_shape: torch.Size) -> TorchDistribution | None:
        return None

    @classmethod
    def from_site(cls, value: Tensor | None, modalities: int) -> Self:
        return cls(modalities, value)

    @classmethod
    def site_from_tau(cls, tau: Tensor) -> Tensor | None:
        return None

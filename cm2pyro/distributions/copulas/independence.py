"""The independence copula."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import Copula, Shape
from cm2pyro.distributions.special import log_ndtr
from cm2pyro.errors import ConfigError


class IndependenceCopula(Copula):
    """Independent coordinates: log c(u) = 0, Kendall's tau 0, no tail dependence, no parameter."""

    family = "independence"
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, modalities: int, like: Tensor | None = None, validate_args: bool | None = None) -> None:
        self._zero = torch.zeros(()) if like is None else like.new_zeros(())
        super().__init__(modalities, torch.Size(), validate_args)

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        return s[0].new_zeros(s[0].shape)

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        return log_ndtr(value.double()), log_ndtr(-value.double())

    def log_prob_of(self, s: Sequence[Tensor], observed: Tensor | None = None) -> Tensor:
        if observed is None or self._validate_args:
            return super().log_prob_of(s, observed)
        return s[0].new_zeros(torch.broadcast_shapes(s[0].shape, observed.shape[:-1]))

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
        return torch.where(observed, s, noise)

    def _complete(self, given: tuple[int, ...], s: Tensor, noise: Tensor) -> Tensor:
        return noise

    def log_cdf(self, s: Tensor) -> Tensor:
        return log_ndtr(s).sum(-1)

    def margin(self, coordinates: Sequence[int]) -> Self:
        return type(self)(len(coordinates), self._zero, validate_args=False)

    def select(self, index: int | Tensor) -> Self:
        return self

    def tau(self) -> Tensor:
        return self._zero

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        return self._zero, self._zero

    @property
    def theta(self) -> Tensor:
        return self._zero

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return type(self)(self.modalities, self._zero, validate_args=False)

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        if bool((tau != 0).any()):
            raise ConfigError(f"tau: the independence copula has Kendall's tau 0, found {tau.tolist()}; set tau to 0 or choose a family")
        return cls(modalities, tau)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        raise ConfigError("theta: the independence copula has no parameter; leave it out")

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        return {}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        return cls(modalities, like)

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        return {}

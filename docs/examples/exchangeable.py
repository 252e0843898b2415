"""A Gaussian copula in which every pair of modalities has the same correlation."""

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.archimedean import mean_of_pairs
from cm2pyro.distributions.copulas.base import MAX_TAU, Copula, Shape
from cm2pyro.distributions.special import log_ndtr
from cm2pyro.errors import ConfigError


class ExchangeableCopula(Copula):
    """Exchangeable Gaussian copula, for any number of coordinates: one correlation r, however many pairs there are.

    log c(u) = −½ [(M − 1) log(1 − r) + log d + (r / (1 − r)) (Σ s² − (Σ s)² / d)],   d = 1 + (M − 1) r, after collecting
    s'(R⁻¹ − I)s with R = (1 − r) I + r 11'.

    Range: 0 <= r < 1, independence at 0; Kendall's tau (2/π) arcsin r. Tail dependence: none.
    Source: Sherman and Morrison (1950), Annals of Mathematical Statistics 21, for R⁻¹.
    """

    family = "exchangeable"
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"theta": constraints.half_open_interval(0.0, 1.0)}

    def __init__(self, theta: Tensor, modalities: int, validate_args: bool | None = None) -> None:
        self._theta = theta
        super().__init__(modalities, theta.shape, validate_args)

    @property
    def theta(self) -> Tensor:
        return self._theta

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        r, M = self._theta.to(s[0].dtype), len(s)
        d = 1 + (M - 1) * r
        x = torch.stack(list(s), -1)
        quadratic = r / (1 - r) * (x.square().sum(-1) - x.sum(-1).square() / d)
        return -0.5 * ((M - 1) * torch.log1p(-r) + d.log() + quadratic)

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        r, k = self._theta.double(), len(given)
        share = r / (1 + (k - 1) * r)
        score = (value.double() - share * s.double().sum(-1)) / (1 - k * r * share).sqrt()
        return log_ndtr(score), log_ndtr(-score)

    def margin(self, coordinates: Sequence[int]) -> Self:
        return self._like(self._theta, len(coordinates))

    def select(self, index: int | Tensor) -> Self:
        return self._like(self._theta[index], self.modalities) if self.batch_shape else self

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return self._like(self._theta.expand(torch.Size(batch_shape)), self.modalities)

    def _like(self, theta: Tensor, modalities: int) -> Self:
        return type(self)(theta, modalities, validate_args=False)

    def tau(self) -> Tensor:
        return 2 / math.pi * torch.asin(self._theta)

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self._theta), torch.zeros_like(self._theta)

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        return cls.from_theta(torch.sin(math.pi / 2 * tau), modalities)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        if theta.dim() > 1 or not bool(((theta >= 0) & (theta < 1)).all()):
            raise ConfigError(f"theta: the exchangeable copula needs 0 <= theta < 1, a number or (D,), found {theta.tolist()}; mend it")
        return cls(theta, modalities)

    # --- as a learned prior: one site, tau / MAX_TAU ----------------------------------------------------------------

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        return {"": dist.Beta(torch.tensor(1.0), torch.tensor(2.0)).expand(batch_shape).to_event(len(batch_shape))}

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        return {"": f"tau / {MAX_TAU}, Kendall's, of every pair"}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        return cls(torch.sin(math.pi / 2 * MAX_TAU * values[""]), modalities, validate_args=False)

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        return {"": mean_of_pairs(tau).clamp(0.02, 0.95) / MAX_TAU}

"""The Frank copula."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform

from cm2pyro.distributions.copulas.archimedean import ArchimedeanCopula, mean_of_pairs
from cm2pyro.distributions.copulas.base import MAX_TAU
from cm2pyro.distributions.copulas.inversion import increasing_inverse
from cm2pyro.distributions.copulas.polynomials import homogeneous, stirling2
from cm2pyro.distributions.special import in_order, log1mexp_exp, log_ndtr, log_neg_log, one_minus_exp, softplus
from cm2pyro.errors import ConfigError

_NODES, _WEIGHTS = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(64))
# 4 B_2k / ((2k)! (2k + 1)): tau = Σ_k of these times θ^(2k − 1) for small θ.
_SMALL = (1 / 9, -1 / 900, 1 / 52920, -1 / 2721600, 4 * (5 / 66) / (math.factorial(10) * 11), -4 * (691 / 2730) / (math.factorial(12) * 13))
_LEAST = 1e-6  # |θ| below which the copula is treated as if it had this parameter


class FrankCopula(ArchimedeanCopula):
    """Frank copula, for any number of coordinates.

    log c(u) = (M − 1) log(θ / p) − θ Σ u_m − log h + log Li_{−(M−1)}(h),  p = 1 − e^(−θ), h = p^(1−M) Π (1 − e^(−θ u_m)),
    Li_{−n}(h) = Σ_{k=0}^n k! S(n + 1, k + 1) (h / (1 − h))^(k+1), S Stirling numbers of the second kind

    Generator ψ(t) = −log(1 − p e^(−t)) / θ. Range: θ > 0, for M = 2 also θ < 0 (the copula of |θ| with u_1 -> 1 − u_1);
    Kendall's tau 1 + 4 (D_1(θ) − 1) / θ with Debye's D_1, in (0, 1), for M = 2 in (−1, 1). No tail dependence. Source:
    Frank (1979), Aequationes Mathematicae 19; Hofert, Mächler & McNeil (2012), Journal of Multivariate Analysis 110.
    """

    family = "frank"
    arg_constraints = {"theta": constraints.real}  # noqa: RUF012

    @property
    def _strength(self) -> Tensor:
        return self._theta.abs() + _LEAST * (self._theta.detach().abs() < _LEAST)

    def _signs(self, coordinates: Sequence[int]) -> list[Tensor | None]:
        if not bool((self._theta.detach() < 0).any()):
            return [None] * len(coordinates)
        sign = torch.where(self._theta.detach() < 0, -1.0, 1.0)
        return [sign if m == 0 else None for m in coordinates]

    @staticmethod
    def _log_density_of(s: Sequence[Tensor], theta: Tensor) -> Tensor:
        # 1 − h = e^(−θ a) W with a the smallest u and W in [1, M]; H = h / p. In v = 2u, which erfc gives.
        n = len(s)
        p, minus = -torch.expm1(-theta), -0.5 * theta
        # In order, so that the smallest of the first two comes first.
        v = [torch.erfc(x * -math.sqrt(0.5)) for x in (*in_order(s[0], s[1]), *s[2:])]
        least, excess = v[0], minus * (v[1] - v[0])  # excess: −θ Σ (u_m − a)
        H = one_minus_exp(minus * least)
        W = 1 + H * one_minus_exp(minus * (2 - v[1])) * (excess - p.log()).exp()
        H = H / p if n > 2 else H
        for i, x in enumerate(v[2:], start=2):
            H = H * one_minus_exp(minus * v[i - 1]) / p
            new, _ = in_order(least, x)
            gap, fall = minus * (x - new), minus * (least - new)
            W = W * fall.exp() + H * gap.exp() * one_minus_exp(minus * (2 - x))
            excess, least = excess + gap + i * fall, new
        value = ((n - 1) * (theta / p).log() + excess) - n * W.log()
        if n == 2:
            return value
        H = H * one_minus_exp(minus * v[-1]) / p
        return value + _polynomial(n, p * H, (minus * least).exp() * W).log()

    @staticmethod
    def _log_inverse(s: Tensor, theta: Tensor) -> Tensor:
        log_p, log_theta = log1mexp_exp(theta.log()), theta.log()
        lower, upper = log_ndtr(s), log_ndtr(-s)
        log_g = log1mexp_exp(log_theta + lower) - log_p
        return log_neg_log(log_g, log1mexp_exp(log_theta + upper) - theta * lower.exp() - log_p)

    @staticmethod
    def _log_generator(y: Tensor, theta: Tensor) -> Tensor:
        log_h, log_rest = _log_h(y, theta)
        return log_neg_log(log_rest, log_h) - theta.log()

    @staticmethod
    def _log_ratio(k: int, before: Tensor, new: Tensor, theta: Tensor) -> Tensor:
        # With h = p e^−t: (1 − h_after) / (1 − h) = 1 + (1 − e^−t_new) h / (1 − h).
        log_h, log_rest = _log_h(before, theta)
        rise, fall = softplus(log1mexp_exp(new) + log_h - log_rest), new.exp()
        h, rest = log_h.exp(), log_rest.exp()
        after = _polynomial(k, h * (-fall).exp(), rest + h * -torch.expm1(-fall))
        return -fall - k * rise + after.log() - _polynomial(k, h, rest).log()

    @staticmethod
    def _tau_of(theta: Tensor) -> Tensor:
        x = theta.double()
        small = x < 0.5
        series = torch.zeros_like(x)
        for weight in reversed(_SMALL):
            series = series * x.square() + weight
        safe = torch.where(small, torch.ones_like(x), x)
        # Debye's integral of t / (e^t − 1); beyond 40 the integrand is below 1e-15.
        upper = safe.clamp_max(40.0)
        t = 0.5 * upper[..., None] * (_NODES.to(x.device) + 1)
        integral = 0.5 * upper * ((t / torch.expm1(t)) @ _WEIGHTS.to(x.device))
        return torch.where(small, series * x, 1 - 4 / safe + 4 * integral / safe.square()).to(theta.dtype)

    @staticmethod
    def _theta_of(tau: Tensor) -> Tensor:
        return increasing_inverse(FrankCopula._tau_of, tau.clamp_min(1e-7), 1e-8, 1e8)

    @staticmethod
    def _tails(theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def tau(self) -> Tensor:
        return self._tau_of(self._strength) * torch.where(self._theta < 0, -1.0, 1.0).to(self._theta.dtype)

    @classmethod
    def _tau_range(cls, modalities: int) -> tuple[float, float]:
        return (-1.0, 1.0) if modalities == 2 else (0.0, 1.0)

    @classmethod
    def _from_strength_tau(cls, tau: Tensor) -> Tensor:
        return cls._theta_of(tau.abs()) * torch.where(tau < 0, -1.0, 1.0).to(tau.dtype)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        made = super().from_theta(theta, modalities)
        if modalities > 2 and bool((theta <= 0).any()):
            found = theta.tolist()
            raise ConfigError(f"theta: the frank copula of {modalities} coordinates needs theta > 0, found {found}; pass tau or mend it")
        return made

    @classmethod
    def _theta_range(cls, modalities: int) -> str:
        return "a finite theta" if modalities == 2 else "theta > 0"

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        """As for other families; for M = 2 the site holds tau / MAX_TAU in (−1, 1), with density proportional to 1 − x²."""
        if modalities > 2:
            return super().site_priors(modalities, batch_shape)
        return {"": SymmetricBeta(torch.tensor(2.0)).expand(batch_shape).to_event(len(batch_shape))}

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        return super().site_meanings(modalities) if modalities > 2 else {"": f"tau / {MAX_TAU}, Kendall's, of either sign"}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        if modalities > 2:
            return super().from_sites(values, modalities, like)
        return cls(cls._from_strength_tau(MAX_TAU * values[""]), modalities, validate_args=False)

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        if tau.shape[-1] > 2:
            return super().sites_from_tau(tau)
        return {"": mean_of_pairs(tau).clamp(-0.95, 0.95) / MAX_TAU}


class SymmetricBeta(dist.TransformedDistribution):
    """2 X − 1 with X ~ Beta(concentration, concentration): a density on (−1, 1) proportional to (1 − x²)^(concentration − 1)."""

    arg_constraints = {"concentration": constraints.positive}  # noqa: RUF012
    support = constraints.interval(-1.0, 1.0)

    def __init__(self, concentration: Tensor | float, validate_args: bool | None = None) -> None:
        self.concentration = concentration if isinstance(concentration, Tensor) else torch.tensor(float(concentration))
        super().__init__(dist.Beta(self.concentration, self.concentration), [AffineTransform(-1.0, 2.0)], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "SymmetricBeta":
        return SymmetricBeta(self.concentration.expand(batch_shape), validate_args=False)


def _log_h(y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """log h and log(1 − h) of h = p e^−t, log t = y."""
    t = y.exp()
    return log1mexp_exp(theta.log()) - t, torch.logaddexp(log1mexp_exp(y), -theta - t)


def _polynomial(n: int, h: Tensor, rest: Tensor) -> Tensor:
    """Σ_{k<n} k! S(n, k + 1) h^k rest^(n−1−k), rest = 1 − h."""
    return homogeneous([float(math.factorial(k) * stirling2(n, k + 1)) for k in range(n)], h, rest)

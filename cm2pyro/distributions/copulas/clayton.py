"""Clayton copulas."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cm2pyro.distributions.copulas.archimedean import ArchimedeanCopula
from cm2pyro.distributions.special import in_order, log1mexp_exp, log_ndtr, log_neg_log_ndtr, log_plus_one, one_minus_exp, softplus


class ClaytonCopula(ArchimedeanCopula):
    """Clayton copula, for any number of coordinates.

    log c(u) = Σ_{k<M} log(1 + kθ) − (1 + θ) Σ log u_m − (M + 1/θ) log(Σ u_m^−θ − M + 1)

    Generator ψ(t) = (1 + t)^(−1/θ). Range: θ > 0; Kendall's tau θ/(θ + 2), in (0, 1). Tail dependence: lower 2^(−1/θ),
    upper 0. Source: Clayton (1978), Biometrika 65; Hofert, Mächler & McNeil (2012), Journal of Multivariate Analysis 110.
    """

    family = "clayton"
    has_independence = False

    @staticmethod
    def _log_density_of(s: Sequence[Tensor], theta: Tensor) -> Tensor:
        # With a = log u and a* the smallest the sum is e^(−θ a*) (1 + rest): nothing overflows.
        n = len(s)
        a = [log_ndtr(x) for x in s]
        least, most = in_order(a[0], a[1])
        excess = least - most  # Σ (a* − a_m)
        rest = (theta * excess).exp() * one_minus_exp(theta * most)
        for i, x in enumerate(a[2:], start=2):
            new, most = in_order(least, x)
            fall = new - least
            rest = rest * (theta * fall).exp() + (theta * (new - most)).exp() * one_minus_exp(theta * most)
            excess, least = excess + i * fall + (new - x), new
        constant = torch.stack([torch.log1p(k * theta) for k in range(1, n)]).sum(0)
        return constant + (1 + theta) * excess - (n - 1) * least - (n + 1 / theta) * log_plus_one(rest)

    @staticmethod
    def _log_inverse(s: Tensor, theta: Tensor) -> Tensor:
        b, log_b = log_neg_log_ndtr(s)
        return theta * b + log1mexp_exp(theta.log() + log_b)

    @staticmethod
    def _log_generator(y: Tensor, theta: Tensor) -> Tensor:
        return -softplus(y) / theta

    @staticmethod
    def _log_ratio(k: int, before: Tensor, new: Tensor, theta: Tensor) -> Tensor:
        return -(1 / theta + k) * softplus(new - softplus(before))

    @staticmethod
    def _tau_of(theta: Tensor) -> Tensor:
        return theta / (theta + 2)

    @staticmethod
    def _theta_of(tau: Tensor) -> Tensor:
        return 2 * tau / (1 - tau)

    @staticmethod
    def _tails(theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.exp2(-1 / theta), torch.zeros_like(theta)


class SurvivalClayton(ClaytonCopula):
    """Survival Clayton copula (180°): c(1 − u_1, …, 1 − u_M) of Clayton's. Tail dependence: lower 0, upper 2^(−1/θ)."""

    family = "survival_clayton"
    reflects = "all"


class Clayton90(ClaytonCopula):
    """Clayton copula rotated by 90°: c(1 − u_1, u_2) of Clayton's. M = 2; Kendall's tau −θ/(θ + 2), in (−1, 0)."""

    family = "clayton_90"
    reflects = "first"


class Clayton270(ClaytonCopula):
    """Clayton copula rotated by 270°: c(u_1, 1 − u_2) of Clayton's. M = 2; Kendall's tau −θ/(θ + 2), in (−1, 0)."""

    family = "clayton_270"
    reflects = "second"

"""Gumbel copulas."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.archimedean import ArchimedeanCopula
from cm2pyro.distributions.special import in_order, log_neg_log_ndtr, log_plus_one, softplus


class GumbelCopula(ArchimedeanCopula):
    """Gumbel copula, for any number of coordinates.

    log c(u) = M log θ − x + Σ [(θ − 1) log(−log u_m) − log u_m] − M log t + log Σ_{k=1}^M a_Mk x^k,
    t = Σ (−log u_m)^θ, x = t^(1/θ)

    Generator ψ(t) = exp(−t^(1/θ)). Range: θ >= 1, independence at 1; Kendall's tau 1 − 1/θ, in [0, 1). Tail dependence:
    lower 0, upper 2 − 2^(1/θ). Source: Gumbel (1960), Publications de l'ISUP 9; Hofert, Mächler & McNeil (2012),
    Journal of Multivariate Analysis 110, for a_Mk.
    """

    family = "gumbel"
    arg_constraints = {"theta": constraints.greater_than_eq(1.0)}  # noqa: RUF012

    @staticmethod
    def _log_density_of(s: Sequence[Tensor], theta: Tensor) -> Tensor:
        # On l = log b, b = −log u, with the largest l taken out of the sum.
        n = len(s)
        pairs = [log_neg_log_ndtr(x) for x in s]
        (b, l0), (b1, l1) = pairs[:2]
        b, (others, most) = b + b1, in_order(l0, l1)  # Σ b, Σ l − l*, l*
        excess = others - most  # Σ (l_m − l*)
        d = log_plus_one((theta * excess).exp())
        for i, (b_m, x) in enumerate(pairs[2:], start=2):
            least, new = in_order(most, x)
            d = torch.logaddexp(d + theta * (most - new), theta * (x - new))
            excess, others = excess + i * (most - new) + (x - new), others + least
            b, most = b + b_m, new
        alpha = 1 / theta
        x = (most + alpha * d).exp()
        bulk = theta * excess - others + (alpha - n) * d
        return n * theta.log() + bulk + (b - x) + _horner(_coefficients(n, alpha), x).log()

    @staticmethod
    def _log_inverse(s: Tensor, theta: Tensor) -> Tensor:
        return theta * log_neg_log_ndtr(s)[1]

    @staticmethod
    def _log_generator(y: Tensor, theta: Tensor) -> Tensor:
        return -(y / theta).exp()

    @staticmethod
    def _log_ratio(k: int, before: Tensor, new: Tensor, theta: Tensor) -> Tensor:
        alpha, rise = 1 / theta, softplus(new - before)
        x = (alpha * before).exp()
        growth = (alpha * (before + rise)).exp() * -torch.expm1(-alpha * rise)
        a = _coefficients(k, alpha)
        return -growth + (alpha - k) * rise + _horner(a, x + growth).log() - _horner(a, x).log()

    @staticmethod
    def _tau_of(theta: Tensor) -> Tensor:
        return 1 - 1 / theta

    @staticmethod
    def _theta_of(tau: Tensor) -> Tensor:
        return 1 / (1 - tau)

    @staticmethod
    def _tails(theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(theta), 2 - torch.exp2(1 / theta)


def _coefficients(n: int, alpha: Tensor) -> list[Tensor]:
    """a_n1 … a_nn by a_(k+1)j = α a_k(j−1) + (k − α j) a_kj, whose terms are all positive: nothing cancels."""
    a = [alpha]
    for k in range(1, n):
        longer = [(k - alpha) * a[0]]
        longer += [alpha * a[j - 2] + (k - alpha * j) * a[j - 1] for j in range(2, k + 1)]
        a = [*longer, alpha * a[-1]]
    return a


def _horner(a: list[Tensor], x: Tensor) -> Tensor:
    """Σ a_j x^(j−1), never below the least normal number."""
    total = a[-1]
    for weight in reversed(a[:-1]):
        total = total * x + weight
    return total.clamp_min(torch.finfo(x.dtype).tiny)


class SurvivalGumbel(GumbelCopula):
    """Survival Gumbel copula (180°): c(1 − u_1, …, 1 − u_M) of Gumbel's. Tail dependence: lower 2 − 2^(1/θ), upper 0."""

    family = "survival_gumbel"
    reflects = "all"


class Gumbel90(GumbelCopula):
    """Gumbel copula rotated by 90°: c(1 − u_1, u_2) of Gumbel's. M = 2; Kendall's tau 1/θ − 1, in (−1, 0]."""

    family = "gumbel_90"
    reflects = "first"


class Gumbel270(GumbelCopula):
    """Gumbel copula rotated by 270°: c(u_1, 1 − u_2) of Gumbel's. M = 2; Kendall's tau 1/θ − 1, in (−1, 0]."""

    family = "gumbel_270"
    reflects = "second"

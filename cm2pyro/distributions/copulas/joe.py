"""Joe copulas."""

from collections.abc import Sequence

import scipy.special
import torch
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.archimedean import ArchimedeanCopula
from cm2pyro.distributions.copulas.inversion import increasing_inverse
from cm2pyro.distributions.copulas.polynomials import homogeneous, stirling2
from cm2pyro.distributions.special import in_order, log1mexp_exp, log_ndtr, log_neg_log, log_neg_log_ndtr, one_minus_exp, softplus

# (−1)^(n+1) (ζ(n + 1) − 1), n = 1 … 60: the Taylor series of [digamma(2 + h) − digamma(2)] / h, which converges for |h| < 2.
_ZETA = torch.from_numpy(scipy.special.zetac(range(2, 62))) * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(30)


class JoeCopula(ArchimedeanCopula):
    """Joe copula, for any number of coordinates.

    log c(u) = (M − 1) log θ + (θ − 1) Σ log(1 − u_m) − (1 − 1/θ) log(1 − h) + log Σ_{k<M} S(M, k + 1) (k − 1/θ)_k x^k,
    h = Π (1 − (1 − u_m)^θ), x = h / (1 − h), S Stirling numbers of the second kind, (·)_k falling factorials

    Generator ψ(t) = 1 − (1 − e^(−t))^(1/θ). Range: θ >= 1, independence at 1; Kendall's tau
    1 + 2 [digamma(2) − digamma(2/θ + 1)] / (2 − θ), in [0, 1). Tail dependence: lower 0, upper 2 − 2^(1/θ). Source: Joe
    (1993), Journal of Multivariate Analysis 46; Hofert, Mächler & McNeil (2012), ibid. 110.
    """

    family = "joe"
    arg_constraints = {"theta": constraints.greater_than_eq(1.0)}  # noqa: RUF012

    @staticmethod
    def _log_density_of(s: Sequence[Tensor], theta: Tensor) -> Tensor:
        # A_m = θ log(1 − u_m); 1 − h = e^A* W with A* the largest and W in [1, M].
        n = len(s)
        A = [theta * log_ndtr(-x) for x in s]
        least, most = in_order(A[0], A[1])
        excess = least - most  # Σ (A_m − A*)
        rest = one_minus_exp(most)
        W, h = 1 + rest * excess.exp(), rest * one_minus_exp(least)
        for i, x in enumerate(A[2:], start=2):
            _, new = in_order(most, x)
            before, now = most - new, x - new
            W, excess = W * before.exp() + h * now.exp(), excess + i * before + now
            most, h = new, h * one_minus_exp(x)
        alpha = 1 / theta
        rest = most.exp() * W if n > 2 else 1 - h
        bulk = (1 - alpha) * excess - alpha * (n - 1) * most - (n - alpha) * W.log()
        return (n - 1) * theta.log() + bulk + _polynomial(n, alpha, h, rest).log()

    @staticmethod
    def _log_inverse(s: Tensor, theta: Tensor) -> Tensor:
        log_a = theta * log_ndtr(-s)
        return log_neg_log(log1mexp_exp(theta.log() + log_neg_log_ndtr(-s)[1]), log_a)

    @staticmethod
    def _log_generator(y: Tensor, theta: Tensor) -> Tensor:
        return log1mexp_exp(log_neg_log(log1mexp_exp(y), -y.exp()) - theta.log())

    @staticmethod
    def _log_ratio(k: int, before: Tensor, new: Tensor, theta: Tensor) -> Tensor:
        # With h = e^−t: (1 − h_after) / (1 − h) = 1 + (1 − e^−t_new) h / (1 − h).
        alpha, t, log_rest = 1 / theta, before.exp(), log1mexp_exp(before)
        rise = softplus(log1mexp_exp(new) - t - log_rest)
        h, rest, fall = (-t).exp(), log_rest.exp(), new.exp()
        after, polynomial = h * (-fall).exp(), _polynomial(k, alpha, h, rest)
        return -fall + (alpha - k) * rise + _polynomial(k, alpha, after, rest + h * -torch.expm1(-fall)).log() - polynomial.log()

    @staticmethod
    def _tau_of(theta: Tensor) -> Tensor:
        # With h = 2/θ − 1, digamma(2/θ + 1) − digamma(2) = h (series), and 2 − θ = θ h: no singularity at θ = 2.
        h = 2 / theta.double() - 1
        series = h[..., None] ** torch.arange(60, device=h.device) @ _ZETA.to(h.device)
        return (1 - 2 / theta * series).to(theta.dtype)

    @staticmethod
    def _theta_of(tau: Tensor) -> Tensor:
        return increasing_inverse(JoeCopula._tau_of, tau, 1 - 1e-12, 1e6).clamp_min(1.0)

    @staticmethod
    def _tails(theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(theta), 2 - torch.exp2(1 / theta)


def _polynomial(n: int, alpha: Tensor, h: Tensor, rest: Tensor) -> Tensor:
    """Σ_{k<n} S(n, k + 1) (k − α)_k h^k rest^(n−1−k), rest = 1 − h; never below the least normal number."""
    weights: list[Tensor | float] = [1.0]
    falling = torch.ones_like(alpha)
    for k in range(1, n):
        falling = falling * (k - alpha)
        weights.append(stirling2(n, k + 1) * falling)
    return homogeneous(weights, h, rest).clamp_min(torch.finfo(h.dtype).tiny)


class SurvivalJoe(JoeCopula):
    """Survival Joe copula (180°): c(1 − u_1, …, 1 − u_M) of Joe's. Tail dependence: lower 2 − 2^(1/θ), upper 0."""

    family = "survival_joe"
    reflects = "all"


class Joe90(JoeCopula):
    """Joe copula rotated by 90°: c(1 − u_1, u_2) of Joe's. M = 2; Kendall's tau is minus Joe's, in (−1, 0]."""

    family = "joe_90"
    reflects = "first"


class Joe270(JoeCopula):
    """Joe copula rotated by 270°: c(u_1, 1 − u_2) of Joe's. M = 2; Kendall's tau is minus Joe's, in (−1, 0]."""

    family = "joe_270"
    reflects = "second"

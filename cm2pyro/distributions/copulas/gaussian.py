"""The Gaussian copula."""

import math
from typing import ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import MAX_TAU, Copula, Shape
from cm2pyro.distributions.copulas.patterns import distinct_patterns
from cm2pyro.errors import ConfigError

MAX_CORRELATION = math.sin(math.pi / 2 * MAX_TAU)


class GaussianCopula(Copula):
    """Gaussian copula with a dense correlation matrix R.

    log c(u) = -1/2 log det R - 1/2 s' (R^-1 - I) s,  s = Phi^-1(u)

    Range: R any correlation matrix; Kendall's tau between coordinates i and j is (2/pi) arcsin R_ij, in (-1, 1).
    No tail dependence for |R_ij| < 1. Source: Song (2000), Scandinavian Journal of Statistics 27.

    Args:
        scale_tril: (..., M, M) Cholesky factor of R; leading shape () or (D,).
    """

    family = "gaussian"
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"scale_tril": constraints.corr_cholesky}

    def __init__(self, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        self.scale_tril = scale_tril
        super().__init__(scale_tril.shape[-1], scale_tril.shape[:-2], validate_args)

    @property
    def correlation(self) -> Tensor:
        """R, (..., M, M)."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def theta(self) -> Tensor:
        return self.correlation

    @property
    def theta_like(self) -> Tensor:
        return self.scale_tril

    def tau(self) -> Tensor:
        """Kendall's tau of every pair, (..., M, M), with ones on the diagonal."""
        eye = _identity_like(self.scale_tril)
        # The diagonal is left out of asin, whose derivative is infinite at 1.
        return 2 / math.pi * torch.asin((self.correlation * (1 - eye)).clamp(-1, 1)) + eye

    def _log_density(self, s: Tensor, observed: Tensor | None) -> Tensor:
        tril, index = self.scale_tril, None
        if observed is not None:
            patterns, index = distinct_patterns(observed)
            tril = torch.linalg.cholesky(_observed_block(self.correlation, _lift(patterns, self)))
        # Whitening keeps float32 exact near |tau| = 0.99, where s' R^-1 s would cancel.
        white = torch.linalg.solve_triangular(tril, _identity_like(tril), upper=False)
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if index is not None:
            white, half_log_det = self._rows(white, index), self._rows(half_log_det, index)
        white = torch.einsum("...ij,...j->...i", white, s)
        return -half_log_det - 0.5 * (white.square() - s.square()).sum(-1)

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
        regression, residual, index = self._regression(observed)
        tril = torch.linalg.cholesky(residual)
        loc = torch.einsum("...ij,...j->...i", self._rows(regression, index), s)
        return loc + torch.einsum("...ij,...j->...i", self._rows(tril, index), noise)

    def conditional_margin(self, s: Tensor, m: int, given: Tensor) -> tuple[Tensor, Tensor]:
        s_given = torch.where(given, s, torch.zeros((), dtype=s.dtype, device=s.device))
        regression, residual, index = self._regression(given)
        loc = torch.einsum("...j,...j->...", self._rows(regression[..., m, :], index), s_given)
        scale = self._rows(residual[..., m, m], index).sqrt()
        normal = torch.distributions.Normal(loc, scale, validate_args=False)
        return normal.cdf(s[..., m]), normal.log_prob(s[..., m])

    def _regression(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Regression of the other coordinates on the given ones, per pattern.

        Returns:
            coefficients (P, ..., M, M), zero outside [other, given]; residual covariance (P, ..., M, M), identity on
            given coordinates; index of each row's pattern.
        """
        patterns, index = distinct_patterns(given)
        o = _lift(patterns, self)
        R = self.correlation
        cross = R * (~o)[..., :, None] * o[..., None, :]
        coefficients = torch.cholesky_solve(cross.mT, torch.linalg.cholesky(_observed_block(R, o))).mT
        residual = _observed_block(R, ~o) - coefficients @ cross.mT
        return coefficients, residual, index

    def _rows(self, table: Tensor, index: Tensor) -> Tensor:
        """Pick each row's pattern from a table (P, *batch, ...): index (..., D or 1) for batch shape (D,), else (...,)."""
        if not self.batch_shape:
            return table[index]
        dimensions = torch.arange(self.batch_shape[0], device=index.device)
        return table[index, dimensions]

    def select(self, dimension: int) -> Self:
        return type(self)(self.scale_tril[dimension], validate_args=False) if self.batch_shape else self

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return type(self)(self.scale_tril.expand(*batch_shape, *self.scale_tril.shape[-2:]), validate_args=False)

    @classmethod
    def from_correlation(cls, correlation: Tensor) -> Self:
        """Raises ConfigError unless `correlation` (..., M, M) is a positive definite correlation matrix."""
        symmetric = torch.allclose(correlation, correlation.mT, atol=1e-6)
        unit = torch.allclose(correlation.diagonal(dim1=-2, dim2=-1), correlation.new_ones(()), atol=1e-6)
        tril, info = torch.linalg.cholesky_ex(correlation)
        if not symmetric or not unit or bool(info.any()):
            raise ConfigError(
                "correlation: not a correlation matrix (symmetric, ones on the diagonal, positive definite); "
                f"found {correlation.tolist()}; mend the matrix or pass tau"
            )
        return cls(tril)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        if theta.shape[-2:] != (modalities, modalities):
            raise ConfigError(
                f"correlation: expected (..., {modalities}, {modalities}), found {tuple(theta.shape)}; pass tau for one value for all pairs"
            )
        return cls.from_correlation(theta)

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        rho = torch.sin(math.pi / 2 * tau)
        lowest = -1 / (modalities - 1)
        if bool((tau.abs() >= 1).any()) or bool((rho <= lowest).any()):
            least = 2 / math.pi * math.asin(lowest)
            raise ConfigError(
                f"tau: {modalities} coordinates with one Kendall's tau for all pairs need {least:.3f} < tau < 1, found {tau.tolist()}"
            )
        eye = torch.eye(modalities, dtype=tau.dtype, device=tau.device)
        return cls.from_correlation(rho[..., None, None] * (1 - eye) + eye)

    @classmethod
    def default_prior(cls, modalities: int, batch_shape: torch.Size) -> TorchDistribution | None:
        return dist.LKJCholesky(modalities, torch.tensor(2.0)).expand(batch_shape).to_event(len(batch_shape))

    @classmethod
    def from_site(cls, value: Tensor | None, modalities: int) -> Self:
        if value is None:
            raise ConfigError("the gaussian copula needs a value of its site")
        # Shrinking towards the identity keeps |R_ij| <= MAX_CORRELATION for every pair and R positive definite, with a
        # gradient everywhere.
        eye = _identity_like(value)
        return cls(torch.linalg.cholesky(MAX_CORRELATION * (value @ value.mT) + (1 - MAX_CORRELATION) * eye), validate_args=False)

    @classmethod
    def site_from_tau(cls, tau: Tensor) -> Tensor | None:
        eye = _identity_like(tau)
        R = torch.sin(math.pi / 2 * tau.clamp(-0.95, 0.95)) * (1 - eye) + eye
        values, vectors = torch.linalg.eigh((R + R.mT) / 2)
        R = vectors @ torch.diag_embed(values.clamp_min(0.02)) @ vectors.mT
        sd = R.diagonal(dim1=-2, dim2=-1).sqrt()
        R = R / (sd[..., :, None] * sd[..., None, :])
        # The inverse of the shrinkage in `from_site`.
        return torch.linalg.cholesky((R - (1 - MAX_CORRELATION) * eye) / MAX_CORRELATION)


def _identity_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _observed_block(R: Tensor, o: Tensor) -> Tensor:
    """R on the coordinates in o (..., M) bool, the identity on the others."""
    return R * (o[..., :, None] & o[..., None, :]) + torch.diag_embed((~o).to(R.dtype))


def _lift(patterns: Tensor, copula: Copula) -> Tensor:
    """(P, M) -> (P, 1 per batch dimension, M), to broadcast against the batch shape."""
    return patterns.reshape(patterns.shape[0], *([1] * len(copula.batch_shape)), patterns.shape[1])

"""What the Gaussian and the Student-t copula share: a correlation matrix and everything about it."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import MAX_TAU, Copula, Shape
from cm2pyro.distributions.linalg import cholesky, identity_like
from cm2pyro.errors import ConfigError

MAX_CORRELATION = math.sin(math.pi / 2 * MAX_TAU)


class EllipticalCopula(Copula):
    """A copula with a dense correlation matrix R; Kendall's tau between i and j is (2/pi) arcsin R_ij.

    Source of the latter: Lindskog, McNeil & Schmock (2003), in Credit Risk, Physica-Verlag.

    Args:
        scale_tril: (..., M, M) Cholesky factor of R; leading shape () or (D,).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"scale_tril": constraints.corr_cholesky}

    def __init__(self, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        self.scale_tril = scale_tril
        super().__init__(scale_tril.shape[-1], scale_tril.shape[:-2], validate_args)

    def _with(self, scale_tril: Tensor, index: Any = ...) -> Self:
        """The same family with another Cholesky factor; `index` picks the other parameters."""
        raise NotImplementedError

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
        eye = identity_like(self.scale_tril)
        # The diagonal is left out of asin, whose derivative is infinite at 1.
        return 2 / math.pi * torch.asin((self.correlation * (1 - eye)).clamp(-1, 1)) + eye

    def margin(self, coordinates: Sequence[int]) -> Self:
        if tuple(coordinates) == tuple(range(self.modalities)):
            return self
        index = list(coordinates)
        return self._with(cholesky(self.correlation[..., index, :][..., index]))

    def select(self, index: int | Tensor) -> Self:
        return self._with(self.scale_tril[index], index) if self.batch_shape else self

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return self._with(self.scale_tril.expand(*batch_shape, *self.scale_tril.shape[-2:]))

    def _whiten(self) -> tuple[Tensor, Tensor]:
        """The inverse Cholesky factor (..., M, M), and half the log determinant of R.

        Whitening keeps float32 exact near |tau| = 0.99, where s' R^-1 s would cancel.
        """
        white = torch.linalg.solve_triangular(self.scale_tril, identity_like(self.scale_tril), upper=False)
        return white, self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _regression(self, given: tuple[int, ...], others: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Coefficients (..., M − k, k) of the others on the given coordinates, and the residual covariance (..., M − k, M − k)."""
        R = self.correlation
        a, b = list(others), list(given)
        within = R[..., a, :][..., a]
        if not b:
            return R.new_zeros(*R.shape[:-2], len(a), 0), within
        cross = R[..., a, :][..., b]
        coefficients = torch.cholesky_solve(cross.mT, cholesky(R[..., b, :][..., b])).mT
        return coefficients, within - coefficients @ cross.mT

    @classmethod
    def _make(cls, scale_tril: Tensor) -> Self:
        """The family's member with that Cholesky factor and defaults for the rest."""
        raise NotImplementedError

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
        return cls._make(tril)

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
        if not bool((tau.abs() < 1).all()) or bool((rho <= lowest).any()):
            least = 2 / math.pi * math.asin(lowest)
            raise ConfigError(
                f"tau: {modalities} coordinates with one Kendall's tau for all pairs need {least:.3f} < tau < 1, found {tau.tolist()}; "
                "choose such a value, or pass correlation"
            )
        eye = torch.eye(modalities, dtype=tau.dtype, device=tau.device)
        return cls.from_correlation(rho[..., None, None] * (1 - eye) + eye)

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        return {"": dist.LKJCholesky(modalities, torch.tensor(2.0)).expand(batch_shape).to_event(len(batch_shape))}

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        return {"": f"Cholesky factor of the correlation matrix, before correlations are multiplied by {MAX_CORRELATION:.4g}"}

    @staticmethod
    def _shrunk(value: Tensor) -> Tensor:
        """Shrunk towards the identity, |R_ij| <= MAX_CORRELATION for every pair and R is positive definite, with a gradient everywhere."""
        return cholesky(MAX_CORRELATION * (value @ value.mT) + (1 - MAX_CORRELATION) * identity_like(value))

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        eye = identity_like(tau)
        R = torch.sin(math.pi / 2 * tau.clamp(-0.95, 0.95)) * (1 - eye) + eye
        values, vectors = torch.linalg.eigh((R + R.mT) / 2)
        R = vectors @ torch.diag_embed(values.clamp_min(0.02)) @ vectors.mT
        sd = R.diagonal(dim1=-2, dim2=-1).sqrt()
        R = R / (sd[..., :, None] * sd[..., None, :])
        # The inverse of `_shrunk`.
        return {"": cholesky((R - (1 - MAX_CORRELATION) * eye) / MAX_CORRELATION)}

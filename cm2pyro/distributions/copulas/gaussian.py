"""The Gaussian copula."""

from typing import Any, Self

import torch
from torch import Tensor

from cm2pyro.distributions.copulas.elliptical import EllipticalCopula


class GaussianCopula(EllipticalCopula):
    """Gaussian copula with a dense correlation matrix R.

    log c(u) = -1/2 log det R - 1/2 s' (R^-1 - I) s,  s = Phi^-1(u)

    Range: R any correlation matrix; Kendall's tau between coordinates i and j is (2/pi) arcsin R_ij, in (-1, 1).
    No tail dependence for |R_ij| < 1. Source: Song (2000), Scandinavian Journal of Statistics 27.

    Args:
        scale_tril: (..., M, M) Cholesky factor of R; leading shape () or (D,).
    """

    family = "gaussian"

    def _with(self, scale_tril: Tensor, index: Any = ...) -> Self:
        return type(self)(scale_tril, validate_args=False)

    @classmethod
    def _make(cls, scale_tril: Tensor) -> Self:
        return cls(scale_tril)

    def _log_density(self, s: Tensor) -> Tensor:
        white, half_log_det = self._whiten()
        x = s.unbind(-1)
        total: Tensor | float = 0.0
        for i, row in enumerate(white):
            z = row[0] * x[0]
            for j in range(1, i + 1):
                z = z + row[j] * x[j]
            total = total + (z - x[i]) * (z + x[i])
        return -half_log_det - 0.5 * total

    def _complete(self, given: tuple[int, ...], s: Tensor, noise: Tensor) -> Tensor:
        others = tuple(m for m in range(self.modalities) if m not in given)
        coefficients, residual = self._regression(given, others)
        loc = torch.einsum("...ij,...j->...i", coefficients, s)
        return loc + torch.einsum("...ij,...j->...i", torch.linalg.cholesky(residual), noise)

    def _conditional_cdf(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> Tensor:
        coefficients, residual = self._regression(given, (m,))
        loc = torch.einsum("...j,...j->...", coefficients[..., 0, :].double(), s.double())
        return torch.special.ndtr((value.double() - loc) / residual[..., 0, 0].double().sqrt())

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        """(0, 0) for every pair, (..., M, M); ones on the diagonal."""
        eye = torch.eye(self.modalities, dtype=self.scale_tril.dtype, device=self.scale_tril.device).expand_as(self.scale_tril)
        return eye, eye

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        return cls(cls._shrunk(values[""]), validate_args=False)

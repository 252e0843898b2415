"""The Gaussian copula."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd import Function

from cm2pyro.distributions import special
from cm2pyro.distributions.copulas.elliptical import EllipticalCopula
from cm2pyro.distributions.copulas.patterns import distinct
from cm2pyro.distributions.linalg import cholesky, identity_like
from cm2pyro.distributions.special import log_ndtr

_SMALL = 1 << 16  # numbers a pattern; beyond it the arithmetic outweighs the overhead of taking patterns one by one
_SMALL_ELSEWHERE = 1 << 26  # on an accelerator, where asking how many rows have a pattern waits for it; 256 MiB


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

    def log_prob_of(self, s: Sequence[Tensor], observed: Tensor | None = None) -> Tensor:
        if observed is None or not self._small(s, observed):
            return super().log_prob_of(s, observed)
        # A minibatch: pattern by pattern, the many small operations would take longer than the arithmetic. All rows at once, each
        # with the factor of its pattern, in which missing coordinates stand apart with variance 1 and value 0.
        values = torch.where(observed, torch.stack(torch.broadcast_tensors(*s), -1), s[0].new_zeros(()))
        if self._validate_args and bool(torch.isnan(values.detach()).any()):
            raise ValueError("log_prob: NaN in an observed coordinate")
        there, which = self._patterns(observed)
        R = torch.where(there[..., :, None] & there[..., None, :], self.correlation, identity_like(self.scale_tril))
        white, half_log_det = self._with(cholesky(R))._whiten()
        z = (white[which] * values[..., None, :]).sum(-1)
        return -half_log_det[which] - 0.5 * ((z - values) * (z + values)).sum(-1)

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor | None:
        # As in `log_prob_of`: one regression a pattern, whose factors have zeros where a coordinate takes no part.
        if not self._small(noise.unbind(-1), observed):
            return None
        there, which = self._patterns(observed)
        row, column = there[..., :, None], there[..., None, :]
        R, zero = self.correlation, self.scale_tril.new_zeros(())
        within = torch.where(row & column, R, identity_like(self.scale_tril))
        cross = torch.where(~row & column, R, zero)  # of missing coordinates with observed ones
        coefficients = torch.cholesky_solve(cross.mT, cholesky(within)).mT
        residual = torch.where(~row & ~column, R, identity_like(self.scale_tril)) - coefficients @ cross.mT
        loc = (coefficients[which] * s[..., None, :]).sum(-1)
        drawn = loc + (cholesky(residual)[which] * noise[..., None, :]).sum(-1)
        return torch.where(observed, s, drawn)

    def _patterns(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """The patterns, (P, 1 for each batch dimension, M), and which of them each row has."""
        inner = observed.dim() - 1 - len(self.batch_shape)
        there, which = distinct(observed.reshape(*observed.shape[:inner], observed.shape[-1]))
        return there.reshape(len(there), *[1] * len(self.batch_shape), self.modalities), which

    def _small(self, s: Sequence[Tensor], observed: Tensor) -> bool:
        """Whether the patterns vary over rows alone, and (..., M, M) of all values is small."""
        inner = observed.dim() - 1 - len(self.batch_shape)
        lead = torch.broadcast_shapes(s[0].shape, observed.shape[:-1], self.batch_shape)
        apart = inner >= 0 and all(size == 1 for size in observed.shape[inner:-1])
        patterns = min(2**self.modalities, math.prod(observed.shape[:inner])) if apart else 0
        most = _SMALL_ELSEWHERE if special.waits(observed.device) else min(_SMALL * patterns, _SMALL_ELSEWHERE)
        return apart and math.prod(lead) * self.modalities**2 <= most

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        white, half_log_det = self._whiten()
        return -half_log_det - _Form.apply(white, *s)

    def _complete(self, given: tuple[int, ...], s: Tensor, noise: Tensor) -> Tensor:
        others = tuple(m for m in range(self.modalities) if m not in given)
        coefficients, residual = self._regression(given, others)
        loc = torch.einsum("...ij,...j->...i", coefficients, s)
        return loc + torch.einsum("...ij,...j->...i", cholesky(residual), noise)

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        coefficients, residual = self._regression(given, (m,))
        loc = torch.einsum("...j,...j->...", coefficients[..., 0, :].double(), s.double())
        x = (value.double() - loc) / residual[..., 0, 0].double().sqrt()
        return log_ndtr(x), log_ndtr(-x)

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        """(0, 0) for every pair, (..., M, M); ones on the diagonal."""
        eye = identity_like(self.scale_tril).expand_as(self.scale_tril)
        return eye, eye

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        return cls(cls._shrunk(values[""]), validate_args=False)


class _Form(Function):
    """1/2 s'(R^-1 - I) s from W = L^-1 (..., M, M) and M coordinates; with its derivatives by hand it takes half the time."""

    @staticmethod
    def forward(ctx: Any, white: Tensor, *s: Tensor) -> Tensor:
        total: Tensor | None = None
        # The first row of W is that of the identity: it adds nothing.
        for i in range(1, len(s)):
            z = _row(white, i, s)
            term = (z - s[i]).mul_(z.add_(s[i]))
            total = term if total is None else total.add_(term)
        assert total is not None
        ctx.save_for_backward(white, *s)
        return total.mul_(0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        white, *s = ctx.saved_tensors
        for_s: list[Tensor | None] = [None] * len(s)
        for_white = torch.zeros_like(white) if ctx.needs_input_grad[0] else None
        for i in range(1, len(s)):
            z = _row(white, i, s) * grad
            for j in range(i + 1):
                own = white[..., i, j] * z
                before = for_s[j]
                for_s[j] = own if before is None else before + own
                if for_white is not None:
                    for_white[..., i, j] = (z * s[j]).sum_to_size(white.shape[:-2])
            for_s[i] = for_s[i] - s[i] * grad
        return for_white, *(None if g is None else g.sum_to_size(x.shape) for g, x in zip(for_s, s, strict=True))


def _row(white: Tensor, i: int, s: Sequence[Tensor]) -> Tensor:
    """Coordinate i of W s."""
    z = white[..., i, 0] * s[0]
    for j in range(1, i + 1):
        z = torch.addcmul(z, white[..., i, j], s[j])
    return z

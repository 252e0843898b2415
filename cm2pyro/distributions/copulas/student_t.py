"""The Student-t copula."""

from collections.abc import Sequence
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions import student
from cm2pyro.distributions.copulas.elliptical import EllipticalCopula
from cm2pyro.distributions.floored import Floored
from cm2pyro.distributions.linalg import cholesky, identity_like

LEAST_DF = 2.0
DEFAULT_DF = 4.0


class StudentTCopula(EllipticalCopula):
    """Student-t copula with a dense correlation matrix R and ν degrees of freedom.

    log c(u) = log t_{R,ν}(x) − Σ log t_ν(x_m),  x_m = t_ν⁻¹(u_m)

    Range: R any correlation matrix, ν > 2; Kendall's tau (2/pi) arcsin R_ij, in (−1, 1). Tail dependence, lower and upper:
    2 t_{ν+1}(−sqrt((ν + 1)(1 − R_ij) / (1 + R_ij))). Source: Demarta & McNeil (2005), International Statistical Review 73;
    for the conditional law Ding (2016), The American Statistician 70.

    Args:
        scale_tril: (..., M, M) Cholesky factor of R; leading shape () or (D,). df: ν, shape () or (D,).
    """

    family = "student_t"
    arg_constraints = {"scale_tril": constraints.corr_cholesky, "df": constraints.greater_than(LEAST_DF)}  # noqa: RUF012

    def __init__(self, scale_tril: Tensor, df: Tensor, validate_args: bool | None = None) -> None:
        self.df = df
        super().__init__(scale_tril, validate_args)

    def _with(self, scale_tril: Tensor, index: Any = ...) -> Self:
        return type(self)(scale_tril, self.df[index] if self.df.dim() else self.df, validate_args=False)

    @classmethod
    def _make(cls, scale_tril: Tensor) -> Self:
        return cls(scale_tril, scale_tril.new_tensor(DEFAULT_DF))

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        # x = sqrt(ν) sinh q; e^q* with the largest |q| is taken out of the quadratic form.
        n, df = self.modalities, self.df.to(s[0].dtype)
        q = student.scores_to_q(torch.stack(torch.broadcast_tensors(*s)), df)  # the coordinates come first
        white, half_log_det = self._whiten()
        most = q.detach().abs().amax(0)
        p = 0.5 * ((q - most).exp() - (-q - most).exp())
        form = (-2 * most).exp()
        for i in range(n):
            z = white[..., i, 0] * p[0]
            for j in range(1, i + 1):
                z = z + white[..., i, j] * p[j]
            form = form + z.square()
        constant = torch.lgamma((df + n) / 2) + (n - 1) * torch.lgamma(df / 2) - n * torch.lgamma((df + 1) / 2)
        heads = (df + 1) * student.log_cosh(q).sum(0)
        return constant - half_log_det - 0.5 * (df + n) * (2 * most + form.log()) + heads

    def _given(self, given: tuple[int, ...], q: Tensor, m: int, most: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of x_m / (sqrt(ν) e^most) given the others, for a t variable with ν + k degrees of freedom."""
        k, df = len(given), self.df.double()
        wide = type(self)(self.scale_tril.double(), df, validate_args=False)
        coefficients, residual = wide._regression(given, (m,))
        p = 0.5 * ((q - most[..., None]).exp() - (-q - most[..., None]).exp())
        tril = cholesky(wide.correlation[..., list(given), :][..., list(given)])
        white = torch.linalg.solve_triangular(tril, identity_like(tril), upper=False)
        form = (-2 * most).exp() + torch.einsum("...ij,...j->...i", white, p).square().sum(-1)
        loc = torch.einsum("...j,...j->...", coefficients[..., 0, :], p)
        return loc, (form * df / (df + k) * residual[..., 0, 0]).clamp_min(1e-300).sqrt()

    def _complete(self, given: tuple[int, ...], s: Tensor, noise: Tensor) -> Tensor:
        df = self.df.double()
        known, q = list(given), list(student.scores_to_q(s.double(), df[..., None]).unbind(-1)) if given else []
        drawn = []
        for i, m in enumerate(j for j in range(self.modalities) if j not in given):
            z = noise[..., i].double()
            k = len(known)
            if k == 0:
                q.append(student.scores_to_q(z, df))
                drawn.append(z)
            else:
                q_given = torch.stack([x.expand(z.shape) for x in q], -1)
                most = q_given.detach().abs().amax(-1)
                loc, scale = self._given(tuple(known), q_given, m, most)
                # t_{ν+k} = sqrt(ν + k) sinh(q'), and everything is in units of sqrt(ν).
                t = torch.sinh(student.scores_to_q(z, df + k)) * ((df + k) / df).sqrt()
                x = loc + scale * t
                q_new = torch.sign(x) * (most + (x.abs() + ((-2 * most).exp() + x.square()).sqrt()).log())
                q.append(q_new)
                drawn.append(student.q_to_scores(q_new, df))
            known.append(m)
        return torch.stack(drawn, -1).to(s.dtype)

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        df, k = self.df.double(), len(given)
        q = student.scores_to_q(torch.cat([s, value[..., None]], -1).double(), df[..., None])
        most = q.detach().abs().amax(-1)
        loc, scale = self._given(given, q[..., :-1], m, most)
        x = 0.5 * ((q[..., -1] - most).exp() - (-q[..., -1] - most).exp())
        # sqrt(ν) (x − loc) / (sqrt(ν) scale) is a t variable with ν + k degrees of freedom, once its units are mended.
        q_m = torch.asinh((x - loc) / scale / (df + k).sqrt() * df.sqrt())
        return student.log_tail(-q_m, df + k), student.log_tail(q_m, df + k)

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        """Lower and upper of every pair, (..., M, M), with ones on the diagonal."""
        eye = identity_like(self.scale_tril)
        R = self.correlation * (1 - eye)
        df = self.df[..., None, None] + 1
        x = (df * (1 - R) / (1 + R)).sqrt()
        both = 2 * student.cdf(-torch.asinh(x / df.sqrt()), df.expand_as(R)) * (1 - eye) + eye
        return both, both

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        """R as for the Gaussian copula; ν − 2 ~ Gamma(2, 0.1), after Juárez & Steel (2010), J. Business & Economic Statistics 28."""
        df = Floored(dist.Gamma(torch.tensor(2.0), torch.tensor(0.1)), LEAST_DF).expand(batch_shape).to_event(len(batch_shape))
        return {**super().site_priors(modalities, batch_shape), "df": df}

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        return {**super().site_meanings(modalities), "df": "degrees of freedom"}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        return cls(cls._shrunk(values[""]), values["df"], validate_args=False)

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        values = super().sites_from_tau(tau)
        return {**values, "df": torch.full(tau.shape[:-2], 8.0, dtype=tau.dtype, device=tau.device)}

"""What every copula family offers."""

from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

Shape = torch.Size | list[int] | tuple[int, ...]
# Kendall's tau of a learned copula stays inside (-0.99, 0.99): at +-1 the density is singular.
MAX_TAU = 0.99


class Copula(TorchDistribution):
    """An M-variate copula on normal scores s = Phi^-1(u).

    `log_prob(s)` is the log copula density log c(Phi(s_1), ..., Phi(s_M)), without the normal margins;
    `rsample` returns normal scores, whose margins are standard normal.

    Shapes: batch shape () (one copula) or (D,) (one per latent dimension); event shape (M,).

    A family implements `_log_density`, `_draw`, `conditional_margin`, `select`, `tau`, and for use as a learned prior
    `default_prior`, `from_site` and `site_from_tau`. A family without parameters returns None from `default_prior`.
    """

    family: ClassVar[str]
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, modalities: int, batch_shape: torch.Size, validate_args: bool | None = None) -> None:
        self.modalities = modalities
        super().__init__(batch_shape, torch.Size((modalities,)), validate_args=validate_args)

    # --- what a family implements -------------------------------------------------------------------------------

    def _log_density(self, s: Tensor, observed: Tensor | None) -> Tensor:
        """log c of the observed coordinates: s (..., M), zero where not observed; observed (..., M) bool or None for all -> (...,)."""
        raise NotImplementedError

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
        """Draw the coordinates that are not observed, given the others: noise (..., M) standard normal -> (..., M), differentiable."""
        raise NotImplementedError

    def conditional_margin(self, s: Tensor, m: int, given: Tensor) -> tuple[Tensor, Tensor]:
        """Law of coordinate m given the coordinates in `given`, on the scale of s.

        Args:
            s: (..., M) normal scores. m: index of the coordinate. given: (..., M) bool, False at m.

        Returns:
            F(s_m | s_given) in [0, 1] and the log density of s_m given s_given with respect to s_m, both (...,).
        """
        raise NotImplementedError

    def select(self, dimension: int) -> Self:
        """The copula of one latent dimension, with batch shape (); a tied copula returns itself."""
        raise NotImplementedError

    def tau(self) -> Tensor:
        """Kendall's tau: batch shape for families with one parameter, (..., M, M) for elliptical ones."""
        raise NotImplementedError

    @property
    def theta(self) -> Tensor:
        """The family's parameter."""
        raise NotImplementedError

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        """The member of the family with that Kendall's tau between every pair; tau has the batch shape."""
        raise NotImplementedError

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        """The member of the family with that parameter."""
        raise NotImplementedError

    @classmethod
    def default_prior(cls, modalities: int, batch_shape: torch.Size) -> TorchDistribution | None:
        """Default prior of the global site that holds the parameter, or None if there is none."""
        raise NotImplementedError

    @classmethod
    def from_site(cls, value: Tensor | None, modalities: int) -> Self:
        """The copula for a value of the global site, kept inside |tau| <= MAX_TAU."""
        raise NotImplementedError

    @classmethod
    def site_from_tau(cls, tau: Tensor) -> Tensor | None:
        """A value of the global site that comes near pairwise tau (..., M, M); used to start a fit."""
        raise NotImplementedError

    # --- what every family shares -------------------------------------------------------------------------------

    def log_prob(self, s: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log copula density of normal scores.

        Args:
            s: (..., M), broadcast against the batch shape. observed: (..., M) bool, rows with their own pattern; the
                others are marginalised exactly. With fewer than two coordinates observed the result is 0.

        Returns:
            (...,).
        """
        if observed is not None:
            # Masked before anything is computed: values that are not there may be NaN and must not reach a gradient.
            s = torch.where(observed, s, torch.zeros((), dtype=s.dtype, device=s.device))
        if self._validate_args:
            self._validate_sample(s)
        return self._log_density(s, observed)

    def rsample(self, sample_shape: Shape = torch.Size(), noise: Tensor | None = None) -> Tensor:
        """Differentiable draws: (*sample_shape, *batch_shape, M) normal scores. `noise` replaces the standard normal noise."""
        shape = self._extended_shape(torch.Size(sample_shape))
        s = torch.zeros(shape, dtype=self.theta_like.dtype, device=self.theta_like.device)
        return self.conditional(s, torch.zeros(shape, dtype=torch.bool, device=s.device)).rsample(noise=noise)

    def conditional(self, s: Tensor, observed: Tensor) -> "ConditionalCopula":
        """The law of the missing coordinates given the observed ones; each row has its own pattern.

        Args:
            s: (..., M) normal scores, anything (also NaN) where not observed. observed: (..., M) bool.
        """
        return ConditionalCopula(self, s, observed)

    @property
    def theta_like(self) -> Tensor:
        """A tensor with the copula's dtype and device."""
        return self.theta


class ConditionalCopula(TorchDistribution):
    """Missing coordinates given observed ones; `rsample` leaves the observed coordinates unchanged.

    `log_prob(s)` is log c(all) - log c(observed): the density of the missing coordinates given the observed ones, on
    the same scale as the copula's own `log_prob` (with respect to u, without normal margins).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, copula: Copula, s: Tensor, observed: Tensor) -> None:
        shape = torch.broadcast_shapes(s.shape, observed.shape, copula.batch_shape + copula.event_shape)
        self.copula = copula
        self.observed = observed
        self.s = torch.where(observed, s, torch.zeros((), dtype=s.dtype, device=s.device))
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def rsample(self, sample_shape: Shape = torch.Size(), noise: Tensor | None = None) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        s = self.s.expand(shape)
        if noise is None:
            noise = torch.randn(shape, dtype=s.dtype, device=s.device)
        return torch.where(self.observed, s, self.copula._draw(s, self.observed, noise))

    def log_prob(self, s: Tensor) -> Tensor:
        s = torch.where(self.observed, self.s, s)
        return self.copula.log_prob(s) - self.copula.log_prob(self.s, self.observed)

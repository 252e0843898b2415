"""What every copula family offers."""

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.conditional import ConditionalCopula
from cm2pyro.distributions.copulas.inversion import Law, attach, invert
from cm2pyro.distributions.copulas.patterns import Groups

Shape = torch.Size | list[int] | tuple[int, ...]
# Kendall's tau of a learned copula stays inside (-0.99, 0.99): at +-1 the density is singular.
MAX_TAU = 0.99
_BLOCK = 1 << 15  # rows whose intermediate results stay in a core's cache


class Copula(TorchDistribution):
    """An M-variate copula on normal scores s = Phi^-1(u).

    `log_prob(s)` is the log copula density log c(Phi(s_1), ..., Phi(s_M)), without the normal margins;
    `rsample` returns normal scores, whose margins are standard normal.

    Shapes: batch shape () (one copula) or (D,) (one per latent dimension); event shape (M,).

    A family implements `_log_density`, `_log_conditional`, `margin`, `select`, `tau`, `from_tau`, `from_theta` and
    `tail_dependence`, and for use as a learned prior `site_priors`, `from_sites` and `sites_from_tau`. Draws come from
    the conditional distribution functions by inversion; a family with a closed form overrides `_complete`.
    """

    family: ClassVar[str]
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, modalities: int, batch_shape: torch.Size, validate_args: bool | None = None) -> None:
        self.modalities = modalities
        super().__init__(batch_shape, torch.Size((modalities,)), validate_args=validate_args)

    # --- what a family implements -------------------------------------------------------------------------------

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        """log c of M coordinates, each (...,) -> (...,)."""
        raise NotImplementedError

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """log F(s_m | s_given) and log(1 − F) in float64: s (..., k) the values of `given`, k >= 1; value (...,) -> (...,)."""
        raise NotImplementedError

    def margin(self, coordinates: Sequence[int]) -> "Copula":
        """The copula of some of the coordinates, in the order given; at least two."""
        raise NotImplementedError

    def select(self, index: int | Tensor) -> Self:
        """The copulas of some latent dimensions: batch shape () for a number, that of the index for a long tensor."""
        raise NotImplementedError

    def tau(self) -> Tensor:
        """Kendall's tau: batch shape for families with one parameter, (..., M, M) for elliptical ones."""
        raise NotImplementedError

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        """Lower and upper tail dependence of a pair, limits of P(U_i <= q | U_j <= q) and its mirror image; shaped like `tau`."""
        raise NotImplementedError

    def log_cdf(self, s: Tensor) -> Tensor:
        """log C(Phi(s_1), ..., Phi(s_M)): s (..., M) -> (...,). Raises NotImplementedError where there is no closed form."""
        raise NotImplementedError(f"the {self.family} copula has no closed-form distribution function; estimate it from draws")

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
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        """Default priors of the global sites that hold the parameters: "" for the main one, a suffix for others."""
        raise NotImplementedError

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        """What the sites of `site_priors` hold, in a few words, for lists; a family of one's own may leave it out."""
        return {}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        """The copula for values of the global sites, kept inside |tau| <= MAX_TAU; `like` gives dtype and device."""
        raise NotImplementedError

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        """Values of the global sites that come near pairwise tau (..., M, M); used to start a fit."""
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
        # One pass instead of two; a NaN in the sum is then looked at closely.
        if observed is None and self._validate_args and bool(torch.isnan(s.detach().sum())):
            self._validate_sample(s)
        return self.log_prob_of(s.unbind(-1), observed)

    def log_prob_of(self, s: Sequence[Tensor], observed: Tensor | None = None) -> Tensor:
        """`log_prob` from M coordinates that lie apart in memory, each (...,): what the copula mixture computes with."""
        if observed is None:
            return self._in_blocks(s)
        # Values that are not there may be NaN: they are left out before anything is computed, and reach no gradient.
        lead = torch.broadcast_shapes(s[0].shape, observed.shape[:-1], self.batch_shape)
        groups = Groups(observed, lead, len(self.batch_shape))
        parts = []
        for p, pattern in enumerate(groups.patterns):
            some = [groups.part(p, s[m][..., None])[..., 0] for m in pattern]
            if self._validate_args and any(bool(torch.isnan(x.detach()).any()) for x in some):
                raise ValueError("log_prob: NaN in an observed coordinate")
            if len(pattern) > 1:
                parts.append(self._of_rows(groups.dimension[p]).margin(pattern)._in_blocks(some))
            else:
                parts.append(s[0].new_zeros(groups.size(p)))
        return groups.join(parts) if parts else s[0].new_zeros(lead)

    def rsample(self, sample_shape: Shape = torch.Size(), noise: Tensor | None = None) -> Tensor:
        """Differentiable draws: (*sample_shape, *batch_shape, M) normal scores. `noise` replaces the standard normal noise."""
        shape = self._extended_shape(torch.Size(sample_shape))
        s = torch.zeros(shape, dtype=self.theta_like.dtype, device=self.theta_like.device)
        return self.conditional(s, torch.zeros(self.modalities, dtype=torch.bool, device=s.device)).rsample(noise=noise)

    def conditional(self, s: Tensor, observed: Tensor) -> ConditionalCopula:
        """The law of the missing coordinates given the observed ones; each row has its own pattern.

        Args:
            s: (..., M) normal scores, anything (also NaN) where not observed. observed: (..., M) bool.
        """
        return ConditionalCopula(self, s, observed)

    def conditional_margin(self, s: Tensor, m: int, given: Tensor) -> tuple[Tensor, Tensor]:
        """Law of coordinate m given the coordinates in `given`, on the scale of s.

        Args:
            s: (..., M) normal scores. m: index of the coordinate. given: (..., M) bool, False at m.

        Returns:
            F(s_m | s_given) in [0, 1] and the log density of s_m given s_given with respect to s_m, both (...,).
        """
        shape = torch.broadcast_shapes(s.shape, given.shape, self.batch_shape + self.event_shape)
        groups = Groups(given, shape[:-1], len(self.batch_shape))
        parts = []
        for p, pattern in enumerate(groups.patterns):
            value, some = groups.part(p, s, (m,))[..., 0], groups.part(p, s, pattern)
            normal = torch.distributions.Normal(torch.zeros_like(value), torch.ones_like(value), validate_args=False)
            cdf, log_density = normal.cdf(value), normal.log_prob(value)
            if pattern:
                copula = self._of_rows(groups.dimension[p])
                cdf = copula._log_conditional(pattern, some, m, value)[0].exp().to(s.dtype)
                log_density = log_density + copula.margin((*pattern, m))._log_density([*some.unbind(-1), value])
                if len(pattern) > 1:
                    log_density = log_density - copula.margin(pattern)._log_density(some.unbind(-1))
            parts.append(torch.stack([cdf, log_density], -1))
        return groups.join(parts).unbind(-1)  # type: ignore[return-value]

    @property
    def theta_like(self) -> Tensor:
        """A tensor with the copula's dtype and device."""
        return self.theta

    def _of_rows(self, dimension: Tensor | None) -> Self:
        return self if dimension is None else self.select(dimension)

    def _in_blocks(self, s: Sequence[Tensor]) -> Tensor:
        """`_log_density`; where no gradient is asked for, in blocks of rows whose intermediate results stay in the cache."""
        first = s[0]
        rows, enough = first.numel(), 1 + len(self.batch_shape)
        tracked = torch.is_grad_enabled() and (self.theta_like.requires_grad or any(x.requires_grad for x in s))
        if rows <= 2 * _BLOCK or tracked or first.device.type != "cpu" or any(x.dim() < enough or len(x) < len(first) for x in s):
            return self._log_density([_apart(x) for x in s])
        size = max(1, _BLOCK * torch.get_num_threads() * len(first) // rows)
        return torch.cat([self._log_density([_apart(x[i : i + size]) for x in s]) for i in range(0, len(first), size)])

    def _complete(self, given: tuple[int, ...], s: Tensor, noise: Tensor) -> Tensor:
        """Draw the other coordinates, in increasing order, each given all before it.

        Args:
            s: (..., k) values of the coordinates `given`. noise: (..., M − k) standard normal.

        Returns:
            (..., M − k), increasing in its own noise, with exact implicit derivatives.
        """
        known, values = list(given), list(s.double().unbind(-1))
        drawn = []
        for i, m in enumerate(j for j in range(self.modalities) if j not in given):
            value = noise[..., i].double()
            if known:
                value = self._next(tuple(known), torch.stack([v.expand(value.shape) for v in values], -1), m, value)
            known.append(m)
            values.append(value)
            drawn.append(value)
        return torch.stack(drawn, -1).to(s.dtype)

    def _draw(self, s: Tensor, observed: Tensor, noise: Tensor) -> Tensor | None:
        """All rows at once, whatever their patterns: s and noise (..., M), observed broadcastable; None: pattern by pattern instead."""
        return None

    def _next(self, given: tuple[int, ...], s: Tensor, m: int, noise: Tensor) -> Tensor:
        """Solve F(s_m | s_given) = Phi(noise): s (..., k) and noise (...,) float64 -> (...,)."""
        every = self
        if self.batch_shape:
            every = self.select(torch.arange(self.batch_shape[-1], device=s.device).expand(noise.shape).reshape(-1))
        with torch.no_grad():
            law = every._law(given, s.detach().reshape(-1, s.shape[-1]), m)
            start = self._guess(given, s, m, noise).expand(noise.shape).reshape(-1)
            root, found = (x.reshape(noise.shape) for x in invert(law, noise.detach().reshape(-1), start))
        return attach(root, found, lambda value: (*self._log_conditional(given, s, m, value), self._log_next(given, s, m, value)))

    def _log_next(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> Tensor:
        """log density of s_m given s_given, with respect to s_m."""
        log_c = self.margin((*given, m))._log_density([*s.unbind(-1), value])
        if len(given) > 1:
            log_c = log_c - self.margin(given)._log_density(s.unbind(-1))
        return log_c - 0.5 * (value.square() + math.log(2 * math.pi))

    def _law(self, given: tuple[int, ...], s: Tensor, m: int) -> Law:
        """What the search for a draw evaluates again and again: s (N, k), the copula's batch shape () or (N,)."""

        def law(rows: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            copula, known = (self, s) if rows is None else (self.select(rows), s[rows])
            return *copula._log_conditional(given, known, m, value), copula._log_next(given, known, m, value)

        return law

    def _guess(self, given: tuple[int, ...], s: Tensor, m: int, noise: Tensor) -> Tensor:
        """Where the search for a draw begins: the draw of a Gaussian copula with the same Kendall's tau."""
        k = len(given)
        rho = torch.sin(math.pi / 2 * self.tau().detach().double().clamp(-0.95, 0.95))
        weight = rho / (1 + (k - 1) * rho)
        return weight * s.detach().sum(-1) + (1 - k * rho * weight).clamp_min(0.01).sqrt() * noise.detach()


def tau_of_pair(tau: Tensor, i: int, j: int) -> Tensor:
    """Of `Copula.tau`, whichever its form: the batch shape, for coordinates i and j."""
    return tau[..., i, j] if tau.dim() >= 2 else tau


def _apart(x: Tensor) -> Tensor:
    """A coordinate by itself in memory where it lay between others: what follows is then twice as fast."""
    return x.contiguous() if x.dim() and x.shape[-1] > 1 and x.stride(-1) != 1 else x

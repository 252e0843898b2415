"""What Archimedean families share: conditional laws from the generator's derivatives, reflections, Kendall's tau."""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import MAX_TAU, Copula, Shape
from cm2pyro.distributions.copulas.inversion import Law
from cm2pyro.distributions.special import log_ndtr
from cm2pyro.errors import ConfigError


class ArchimedeanCopula(Copula):
    """C(u) = ψ(ψ⁻¹(u_1) + … + ψ⁻¹(u_M)) with a completely monotone generator ψ, and its reflections.

    Given k coordinates, F(u_m | u_given) = ψ⁽ᵏ⁾(Σ t_given + t_m) / ψ⁽ᵏ⁾(Σ t_given), t = ψ⁻¹(u). Source: Hofert, Mächler &
    McNeil (2012), Journal of Multivariate Analysis 110.

    A family implements `_log_density_of`, `_log_inverse`, `_log_generator`, `_log_ratio`, `_tau_of`, `_theta_of` and `_tails`.
    Reflected, u_m becomes 1 − u_m: in all coordinates (survival copula), or in one of two (90° and 270° rotations, whose
    Kendall's tau is negative).

    Args:
        theta: the parameter, shape () or (D,). modalities: M.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"theta": constraints.positive}
    reflects: ClassVar[Literal["none", "all", "first", "second"]] = "none"
    has_independence: ClassVar[bool] = True  # whether tau = 0 belongs to the family, not only to its limit

    def __init__(self, theta: Tensor, modalities: int, validate_args: bool | None = None) -> None:
        self._theta = theta
        self._coordinates: tuple[int, ...] = tuple(range(modalities))
        super().__init__(modalities, theta.shape, validate_args)

    # --- what a family implements, all without reflection ---------------------------------------------------------

    @staticmethod
    def _log_density_of(s: Sequence[Tensor], theta: Tensor) -> Tensor:
        """log c from n >= 2 coordinates, each (...,)."""
        raise NotImplementedError

    @staticmethod
    def _log_inverse(s: Tensor, theta: Tensor) -> Tensor:
        """log ψ⁻¹(Φ(s))."""
        raise NotImplementedError

    @staticmethod
    def _log_generator(y: Tensor, theta: Tensor) -> Tensor:
        """log ψ(e^y)."""
        raise NotImplementedError

    @staticmethod
    def _log_ratio(k: int, before: Tensor, new: Tensor, theta: Tensor) -> Tensor:
        """log [ψ⁽ᵏ⁾(e^before + e^new) / ψ⁽ᵏ⁾(e^before)], k >= 1, without the cancellation of a difference of logarithms."""
        raise NotImplementedError

    @staticmethod
    def _tau_of(theta: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def _theta_of(tau: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def _tails(theta: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper tail dependence."""
        raise NotImplementedError

    # --- what they share ------------------------------------------------------------------------------------------

    @property
    def theta(self) -> Tensor:
        return self._theta

    @property
    def _strength(self) -> Tensor:
        """The parameter that the generator takes; positive dependence."""
        return self._theta

    def _signs(self, coordinates: Sequence[int]) -> list[Tensor | None]:
        """Per coordinate the factor that undoes the reflection; None where there is none."""
        minus = self._theta.new_tensor(-1.0)
        flips = {"none": (), "all": coordinates, "first": (0,), "second": (1,)}[self.reflects]
        return [minus if m in flips else None for m in coordinates]

    def _upright(self, s: Sequence[Tensor], which: Sequence[int]) -> list[Tensor]:
        """Values of the named coordinates, as the copula without its reflection has them."""
        return [x if sign is None else x * sign.to(x.dtype) for x, sign in zip(s, self._signs(which), strict=True)]

    def _log_density(self, s: Sequence[Tensor]) -> Tensor:
        return self._log_density_of(self._upright(s, self._coordinates), self._strength.to(s[0].dtype))

    def _log_conditional(self, given: tuple[int, ...], s: Tensor, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        theta = self._strength.double()
        coordinates = self._places((*given, m))
        x = self._upright([*s.double().unbind(-1), value.double()], coordinates)
        y = [self._log_inverse(coordinate, theta) for coordinate in x]
        before = y[0]
        for term in y[1:-1]:
            before = torch.logaddexp(before, term)
        lower = self._log_ratio(len(given), before, y[-1], theta).clamp_max(-1e-300)
        upper = (-torch.expm1(lower)).log()
        sign = self._signs(coordinates[-1:])[0]
        if sign is None:
            return lower, upper
        turned = sign < 0
        return torch.where(turned, upper, lower), torch.where(turned, lower, upper)

    def _law(self, given: tuple[int, ...], s: Tensor, m: int) -> Law:
        theta, k = self._strength.double(), len(given)
        before = torch.logsumexp(torch.stack([self._log_inverse(x, theta) for x in self._upright(s.unbind(-1), self._places(given))]), 0)
        sign = self._signs(self._places((m,)))[0]

        def law(rows: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            def pick(x: Tensor) -> Tensor:
                return x if rows is None or not x.dim() else x[rows]

            with torch.enable_grad():
                # The derivative of log F is the density over F: cheaper here than the density itself.
                x = (value.detach() if sign is None else value.detach() * pick(sign.double())).requires_grad_()
                lower = self._log_ratio(k, pick(before), self._log_inverse(x, pick(theta)), pick(theta)).clamp_max(-1e-300)
                slope = torch.autograd.grad(lower.sum(), x)[0]
            lower = lower.detach()
            upper, log_density = (-torch.expm1(lower)).log(), lower + slope.log()
            if sign is None:
                return lower, upper, log_density
            turned = pick(sign) < 0
            return torch.where(turned, upper, lower), torch.where(turned, lower, upper), log_density

        return law

    def _places(self, coordinates: Sequence[int]) -> tuple[int, ...]:
        """Coordinates of this margin as those of the whole copula, where reflections are known."""
        return tuple(self._coordinates[i] for i in coordinates)

    def log_cdf(self, s: Tensor) -> Tensor:
        """log C(Φ(s)): s (..., M) -> (...,). Differentiable to any order.

        Of a reflected family by inclusion and exclusion, which has absolute precision only: C below the dtype's rounding error
        (2e-16 in float64) is given as that.
        """
        theta, M = self._strength.to(s.dtype), self.modalities
        signs = self._signs(self._coordinates)
        x = s.unbind(-1)
        fixed = [m for m in range(M) if signs[m] is None]
        flipped = [m for m in range(M) if m not in fixed]

        def log_c(values: list[Tensor]) -> Tensor:
            """log C of the given coordinates, 1 in the others."""
            if not values:
                return s.new_zeros(s.shape[:-1])
            if len(values) == 1:
                return log_ndtr(values[0])
            y = self._log_inverse(values[0], theta)
            for value in values[1:]:
                y = torch.logaddexp(y, self._log_inverse(value, theta))
            return self._log_generator(y, theta)

        if not flipped:
            return log_c(list(x))
        # P(U_fixed <= u, V_flipped >= 1 − u) of the upright copula's V.
        total = torch.zeros((), dtype=s.dtype, device=s.device)
        for size in range(len(flipped) + 1):
            for some in combinations(flipped, size):
                total = total + (-1) ** size * log_c([x[m] for m in fixed] + [-x[m] for m in some]).exp()
        # Below its rounding error the sum says nothing: neither a value nor a derivative.
        return total.clamp_min(torch.finfo(s.dtype).eps).log()

    def tau(self) -> Tensor:
        """Kendall's tau of every pair, batch shape."""
        tau = self._tau_of(self._strength)
        return -tau if self.reflects in ("first", "second") else tau

    def tail_dependence(self) -> tuple[Tensor, Tensor]:
        lower, upper = self._tails(self._strength)
        if self.reflects in ("first", "second"):
            return torch.zeros_like(lower), torch.zeros_like(upper)
        return (upper, lower) if self.reflects == "all" else (lower, upper)

    def margin(self, coordinates: Sequence[int]) -> Self:
        return self._with(self._theta, self._places(coordinates))

    def select(self, index: int | Tensor) -> Self:
        return self._with(self._theta[index], self._coordinates) if self.batch_shape else self

    def expand(self, batch_shape: Shape, _instance: object = None) -> Self:
        return self._with(self._theta.expand(torch.Size(batch_shape)), self._coordinates)

    def _with(self, theta: Tensor, coordinates: tuple[int, ...]) -> Self:
        """The same family with another parameter; `coordinates`: which of the whole copula's they are, for its reflections."""
        made = type(self)(theta, len(coordinates), validate_args=False)
        made._coordinates = coordinates
        return made

    # --- construction ---------------------------------------------------------------------------------------------

    @classmethod
    def _tau_range(cls, modalities: int) -> tuple[float, float]:
        return (-1.0, 0.0) if cls.reflects in ("first", "second") else (0.0, 1.0)

    @classmethod
    def _check_modalities(cls, modalities: int) -> None:
        if cls.reflects in ("first", "second") and modalities != 2:
            raise ConfigError(
                f"modalities: the {cls.family} copula is a rotation, which ties exactly 2 coordinates, found {modalities}; "
                f"use {cls.family.rsplit('_', 1)[0]} or survival_{cls.family.rsplit('_', 1)[0]}"
            )

    @classmethod
    def _from_strength_tau(cls, tau: Tensor) -> Tensor:
        """theta for a tau inside the range; of a rotation, |tau|."""
        return cls._theta_of(tau.abs())

    @classmethod
    def from_tau(cls, tau: Tensor, modalities: int) -> Self:
        cls._check_modalities(modalities)
        if tau.dim() > 1:
            raise ConfigError(f"tau: expected a number or shape (D,), found shape {tuple(tau.shape)}; pass one value per latent dimension")
        _refuse_range(cls.family, tau, *cls._tau_range(modalities), modalities, cls.has_independence)
        return cls(cls._from_strength_tau(tau), modalities)

    @classmethod
    def from_theta(cls, theta: Tensor, modalities: int) -> Self:
        cls._check_modalities(modalities)
        if theta.dim() > 1:
            raise ConfigError(
                f"theta: the {cls.family} copula has one parameter, a number or (D,); found shape {tuple(theta.shape)}; pass theta="
            )
        allowed = cls.arg_constraints["theta"]
        if not bool(allowed.check(theta).all()) or not bool(torch.isfinite(theta).all()):
            raise ConfigError(
                f"theta: the {cls.family} copula needs {cls._theta_range(modalities)}, found {theta.tolist()}; pass tau or mend it"
            )
        return cls(theta, modalities)

    @classmethod
    def _theta_range(cls, modalities: int) -> str:
        low = getattr(cls.arg_constraints["theta"], "lower_bound", 0)
        return f"theta {'>=' if low else '>'} {float(low):g}"

    # --- as a learned prior -----------------------------------------------------------------------------------------

    @classmethod
    def site_priors(cls, modalities: int, batch_shape: torch.Size) -> dict[str, TorchDistribution]:
        """The site holds |tau| / MAX_TAU; Beta(1, 2) falls linearly from independence to perfect dependence."""
        cls._check_modalities(modalities)
        return {"": dist.Beta(torch.tensor(1.0), torch.tensor(2.0)).expand(batch_shape).to_event(len(batch_shape))}

    @classmethod
    def site_meanings(cls, modalities: int) -> dict[str, str]:
        sign = "-tau" if cls.reflects in ("first", "second") else "tau"
        return {"": f"{sign} / {MAX_TAU}, Kendall's, of every pair"}

    @classmethod
    def from_sites(cls, values: dict[str, Tensor], modalities: int, like: Tensor) -> Self:
        # Above a thousandth: at independence itself some densities have a boundary.
        tau = 1e-3 + (MAX_TAU - 1e-3) * values[""]
        return cls(cls._from_strength_tau(tau), modalities, validate_args=False)

    @classmethod
    def sites_from_tau(cls, tau: Tensor) -> dict[str, Tensor]:
        sign = -1.0 if cls.reflects in ("first", "second") else 1.0
        mean = sign * mean_of_pairs(tau)
        return {"": (mean.clamp(0.02, 0.95) - 1e-3) / (MAX_TAU - 1e-3)}


def mean_of_pairs(tau: Tensor) -> Tensor:
    """Mean Kendall's tau over pairs: (..., M, M) -> (...,)."""
    M = tau.shape[-1]
    return (tau.sum((-2, -1)) - tau.diagonal(dim1=-2, dim2=-1).sum(-1)) / (M * (M - 1))


def _refuse_range(family: str, tau: Tensor, low: float, high: float, modalities: int, zero: bool) -> None:
    """Raises ConfigError unless low < tau < high; a bound of 0, which is independence, is allowed with `zero`."""
    inside = (tau > low) & (tau < high) | ((tau == 0) & zero)
    if not bool(inside.all()):
        left, right = ("<=" if zero and bound == 0 else "<" for bound in (low, high))
        raise ConfigError(
            f"tau: the {family} copula of {modalities} coordinates needs {low:g} {left} tau {right} {high:g}, found {tau.tolist()}; "
            "choose such a value or another family"
        )

"""Priors of the global sites: any Pyro distribution by name, checked against the site."""

import difflib
import inspect
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform

from cm2pyro import sites
from cm2pyro.config import Priors, SitePrior
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest


class Floored(dist.TransformedDistribution):
    """floor + X: a positive distribution moved up, with its support known."""

    def __init__(self, base: TorchDistribution, floor: float, validate_args: bool | None = None) -> None:
        self.floor = floor
        super().__init__(base, [AffineTransform(floor, 1.0)], validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.greater_than(self.floor)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Floored":
        return Floored(self.base_dist.expand(batch_shape), self.floor, validate_args=False)


def site_priors(structure: MixtureStructure, priors: Priors) -> dict[str, TorchDistribution]:
    """The prior of every global site, of the site's shape.

    weights (T,) on the simplex; locs (M, K, D) real; scales (M, K, D): floor + a positive variable; copula: the
    family's parameter, per latent dimension unless tied.

    Raises:
        ConfigError: unknown distribution or argument, a shape or support that does not fit; names the site.
    """
    grid = torch.Size((structure.modalities, structure.components, structure.dim))
    made = {
        sites.WEIGHTS: _simplex(priors.weights, structure.joint_components),
        sites.LOCS: _expanded(sites.LOCS, _make(sites.LOCS, priors.locs), grid, constraints.real),
        sites.SCALES: Floored(
            _expanded(sites.SCALES, _make(sites.SCALES, priors.scales), grid, constraints.positive, independent=False),
            structure.scale_floor,
        ).to_event(3),
    }
    default = structure.copula_class.default_prior(structure.modalities, structure.copula_batch_shape)
    if default is None and priors.copula is not None and structure.modalities > 1:
        raise ConfigError(f"priors.copula: the {structure.family} copula has no parameter; remove the prior")
    if default is not None:
        made[sites.COPULA] = default if priors.copula is None else _copula(priors.copula, structure, default)
    return made


def _make(site: str, prior: SitePrior, **sized: Any) -> TorchDistribution:
    cls: Any = getattr(dist, prior.dist, None)
    if not (inspect.isclass(cls) and issubclass(cls, TorchDistributionMixin)):
        known = [name for name in dist.__all__ if inspect.isclass(getattr(dist, name, None))]
        close = difflib.get_close_matches(prior.dist, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "use a name such as Normal, LogNormal, Dirichlet or LKJCholesky"
        raise ConfigError(f"priors.{site}.dist: Pyro has no distribution '{prior.dist}'; {hint}")
    make: Any = cls
    parameters = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "validate_args")]
    for key in prior.options:
        if key not in parameters:
            raise ConfigError(f"priors.{site}.{key}: {prior.dist} has no such argument; {nearest(key, parameters)}")
    try:
        arguments = {key: torch.as_tensor(value, dtype=torch.get_default_dtype()) for key, value in prior.options.items()}
        return make(**arguments, **sized, validate_args=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"priors.{site}: {prior.dist} cannot be made ({str(error).splitlines()[0]}); correct its arguments") from error


def _simplex(prior: SitePrior, size: int) -> TorchDistribution:
    options = prior.options
    concentration = options.get("concentration")
    if prior.dist == "Dirichlet" and isinstance(concentration, int | float):
        prior = SitePrior(dist=prior.dist, **(options | {"concentration": [float(concentration)] * size}))
    made = _make(sites.WEIGHTS, prior)
    if made.batch_shape or made.event_shape != (size,):
        raise ConfigError(f"priors.{sites.WEIGHTS}: {prior.dist} has shape {tuple(made.shape())}; the site has ({size},)")
    _check_support(sites.WEIGHTS, made, constraints.simplex)
    return made


def _expanded(
    site: str, made: TorchDistribution, shape: torch.Size, support: constraints.Constraint, independent: bool = True
) -> TorchDistribution:
    _check_support(site, made, support)
    try:
        if made.event_shape:
            raise ValueError
        made = made.expand(shape)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"priors.{site}: shape {tuple(made.shape())} does not expand to the site's {tuple(shape)}") from error
    return made.to_event(len(shape)) if independent else made


def _copula(prior: SitePrior, structure: MixtureStructure, default: TorchDistribution) -> TorchDistribution:
    if prior.dist == "LKJCorrCholesky":
        # Pyro's older name of the same distribution, whose class cannot be expanded.
        options = {("concentration" if key == "eta" else key): value for key, value in prior.options.items()}
        prior = SitePrior(dist="LKJCholesky", **options)
    # The site knows its size; the config leaves it out.
    sized = {"dim": structure.modalities} if prior.dist == "LKJCholesky" else {}
    made = _make(sites.COPULA, prior, **sized)
    _check_support(sites.COPULA, made, _base(default.support))
    try:
        made = made.expand(structure.copula_batch_shape).to_event(len(structure.copula_batch_shape))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"priors.{sites.COPULA}: shape {tuple(made.shape())} does not expand to {tuple(default.shape())}") from error
    if made.shape() != default.shape():
        raise ConfigError(f"priors.{sites.COPULA}: shape {tuple(made.shape())}; the site has {tuple(default.shape())}")
    return made


def _base(support: Any) -> Any:
    """The constraint of one element."""
    return support.base_constraint if isinstance(support, constraints.independent) else support


def _check_support(site: str, made: TorchDistribution, needed: constraints.Constraint) -> None:
    found = _base(made.support)
    fits = found is needed or type(found) is type(needed)
    if needed is constraints.positive:
        # Exactly the positive half-line: a start outside a narrower support would end the fit in its first step.
        lower = getattr(found, "lower_bound", None)
        fits = fits or (lower is not None and bool((torch.as_tensor(lower) == 0).all()) and not hasattr(found, "upper_bound"))
        fits = fits and not found.is_discrete
    if needed is constraints.real:
        fits = fits and not isinstance(made, dist.Delta)  # a point has no density to weigh
    if not fits:
        raise ConfigError(f"priors.{site}: {type(made).__name__} has support {found}; the site needs {needed}; choose another distribution")

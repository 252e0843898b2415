"""Priors of the global sites: any Pyro distribution by name, checked against the site."""

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions import constraints

from cm2pyro import sites
from cm2pyro.config import Priors, SitePrior
from cm2pyro.distributions.copulas.frank import SymmetricBeta
from cm2pyro.distributions.floored import Floored
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.registry import Registry, nearest

Prior = TorchDistribution | Callable[[torch.Size], TorchDistribution]
Given = Mapping[str, Prior]

# Distributions that a config may name beside Pyro's. A new one is one file and one line here.
PRIORS: Registry[type[TorchDistribution]] = Registry("prior")
PRIORS.register("SymmetricBeta", SymmetricBeta)

_BIAS = SitePrior(dist="Normal", loc=0.0, scale=5.0)  # type: ignore[call-arg]


def site_priors(structure: MixtureStructure, priors: Priors, given: Given | None = None) -> dict[str, TorchDistribution]:
    """The prior of every global site of the mixture, of the site's shape.

    weights (T,) on the simplex; locs (M, K, D) real; scales (M, K, D): floor + a positive variable; copula: the
    family's parameter, per latent dimension unless tied (elliptical: a Cholesky factor; others: |tau| / 0.99 in (0, 1), of
    Frank with two modalities tau / 0.99 in (-1, 1)); copula_df: 2 + a positive variable; copula_weights: on the simplex.
    In a mixture of families each has sites of its own, `copula_<family>`.

    Args:
        given: site -> a distribution, or a callable from the site's shape to one, in place of what `priors` says. Like the
            config's it is of the positive variable where a site has a floor.

    Raises:
        ConfigError: unknown distribution, argument or site, a shape or support that does not fit; names the site.
    """
    given = dict(given or {})
    grid = torch.Size((structure.modalities, structure.components, structure.dim))
    defaults = structure.copula.priors()
    check_given(given, [sites.WEIGHTS, sites.LOCS, sites.SCALES, *defaults, *HEAD_SITES])
    T = structure.joint_components
    made = {
        sites.WEIGHTS: _simplex(given.get(sites.WEIGHTS, priors.weights), T, sites.WEIGHTS),
        sites.LOCS: _expanded(sites.LOCS, _make(sites.LOCS, given.get(sites.LOCS, priors.locs), grid), grid, constraints.real),
        sites.SCALES: Floored(
            _expanded(sites.SCALES, _make(sites.SCALES, given.get(sites.SCALES, priors.scales), grid), grid, constraints.positive, False),
            structure.scale_floor,
        ).to_event(3),
    }
    asked: dict[str, SitePrior | Prior] = {**priors.copulas(), **{name: prior for name, prior in given.items() if name in defaults}}
    return made | defaults | _copula_priors(structure, asked, defaults)


HEAD_SITES = (sites.HEAD, sites.HEAD_BIAS)


def head_priors(priors: Priors, outputs: int, width: int, given: Given | None = None) -> dict[str, TorchDistribution]:
    """Priors of the outcome head's weights (outputs, width) and bias (outputs,); empty where no prior is asked for.

    Raises:
        ConfigError: as `site_priors`.
    """
    given = dict(given or {})
    weight = given.get(sites.HEAD, priors.head)
    if weight is None:
        if sites.HEAD_BIAS in given:
            raise ConfigError("priors.head_bias: given, but head has no prior; give head one too")
        return {}
    bias = given.get(sites.HEAD_BIAS, priors.head_bias) or _BIAS
    shapes = {sites.HEAD: (weight, torch.Size((outputs, width))), sites.HEAD_BIAS: (bias, torch.Size((outputs,)))}
    return {site: _expanded(site, _make(site, prior, shape), shape, constraints.real) for site, (prior, shape) in shapes.items()}


def check_given(given: Given, known: Iterable[str]) -> None:
    """Raises ConfigError: a site that the model does not have."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ConfigError(f"priors: the model has no site '{name}'; {nearest(name, known)}")


def _make(site: str, prior: SitePrior | Prior, shape: torch.Size, **sized: Any) -> TorchDistribution:
    """A prior as its config or its giver wrote it, not yet expanded."""
    if not isinstance(prior, SitePrior):
        made = prior if isinstance(prior, TorchDistributionMixin) else prior(shape) if callable(prior) else prior
        if not isinstance(made, TorchDistributionMixin):
            raise ConfigError(
                f"priors.{site}: found {type(made).__name__}, expected a Pyro distribution, or a callable from shape {tuple(shape)} to one"
            )
        # Given element by element or as one event, it is the same prior: the site declares its events itself.
        while isinstance(made, dist.Independent):
            made = made.base_dist
        return made
    cls: Any = PRIORS.get(prior.dist) if prior.dist in PRIORS.names() else getattr(dist, prior.dist, None)
    if not (inspect.isclass(cls) and issubclass(cls, TorchDistributionMixin)):
        known = [*PRIORS.names(), *(name for name in dist.__all__ if inspect.isclass(getattr(dist, name, None)))]
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


def _simplex(prior: SitePrior | Prior, size: int, site: str) -> TorchDistribution:
    if isinstance(prior, SitePrior):
        options = prior.options
        concentration = options.get("concentration")
        if prior.dist == "Dirichlet" and isinstance(concentration, int | float):
            prior = SitePrior(dist=prior.dist, **(options | {"concentration": [float(concentration)] * size}))
    made = _make(site, prior, torch.Size((size,)))
    _check_support(site, made, constraints.simplex)
    if made.batch_shape or made.event_shape != (size,):
        raise ConfigError(f"priors.{site}: {type(made).__name__} has shape {tuple(made.shape())}; the site has ({size},)")
    return made


def _expanded(
    site: str, made: TorchDistribution, shape: torch.Size, support: constraints.Constraint, independent: bool = True
) -> TorchDistribution:
    _check_support(site, made, support)
    try:
        inner = len(made.event_shape)  # a prior over vectors, such as a multivariate normal over the latent dimensions
        if inner and (not independent or made.event_shape != shape[len(shape) - inner :]):
            raise ValueError
        made = made.expand(shape[: len(shape) - inner])
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"priors.{site}: shape {tuple(made.shape())} does not expand to the site's {tuple(shape)}") from error
    return made.to_event(len(shape) - inner) if independent else made


def _copula_priors(
    structure: MixtureStructure, asked: Mapping[str, SitePrior | Prior], defaults: dict[str, TorchDistribution]
) -> dict[str, TorchDistribution]:
    """Priors of the copula's sites that are given in place of the family's own."""
    found: dict[str, TorchDistribution] = {}
    for site, prior in asked.items():
        if structure.modalities < 2:
            continue
        if site not in defaults:
            has = f"it has {', '.join(defaults)}" if defaults else "it has no parameter"
            raise ConfigError(f"priors.{site}: the {structure.family} copula has no such site ({has}); remove the prior")
        if site == sites.copula("weights"):
            found[site] = _simplex(prior, len(structure.families), site)
        else:
            found[site] = _copula(prior, structure, defaults[site], site)
    return found


def _copula(prior: SitePrior | Prior, structure: MixtureStructure, default: TorchDistribution, site: str) -> TorchDistribution:
    sized: dict[str, int] = {}
    if isinstance(prior, SitePrior):
        if prior.dist == "LKJCorrCholesky":
            # Pyro's older name of the same distribution, whose class cannot be expanded.
            options = {("concentration" if key == "eta" else key): value for key, value in prior.options.items()}
            prior = SitePrior(dist="LKJCholesky", **options)
        # The site knows its size; the config leaves it out.
        sized = {"dim": structure.modalities} if prior.dist == "LKJCholesky" else {}
    made = _make(site, prior, default.shape(), **sized)
    support = _base(default.support)
    floor = getattr(support, "lower_bound", None) if type(support) is type(constraints.greater_than(0.0)) else None
    _check_support(site, made, support if floor is None else constraints.positive)
    if floor is not None:
        made = Floored(made, float(floor))
    try:
        shape = structure.copula.batch_shape
        made = made.expand(shape).to_event(len(shape))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"priors.{site}: shape {tuple(made.shape())} does not expand to {tuple(default.shape())}") from error
    if made.shape() != default.shape():
        raise ConfigError(f"priors.{site}: shape {tuple(made.shape())}; the site has {tuple(default.shape())}")
    return made


def _base(support: Any) -> Any:
    """The constraint of one element."""
    return support.base_constraint if isinstance(support, constraints.independent) else support


def _bound(support: constraints.Constraint, side: str) -> float | None:
    """A bound where it is one number; None where there is none."""
    value = getattr(support, side, None)
    if value is None:
        return None
    values = torch.as_tensor(value).unique()
    return float(values) if len(values) == 1 else float("nan")


def _check_support(site: str, made: TorchDistribution, needed: constraints.Constraint) -> None:
    found = _base(made.support)
    bounds = ("lower_bound", "upper_bound")
    fits = type(found) is type(needed) and all(_bound(found, side) == _bound(needed, side) for side in bounds)
    if needed is constraints.positive:
        # Exactly the positive half-line: a start outside a narrower support would end the fit in its first step.
        lower = getattr(found, "lower_bound", None)
        fits = fits or (lower is not None and bool((torch.as_tensor(lower) == 0).all()) and not hasattr(found, "upper_bound"))
        fits = fits and not found.is_discrete
    if needed is constraints.real:
        fits = fits and not isinstance(made, dist.Delta)  # a point has no density to weigh
    if not fits:
        raise ConfigError(f"priors.{site}: {type(made).__name__} has support {found}; the site needs {needed}; choose another distribution")


def unchecked(prior: Any) -> Any:
    """The same prior, whose density no longer looks whether a value is in its support, which waits for the device at every step."""
    found = copy.copy(prior)
    found._validate_args = False
    for name, part in vars(prior).items():  # what it is made of
        if isinstance(part, torch.distributions.Distribution):
            setattr(found, name, unchecked(part))
    return found

"""Priors of the global sites: any Pyro distribution by name, checked against the site."""

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
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
from cm2pyro.foreign import Contract
from cm2pyro.models.supports import base, check_support
from cm2pyro.registry import Registry, UnknownNameError, nearest, one_line

Prior = TorchDistribution | Callable[[torch.Size], TorchDistribution]
Given = Mapping[str, Prior]


def _of_pyro(name: str) -> type[TorchDistribution] | None:
    found = getattr(dist, name, None)
    return found if inspect.isclass(found) and issubclass(found, TorchDistributionMixin) else None


# Distributions that a config may name beside Pyro's. A new one is one file and one line here.
PRIORS: Registry[type[TorchDistribution]] = Registry(
    "prior", _of_pyro, contract=Contract(TorchDistributionMixin, "pyro.distributions.TorchDistribution")
)
PRIORS.register("SymmetricBeta", SymmetricBeta)


def _names() -> list[str]:
    """Of every distribution that a config may name."""
    return [*filter(_of_pyro, vars(dist)), *PRIORS.names()]


def _known() -> Iterator[type[TorchDistribution]]:
    for name in _names():
        with suppress(ConfigError):  # one of another package that cannot be imported
            yield PRIORS.get(name)


def register_prior(name: str, prior: type[TorchDistribution] | str) -> None:
    """Let configs name a distribution of your own as a prior; text says where it is, `package.module:Class`.

    Raises:
        ConfigError: the name is taken, by Pyro too, or the class is no Pyro distribution.
    """
    PRIORS.register_foreign(name, prior)


_BIAS = SitePrior(dist="Normal", loc=0.0, scale=5.0)  # type: ignore[call-arg]
_LKJ = ("LKJ", "LKJCholesky", "LKJCorrCholesky")  # one prior: of the matrix, of its factor, and by Pyro's older name


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
    return _tried(made | defaults | _copula_priors(structure, asked, defaults))


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
    return _tried({site: _expanded(site, _make(site, prior, shape), shape, constraints.real) for site, (prior, shape) in shapes.items()})


def _tried(made: dict[str, TorchDistribution]) -> dict[str, TorchDistribution]:
    """Priors that can be drawn from, as guides and predictive checks do, and that have a density there."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for site, prior in made.items():
            try:
                prior.log_prob(prior.sample())
            except ValueError:
                pass  # a draw that was rounded to the edge of its support
            except Exception as error:  # of any distribution there is
                why = one_line(error) or type(error).__name__
                raise ConfigError(f"priors.{site}: draws or their density fail ({why}); choose a proper distribution with both") from error
    return made


def check_head(priors: Priors, outputs: int | None, width: int, given: Given | None = None) -> None:
    """As `head_priors`, before the data are there. outputs: None where only the data know them; then shapes wait for them.

    Raises:
        ConfigError: as `site_priors`.
    """
    given = dict(given or {})
    if outputs is not None:
        head_priors(priors, outputs, width, given)
        return
    for site in HEAD_SITES:
        prior = given.get(site, getattr(priors, site))
        if isinstance(prior, SitePrior | TorchDistributionMixin):
            check_support(site, _make(site, prior, torch.Size()), constraints.real, _known())


def check_given(given: Given, known: Iterable[str]) -> None:
    """Raises ConfigError: a site that the model does not have."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ConfigError(f"priors: the model has no site '{name}'; {nearest(name, known)}")


def _make(site: str, prior: SitePrior | Prior, shape: torch.Size, **sized: Any) -> TorchDistribution:
    """A prior as its config or its giver wrote it, not yet expanded."""
    if not isinstance(prior, SitePrior):
        made = prior if isinstance(prior, TorchDistributionMixin) else _called(site, prior, shape) if callable(prior) else prior
        if not isinstance(made, TorchDistributionMixin):
            raise ConfigError(
                f"priors.{site}: found {type(made).__name__}, expected a Pyro distribution, or a callable from shape {tuple(shape)} to one"
            )
        # Given element by element or as one event, it is the same prior: the site declares its events itself.
        while isinstance(made, dist.Independent):
            made = made.base_dist
        return made
    try:
        make: Any = PRIORS.get(prior.dist, f"priors.{site}.dist")
    except UnknownNameError:
        close = difflib.get_close_matches(prior.dist, _names(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else "use a name such as Normal, LogNormal, Dirichlet or LKJCholesky"
        raise UnknownNameError(f"priors.{site}.dist: Pyro has no distribution '{prior.dist}'; {hint}") from None
    parameters = [name for name in inspect.signature(make.__init__).parameters if name not in ("self", "validate_args")]
    for key in prior.options:
        if key not in parameters:
            raise ConfigError(f"priors.{site}.{key}: {prior.dist} has no such argument; {nearest(key, parameters)}")
    try:
        arguments = {key: torch.as_tensor(value, dtype=torch.get_default_dtype()) for key, value in prior.options.items()}
        return make(**arguments, **sized, validate_args=True)
    except Exception as error:  # Pyro's classes also assert, and index what they take for a tensor with dimensions
        why = one_line(error, 300) or "its arguments are not of the kind or shape that it takes"
        raise ConfigError(f"priors.{site}: {prior.dist} cannot be made ({why}); correct its arguments") from error


def _called(site: str, make: Callable[[torch.Size], TorchDistribution], shape: torch.Size) -> Any:
    try:
        return make(shape)
    except Exception as error:  # it is the caller's own
        raise ConfigError(
            f"priors.{site}: the callable fails on shape {tuple(shape)} ({type(error).__name__}: {one_line(error)}); "
            "expected one from the shape to a Pyro distribution"
        ) from error


def _simplex(prior: SitePrior | Prior, size: int, site: str) -> TorchDistribution:
    if isinstance(prior, SitePrior):
        options = prior.options
        concentration = options.get("concentration")
        if prior.dist == "Dirichlet" and isinstance(concentration, int | float):
            prior = SitePrior(dist=prior.dist, **(options | {"concentration": [float(concentration)] * size}))
    made = _make(site, prior, torch.Size((size,)))
    check_support(site, made, constraints.simplex, _known())
    if made.batch_shape or made.event_shape != (size,):
        raise ConfigError(f"priors.{site}: {type(made).__name__} has shape {tuple(made.shape())}; the site has ({size},)")
    return made


def _expanded(
    site: str, made: TorchDistribution, shape: torch.Size, support: constraints.Constraint, independent: bool = True
) -> TorchDistribution:
    check_support(site, made, support, _known())
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
    if isinstance(prior, SitePrior) and prior.dist in _LKJ:
        options = {("concentration" if key == "eta" else key): value for key, value in prior.options.items()}
        sized = {"dim": structure.modalities}  # the site knows its size; the config may leave it out
        if options.pop("dim", structure.modalities) != structure.modalities:
            raise ConfigError(f"priors.{site}.dim: found {prior.options['dim']}, expected {structure.modalities} modalities; leave it out")
        prior = SitePrior(dist="LKJCholesky", **options)
    made = _make(site, prior, default.shape(), **sized)
    if isinstance(made, dist.LKJ):
        made = made.base_dist
    support = base(default.support)
    floor = getattr(support, "lower_bound", None) if type(support) is type(constraints.greater_than(0.0)) else None
    check_support(site, made, support if floor is None else constraints.positive, _known())
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


def unchecked(prior: Any) -> Any:
    """The same prior, whose density no longer looks whether a value is in its support, which waits for the device at every step."""
    found = copy.copy(prior)
    found._validate_args = False
    for name, part in vars(prior).items():  # what it is made of
        if isinstance(part, torch.distributions.Distribution):
            setattr(found, name, unchecked(part))
    return found

"""The global sites and their priors, as rows of a table."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from cm2pyro import sites
from cm2pyro.config import Config, Priors, SitePrior
from cm2pyro.distributions.copulas import FAMILIES
from cm2pyro.distributions.copulas.learned import MIXTURE
from cm2pyro.distributions.floored import Floored
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.models import make_fusion, make_structure
from cm2pyro.models.likelihoods import LIKELIHOODS
from cm2pyro.models.priors import head_priors, site_priors

_MEANINGS = {
    sites.WEIGHTS: "weights of the joint components",
    sites.LOCS: "locations of the components of every modality",
    sites.SCALES: "standard deviations of the components of every modality",
    sites.HEAD: "weights of the outcome's linear head",
    sites.HEAD_BIAS: "its bias",
}
# Sizes that differ from one another, so that a shape made of them can be read back as letters.
_K, _D, _OUTPUTS, _WIDTH = 5, 7, 11, 13
_SHOWN = 4  # numbers of an argument that is no single one
_NO_SITE = "none: no site, its weights are parameters under fit.weight_decay"


@dataclass(frozen=True)
class PriorRow:
    """A global site.

    Attributes:
        site: its name, the key in the config's `priors`. meaning: what it holds.
        shape: of its value; letters or numbers. support: of the variable that the prior is put on; where the site has a floor, the
            site is that variable plus the floor. prior: in force. given: whether it is not the default.
        families: the copula families that have the site in this form; empty for sites that do not depend on the family.
    """

    site: str
    meaning: str
    shape: str
    support: str
    prior: str
    given: bool = False
    families: tuple[str, ...] = ()


def config_rows(config: Config) -> list[PriorRow]:
    """The sites of a config, with numeric shapes; of a head whose classes only the data know, `classes`.

    Raises:
        ConfigError: a prior that does not fit its site.
    """
    structure = make_structure(config)
    rows = _rows(site_priors(structure, config.priors), structure.copula.meanings(), {}, config.priors)
    likelihood, labels = LIKELIHOODS.get(config.task.type, "task.type"), config.task.labels
    classes = len(labels) if labels else _OUTPUTS
    outputs = likelihood(classes).outputs
    letters = {_OUTPUTS: "classes"} if outputs == _OUTPUTS and not labels else {}
    width = int(make_fusion(config).width)  # type: ignore[arg-type]
    head = head_priors(config.priors, outputs, width)
    if head:
        first = {site: {outputs: letters[outputs]} if letters else {} for site in head}
        return rows + [_row(site, prior, _MEANINGS, first[site], config.priors, most=1) for site, prior in head.items()]
    shape = f"({letters.get(outputs, outputs)}, {width})"
    return [*rows, PriorRow(sites.HEAD, _MEANINGS[sites.HEAD], shape, _support(constraints.real), _NO_SITE)]


def default_rows() -> list[PriorRow]:
    """Every site that a config can have, with its default prior; shapes in letters.

    M modalities, K components of each, T joint components (K, with coupling `full` K^M), D latent dimensions, F families of a mixture.
    A tied copula has no D.
    """
    priors = Priors()
    found: dict[tuple[str, ...], tuple[PriorRow, list[str]]] = {}
    shared: list[PriorRow] = []
    for family in FAMILIES.names():
        forms: dict[int, list[PriorRow]] = {}
        for M in (2, 3):  # some families tie two coordinates alone, and Frank's parameter has a sign only there
            try:
                structure = MixtureStructure(M, _D, _K, "full", family)
            except ConfigError:
                continue
            letters = {M: "M", _K: "K", _D: "D", structure.joint_components: "T"}
            made = site_priors(structure, priors)
            shared = shared or _rows({name: made[name] for name in (sites.WEIGHTS, sites.LOCS, sites.SCALES)}, {}, letters, priors)
            forms[M] = _rows({n: p for n, p in made.items() if n not in _MEANINGS}, structure.copula.meanings(), letters, priors)
        same = len(forms) == 2 and forms[2] == forms[3]
        named = {family: forms[2]} if same else {f"{family} (M {'= 2' if M == 2 else '> 2'})": rows for M, rows in forms.items()}
        for name, rows in named.items():
            for row in rows:
                key = (row.site, row.meaning, row.shape, row.support, row.prior)
                found.setdefault(key, (row, []))[1].append(name)
    copulas = [PriorRow(r.site, r.meaning, r.shape, r.support, r.prior, False, tuple(names)) for r, names in found.values()]
    several = tuple(name for name in FAMILIES.names() if name in ("gaussian", "clayton", "gumbel", "joe"))
    mixed = MixtureStructure(3, _D, _K, "full", MIXTURE, families=several)
    weights = {sites.copula("weights"): site_priors(mixed, priors)[sites.copula("weights")]}
    copulas += [
        PriorRow(r.site, r.meaning, r.shape, r.support, r.prior, False, (MIXTURE,))
        for r in _rows(weights, mixed.copula.meanings(), {len(several): "F"}, priors)
    ]
    asked = priors.model_copy(update={"head": priors.locs})
    head = head_priors(asked, _OUTPUTS, _WIDTH)
    rows = _rows(head, {}, {_OUTPUTS: "outputs", _WIDTH: "width"}, priors)
    weight = PriorRow(rows[0].site, rows[0].meaning, rows[0].shape, rows[0].support, _NO_SITE)
    bias = PriorRow(rows[1].site, rows[1].meaning, rows[1].shape, rows[1].support, f"{rows[1].prior}, if {sites.HEAD} has a prior")
    return [*shared, *copulas, weight, bias]


def _rows(made: Mapping[str, TorchDistribution], meanings: Mapping[str, str], letters: dict[int, str], priors: Priors) -> list[PriorRow]:
    return [_row(site, prior, {**_MEANINGS, **meanings}, letters, priors) for site, prior in made.items()]


def _row(
    site: str, prior: TorchDistribution, meanings: Mapping[str, str], letters: dict[int, str], priors: Priors, most: int = 9
) -> PriorRow:
    """most: how many of the shape's sizes, from the first, may be letters."""
    shape = [letters.get(n, str(n)) if i < most else str(n) for i, n in enumerate(prior.shape())]
    text = f"({', '.join(shape)}{',' if len(shape) == 1 else ''})" if shape else "()"
    inner, floor = _inner(prior)
    support = _support(inner.support) + (f", the site is {floor:g} + it" if floor is not None else "")
    asked = getattr(priors, site, None)
    given = asked != getattr(Priors(), site, None)  # what a run's resolved config repeats was not asked for
    said = _given(asked) if isinstance(asked, SitePrior) else describe(inner)
    return PriorRow(site, meanings.get(site, "parameter of the copula"), text, support, said, given)


def _inner(prior: Any) -> tuple[Any, float | None]:
    """What a prior is put on: without expansion to the site's shape, and the floor it was moved up by."""
    while type(prior).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        prior = prior.base_dist
    if isinstance(prior, Floored):
        return _inner(prior.base_dist)[0], prior.floor
    return prior, None


def _support(support: Any) -> str:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if lower is not None and upper is not None:
        return f"({_number(lower)}, {_number(upper)})"
    if lower is not None:
        return "positive" if _number(lower) == "0" else f"above {_number(lower)}"
    words = {constraints.real: "real", constraints.real_vector: "real", constraints.simplex: "simplex"}
    words[constraints.corr_cholesky] = "Cholesky factors of correlation matrices"
    return next((word for one, word in words.items() if type(one) is type(support)), str(support))


def _given(prior: SitePrior) -> str:
    options = ", ".join(f"{key}={_number(value)}" for key, value in prior.options.items())
    return f"{prior.dist}({options})"


def describe(prior: TorchDistribution) -> str:
    """`Normal(loc=0, scale=2)`: class and arguments, of which only those that it was made with."""
    cls = type(prior)
    parts = []
    for name in inspect.signature(cls.__init__).parameters:
        # `dim` follows from the site; a lazy property is another way to write an argument that was given.
        lazy = isinstance(getattr(cls, name, None), lazy_property) and name not in vars(prior)
        if name in ("self", "validate_args", "dim") or lazy or not hasattr(prior, name):
            continue
        value = getattr(prior, name)
        if isinstance(value, torch.Tensor | int | float):
            parts.append(f"{name}={_number(value)}")
    return f"{cls.__name__}({', '.join(parts)})"


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    values = torch.as_tensor(value, dtype=torch.float64).flatten()
    if len(values.unique()) == 1:
        return f"{float(values[0]):.6g}"
    shown = ", ".join(f"{x:.6g}" for x in values[:_SHOWN].tolist())
    return f"[{shown}{', …' if len(values) > _SHOWN else ''}]"

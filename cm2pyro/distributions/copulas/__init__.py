"""Copula families by name. A new family is one file and one line in FAMILIES."""

from typing import Any

import torch
from torch import Tensor

from cm2pyro.distributions.copulas.base import MAX_TAU, ConditionalCopula, Copula
from cm2pyro.distributions.copulas.clayton import Clayton90, Clayton270, ClaytonCopula, SurvivalClayton
from cm2pyro.distributions.copulas.frank import FrankCopula
from cm2pyro.distributions.copulas.gaussian import GaussianCopula
from cm2pyro.distributions.copulas.gumbel import Gumbel90, Gumbel270, GumbelCopula, SurvivalGumbel
from cm2pyro.distributions.copulas.independence import IndependenceCopula
from cm2pyro.distributions.copulas.joe import Joe90, Joe270, JoeCopula, SurvivalJoe
from cm2pyro.distributions.copulas.student_t import StudentTCopula
from cm2pyro.errors import ConfigError
from cm2pyro.foreign import Contract
from cm2pyro.registry import Registry

__all__ = ["FAMILIES", "MAX_TAU", "ConditionalCopula", "Copula", "GaussianCopula", "IndependenceCopula", "make_copula", "register_copula"]

_DENSITY = ("_log_density", "_log_conditional", "margin", "select", "tau", "from_tau", "from_theta", "tail_dependence")
_LEARNED = ("site_priors", "from_sites", "sites_from_tau")
FAMILIES: Registry[type[Copula]] = Registry(
    "copula family", contract=Contract(Copula, "cm2pyro.distributions.Copula", needs=("family", *_DENSITY, *_LEARNED))
)
FAMILIES.register("independence", IndependenceCopula)
FAMILIES.register("gaussian", GaussianCopula)
FAMILIES.register("student_t", StudentTCopula)
FAMILIES.register("clayton", ClaytonCopula)
FAMILIES.register("gumbel", GumbelCopula)
FAMILIES.register("frank", FrankCopula)
FAMILIES.register("joe", JoeCopula)
FAMILIES.register("survival_clayton", SurvivalClayton)
FAMILIES.register("survival_gumbel", SurvivalGumbel)
FAMILIES.register("survival_joe", SurvivalJoe)
FAMILIES.register("clayton_90", Clayton90)
FAMILIES.register("clayton_270", Clayton270)
FAMILIES.register("gumbel_90", Gumbel90)
FAMILIES.register("gumbel_270", Gumbel270)
FAMILIES.register("joe_90", Joe90)
FAMILIES.register("joe_270", Joe270)

_RESERVED = ("mixture", "weights", "df")  # in a mixture of families they would be other sites


def register_copula(name: str, family: type[Copula] | str) -> None:
    """Let configs and `make_copula` name a copula family of your own; text says where it is, `package.module:Class`.

    Raises:
        ConfigError: the name is taken, or the class is no family.
    """
    if name in _RESERVED:
        raise ConfigError(f"copula family '{name}': the name has a meaning of its own; choose another name")
    FAMILIES.register_foreign(name, family)


def make_copula(
    family: str,
    modalities: int,
    tau: float | Tensor | None = None,
    theta: float | Tensor | None = None,
    correlation: Any = None,
    df: float | Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Copula:
    """A copula with the given dependence.

    Args:
        family: name of a family in FAMILIES. modalities: M >= 2.
        tau: Kendall's tau of every pair, in (-1, 1), scalar or (D,). theta: the family's own parameter.
        correlation: (..., M, M) for elliptical families (their theta). df: degrees of freedom of Student-t, > 2; 4 if not given.
        dtype, device: of the parameters; by default those of the tensors given, else torch's defaults.

    Raises:
        ConfigError: unknown family, a parameter that the family does not have, or a value out of its range.
    """
    cls = FAMILIES.get(family, foreign=False)  # the name may come from a data set's own file
    if modalities < 2:
        raise ConfigError(f"modalities: a copula ties 2 or more coordinates, found {modalities}; add a coordinate")

    def tensor(value: Any) -> Tensor:
        kept = value.dtype if isinstance(value, Tensor) and value.is_floating_point() else torch.get_default_dtype()
        return torch.as_tensor(value, dtype=dtype or kept, device=device)

    given = {name: value for name, value in {"tau": tau, "theta": theta, "correlation": correlation}.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: each fixes the dependence; pass one of them")
    if tau is not None:
        made = cls.from_tau(tensor(tau), modalities)
    elif given:
        made = cls.from_theta(tensor(next(iter(given.values()))), modalities)
    elif not cls.site_priors(modalities, torch.Size()):
        made = cls.from_tau(tensor(0.0), modalities)
    else:
        raise ConfigError(f"the {family} copula needs tau or its parameter; pass tau=")
    return made if df is None else _with_df(made, tensor(df))


def _with_df(copula: Copula, df: Tensor) -> Copula:
    if not isinstance(copula, StudentTCopula):
        raise ConfigError(f"df: the {copula.family} copula has no degrees of freedom; leave df out")
    if not bool((df > 2).all()) or not bool(torch.isfinite(df).all()):
        raise ConfigError(f"df: the student_t copula needs finite df > 2, found {df.tolist()}; use gaussian for a very large one")
    if df.dim() > 1 or (df.dim() == 1 and copula.batch_shape != df.shape):
        raise ConfigError(f"df: expected a number or shape {tuple(copula.batch_shape)}, found {tuple(df.shape)}; pass one value per copula")
    return StudentTCopula(copula.scale_tril, df.to(copula.scale_tril.dtype))

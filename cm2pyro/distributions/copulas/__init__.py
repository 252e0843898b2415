"""Copula families by name. A new family is one file and one line in FAMILIES."""

from typing import Any

import torch
from torch import Tensor

from cm2pyro.distributions.copulas.base import MAX_TAU, ConditionalCopula, Copula
from cm2pyro.distributions.copulas.gaussian import GaussianCopula
from cm2pyro.distributions.copulas.independence import IndependenceCopula
from cm2pyro.errors import ConfigError
from cm2pyro.registry import Registry

__all__ = ["FAMILIES", "MAX_TAU", "ConditionalCopula", "Copula", "GaussianCopula", "IndependenceCopula", "make_copula"]

FAMILIES: Registry[type[Copula]] = Registry("copula family")
FAMILIES.register("independence", IndependenceCopula)
FAMILIES.register("gaussian", GaussianCopula)


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
        correlation: (..., M, M) for elliptical families (their theta). df: degrees of freedom, for Student-t.
        dtype, device: of the parameters; by default those of the tensors given, else torch's defaults.

    Raises:
        ConfigError: unknown family, a parameter that the family does not have, or a value out of its range.
    """
    cls = FAMILIES.get(family)
    if modalities < 2:
        raise ConfigError(f"modalities: a copula ties 2 or more coordinates, found {modalities}")
    if df is not None:
        raise ConfigError(f"df: the {family} copula has no degrees of freedom; leave df out")

    def tensor(value: Any) -> Tensor:
        kept = value.dtype if isinstance(value, Tensor) and value.is_floating_point() else torch.get_default_dtype()
        return torch.as_tensor(value, dtype=dtype or kept, device=device)

    given = {name: value for name, value in {"tau": tau, "theta": theta, "correlation": correlation}.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: each fixes the dependence; pass one of them")
    if tau is not None:
        return cls.from_tau(tensor(tau), modalities)
    if given:
        return cls.from_theta(tensor(next(iter(given.values()))), modalities)
    if cls.default_prior(modalities, torch.Size()) is None:
        return cls.from_tau(tensor(0.0), modalities)
    raise ConfigError(f"the {family} copula needs tau or its parameter; pass tau=")

"""Families and sizes over which the tests of copulas run. A fixture is a function (tau, dtype, df) -> copula."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from cm2pyro.distributions import FAMILIES, Copula, make_copula
from cm2pyro.distributions.copulas.archimedean import ArchimedeanCopula
from cm2pyro.errors import ConfigError


def signed(family: str, M: int, tau: float | Tensor = 0.5, dtype: torch.dtype = torch.float64, df: float | Tensor | None = None) -> Copula:
    """A copula of that strength: tau negative for rotations, 0 for independence; a share of it where a family does not reach 1; df of
    Student-t is 4 unless given."""
    sign = -1 if family.endswith(("_90", "_270")) else 0 if family == "independence" else 1
    return make_copula(family, M, tau=sign * reach(family, M) * tau, df=df, dtype=dtype)


def reach(family: str, M: int) -> float:
    """The bound of |tau|: 1, or less of some Archimedean families."""
    cls = FAMILIES.get(family)
    return max(map(abs, cls._tau_range(M))) if issubclass(cls, ArchimedeanCopula) else 1.0


def ties(family: str, M: int) -> bool:
    """Whether the family has a copula of that many coordinates: rotations, and some others, tie exactly two."""
    try:
        signed(family, M)
    except ConfigError:
        return False
    return True


def every_family(name: str, *sizes: int) -> Any:
    """A fixture over every family with that many coordinates, where it ties so many."""
    pairs = [(family, M) for family in FAMILIES.names() for M in sizes if ties(family, M)]

    @pytest.fixture(name=name, scope="session", params=pairs, ids=[f"{family}-{M}" for family, M in pairs])
    def made(request: pytest.FixtureRequest) -> Callable[..., Copula]:
        return partial(signed, *request.param)

    return made


pair_of = every_family("pair_of", 2)
triple_of = every_family("triple_of", 3)
larger_of = every_family("larger_of", 3, 5)
small_of = every_family("small_of", 2, 3)
copula_of = every_family("copula_of", 2, 3, 5)


@pytest.fixture(scope="session")
def copula() -> Callable[..., Copula]:
    """(family, coordinates, tau, dtype, df) -> copula."""
    return signed

"""A package that is no part of this one, as a user writes it: an encoder, a copula family, a prior and a decoder."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.inference.fits import settings

NAMES = {
    "modalities.b.encoder": "encoders:Wide",
    "prior.copula.family": "copulas:ExchangeableCopula",
    "priors.scales.dist": "priors:HalfStudentT",
    "decoders.kind": "decoders:StudentT",
}

ENCODERS = '''
from typing import Annotated

from pydantic import Field
from torch import nn

from cm2pyro.encoders import Encoder


class Wide(Encoder):
    """One layer."""

    views = ("vector",)

    def __init__(self, shapes, *, hidden: Annotated[int, Field(gt=0)] = 4):
        super().__init__(shapes)
        self.width = hidden
        self.layer = nn.Linear(shapes["vector"][0], hidden)

    def forward(self, inputs):
        return self.layer(inputs["vector"]).relu()


class NoViews(Encoder):
    def forward(self, inputs):
        return inputs["vector"]


class Positional(Wide):
    def __init__(self, shapes, hidden):
        super().__init__(shapes, hidden=hidden)


class Failing(Wide):
    def forward(self, inputs):
        raise ValueError("no rows, please")


NUMBER = 3
'''

DECODERS = '''
from typing import Annotated

import pyro.distributions as dist
from pydantic import Field
from torch import nn

from cm2pyro.models import Decoder


class StudentT(Decoder):
    """Features with tails."""

    def __init__(self, dim, features, *, df: Annotated[float, Field(gt=0)] = 4.0):
        super().__init__(dim, features)
        self.df = df
        self.network = nn.Linear(dim, features)

    def distribution(self, z):
        return dist.StudentT(self.df, self.network(z), 1.0, validate_args=False)
'''


def write(folder: Path, name: str, root: Path) -> None:
    """The package `name` in a folder."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "encoders.py").write_text(ENCODERS)
    (package / "decoders.py").write_text(DECODERS)
    for example, module in (("exchangeable", "copulas"), ("half_student_t", "priors")):
        shutil.copy(root / "docs" / "examples" / f"{example}.py", package / f"{module}.py")
    (package / "broken.py").write_text("import nowhere_at_all\n")
    (package / "leaving.py").write_text("raise SystemExit(0)\n")


def config(name: str, **fit: Any) -> dict[str, Any]:
    """Names all four, with options of theirs."""
    raw = settings(
        prior={"copula": {"family": f"{name}.copulas:ExchangeableCopula"}},
        priors={"scales": {"dist": f"{name}.priors:HalfStudentT", "df": 3, "scale": 1}},
        decoders={"kind": f"{name}.decoders:StudentT", "df": 5},
        fit={"epochs": 1} | fit,
    )
    raw["modalities"]["b"] = {"kind": "embedding", "encoder": f"{name}.encoders:Wide", "hidden": 3}
    return raw


def imported(name: str) -> list[str]:
    """What of a package this process has imported."""
    return [module for module in sys.modules if module.partition(".")[0] == name]


def forget(name: str) -> None:
    for module in imported(name):
        del sys.modules[module]


@contextmanager
def apart(*names: str) -> Iterator[None]:
    """What is imported inside, and from where, is forgotten after it."""
    path = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in names:
            forget(name)

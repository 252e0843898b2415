"""Classes that a program registers under a name of its own."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from torch import nn

import cm2pyro
from cm2pyro import CM2
from cm2pyro.distributions import FAMILIES, make_copula, register_copula
from cm2pyro.distributions.copulas.gaussian import GaussianCopula
from cm2pyro.encoders import ENCODERS, register_encoder
from cm2pyro.encoders.mlp import MLP
from cm2pyro.errors import CheckpointError, ConfigError
from cm2pyro.models import DECODERS, register_decoder, register_prior
from cm2pyro.models.priors import PRIORS
from docs.examples.exchangeable import ExchangeableCopula
from docs.examples.half_student_t import HalfStudentT
from tests import outside
from tests.inference.fits import settings, table

NAME = "registered_outside"


class Wider(MLP):
    """A perceptron whose default is wider."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], *, hidden: int = 6) -> None:
        super().__init__(shapes, hidden=hidden)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (ENCODERS, FAMILIES, PRIORS, DECODERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.mark.usefixtures("registries")
def test_a_registered_name_loads_where_the_same_is_registered(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside.write(tmp_path, NAME, root)
    raw = settings(
        prior={"copula": {"family": "exchangeable"}},
        priors={"scales": {"dist": "HalfStudentT", "df": 3, "scale": 1}},
        decoders={"kind": "student_t", "df": 5},
        fit={"epochs": 1},
    )
    raw["modalities"]["b"] = {"kind": "embedding", "encoder": "wider", "hidden": 3}
    before = {registry: dict(registry._entries) for registry in (ENCODERS, FAMILIES, PRIORS, DECODERS)}

    def refusal() -> str:
        with pytest.raises(CheckpointError) as caught:
            CM2.load(tmp_path / "run")
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    with outside.apart(NAME):
        sys.path.append(str(tmp_path))
        cm2pyro.register_encoder("wider", Wider)
        cm2pyro.register_copula("exchangeable", ExchangeableCopula)
        cm2pyro.register_prior("HalfStudentT", HalfStudentT)
        cm2pyro.register_decoder("student_t", f"{NAME}.decoders:StudentT")  # imported when it is asked for
        assert not outside.imported(NAME)
        model = CM2.from_config(raw).fit(table(), tmp_path / "run", device="cpu")
        again = CM2.load(tmp_path / "run")
        pd.testing.assert_frame_equal(model.predict(table(), draws=3), again.predict(table(), draws=3))
        assert make_copula("exchangeable", 3, tau=0.4).tau() == pytest.approx(0.4, abs=1e-6)
        for registry, name in ((ENCODERS, "wider"), (FAMILIES, "exchangeable"), (PRIORS, "HalfStudentT"), (DECODERS, "student_t")):
            with monkeypatch.context() as context:
                context.setattr(registry, "_entries", before[registry])
                text = refusal()
            assert f"'{name}'" in text
            assert "register_encoder" in text


@pytest.mark.usefixtures("registries")
def test_what_cannot_be_registered() -> None:
    for wrong, says in (
        (lambda: register_encoder("lstm", Wider), "encoder 'lstm' is registered already; choose another name"),
        (lambda: register_encoder("resnet50", Wider), "encoder 'resnet50' is there already"),
        (lambda: register_encoder("a:b", Wider), "expected a name of letters"),
        (lambda: register_encoder("", Wider), "expected a name of letters"),
        (
            lambda: register_encoder("wider", nn.Linear),
            "encoder 'wider': found another class, expected a subclass of cm2pyro.encoders.Encoder",
        ),
        (lambda: register_encoder("wider", Wider({"vector": (2,)})), "found Wider, expected a subclass"),  # type: ignore[arg-type]
        (lambda: register_encoder("wider", "wider"), "found 'wider', expected a class or package.module:Class"),
        (lambda: register_prior("Normal", HalfStudentT), "prior 'Normal' is there already"),
        (lambda: register_copula("mixture", ExchangeableCopula), "'mixture': the name has a meaning of its own"),
        (lambda: register_copula("clayton", GaussianCopula), "registered already"),
        (lambda: register_decoder("other", Wider), "expected a subclass of cm2pyro.models.Decoder"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert says in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("registries")
def test_a_class_that_is_defined_anew_takes_its_own_place() -> None:
    """A notebook runs its cells more than once."""
    register_encoder("wider", Wider)
    anew = type("Wider", (Wider,), {"__module__": Wider.__module__, "__qualname__": Wider.__qualname__})
    register_encoder("wider", anew)
    assert ENCODERS.get("wider") is anew
    other = type("Another", (Wider,), {})
    with pytest.raises(ConfigError, match="registered already"):
        register_encoder("wider", other)

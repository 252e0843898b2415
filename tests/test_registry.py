"""Registries: names, options checked by annotation, messages that fit into one line."""

import sys
import types
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from cm2pyro.errors import ConfigError
from cm2pyro.registry import Registry, describe, nearest, one_line


class Net:
    def __init__(
        self,
        size: int,
        *,
        hidden: Annotated[int, Field(gt=0)] = 64,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        limit: float | None = None,
        deep: bool = False,
        mode: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (),
        act: nn.Module | None = None,
        anything=None,
    ) -> None: ...


class Strict:
    def __init__(self, *, width: int) -> None: ...


def registry() -> Registry[type]:
    made: Registry[type] = Registry("encoder")
    made.register("net", Net)
    made.register("strict", Strict)
    return made


def refused(*says: str, given: dict[Any, Any], name: str = "net", also: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        registry().options(name, given, "modalities.ehr", also)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith("modalities.ehr")
    for part in says:
        assert part in text
    return text


def test_names_and_entries() -> None:
    made = registry()
    assert made.names() == ["net", "strict"]
    assert made.get("net") is Net
    assert made.register("net", Net) is Net
    with pytest.raises(ConfigError, match="encoder 'net' is registered already; choose another name"):
        made.register("net", Strict)
    assert made.get("net") is Net
    with pytest.raises(ConfigError, match=r"^unknown encoder 'nett'; did you mean 'net'\? known: net, strict$"):
        made.get("nett")
    with pytest.raises(ConfigError, match=r"^modalities\.x\.encoder: unknown encoder 'q'; known: net, strict$"):
        made.get("q", "modalities.x.encoder")


def test_an_entry_can_be_named_by_its_place() -> None:
    made = registry()
    made.register("tuner", "cm2pyro.registry:Registry")
    made.register("tuner", "cm2pyro.registry:Registry")
    assert "tuner" in made.names()
    with pytest.raises(ConfigError, match="'tuner' is registered already"):
        made.register("tuner", "cm2pyro.registry:nearest")
    assert made.get("tuner") is Registry
    assert made.keywords("tuner") == set()
    made.register("absent", "cm2pyro.nowhere:Nothing")  # a fault of who wrote the line, seen when it is asked for
    with pytest.raises(ConfigError, match=r"^encoder 'absent': cm2pyro\.nowhere:Nothing: there is no module cm2pyro\.nowhere;"):
        made.get("absent")


def test_options_are_completed_and_converted() -> None:
    defaults = registry().options("net", {}, "m")
    assert defaults == {"hidden": 64, "dropout": 0.1, "limit": None, "deep": False, "mode": "a", "sizes": (), "act": None, "anything": None}
    act = nn.ReLU()
    given = {"hidden": 3, "dropout": 0, "limit": 2, "deep": True, "mode": "b", "sizes": [1, 2], "act": act, "anything": True}
    assert registry().options("net", given, "m") == given | {"sizes": (1, 2)}
    assert "size" not in defaults, "positional parameters are not options"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hiden": 3}, ["modalities.ehr.hiden", "unknown key", "encoder 'net'", "did you mean 'hidden'?"]),
        ({"size": 3}, ["modalities.ehr.size: unknown key"]),
        ({3: 3}, ["modalities.ehr.3: unknown key"]),
        ({"a\nb": 3}, ["modalities.ehr.a b: unknown key"]),
        ({"tabel": "x"}, ["did you mean 'table'?", "hidden"]),
        ({"hidden": 0}, ["modalities.ehr.hidden: ", "greater than 0", "found 0"]),
        ({"hidden": 1.5}, ["modalities.ehr.hidden: ", "integer", "found 1.5"]),
        ({"hidden": "many"}, ["modalities.ehr.hidden: ", "integer", "found 'many'"]),
        ({"hidden": True}, ["modalities.ehr.hidden: ", "expected a number", "found True"]),
        ({"dropout": False}, ["modalities.ehr.dropout: ", "expected a number", "found False"]),
        ({"limit": True}, ["modalities.ehr.limit", "expected a number"]),
        ({"dropout": float("nan")}, ["modalities.ehr.dropout: ", "finite"]),
        ({"limit": float("inf")}, ["modalities.ehr.limit", "finite"]),
        ({"mode": "c"}, ["modalities.ehr.mode: ", "'a' or 'b'", "found 'c'"]),
        ({"act": "relu"}, ["modalities.ehr.act", "Module", "found 'relu'"]),
        ({"sizes": ["x" * 500]}, ["modalities.ehr.sizes.0: ", "…"]),
    ],
)
def test_refused_options(given: dict[Any, Any], says: list[str]) -> None:
    assert len(refused(*says, given=given, also=("table",))) < 400


def test_an_option_without_default_is_asked_for() -> None:
    refused("modalities.ehr.width: ", "required", given={}, name="strict")


def test_annotations_that_are_text_are_resolved_or_left_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Thing
class Known:
    def __init__(self, *, width: int = 1) -> None: ...
class Unknown:
    def __init__(self, *, width: int = 1, thing: Thing = None) -> None: ...
"""
    module = types.ModuleType("foreign")
    monkeypatch.setitem(sys.modules, "foreign", module)
    exec(source, module.__dict__)
    made: Registry[type] = Registry("encoder")
    made.register("known", module.Known)
    made.register("unknown", module.Unknown)
    assert made.options("known", {"width": "3"}, "m") == {"width": 3}
    with pytest.raises(ConfigError, match=r"m\.width: .*integer.*found 'x'"):
        made.options("known", {"width": "x"}, "m")
    assert made.options("unknown", {"width": 5, "thing": "t"}, "m") == {"width": 5, "thing": "t"}


def test_nearest_shows_few_names_and_counts_many() -> None:
    assert nearest("lr_rat", ["epochs", "lr_rate"]) == "did you mean 'lr_rate'? known: epochs, lr_rate"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("x", []) == "known: "
    many = nearest("name_7", [f"name_{i}" for i in range(100)])
    assert many.startswith("did you mean 'name_7'?")
    assert many.endswith("and 70 more")
    assert nearest("x", ["a\nb", 3]) == "known: 3, a b"  # type: ignore[list-item]


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\u2028c \x00\x1b[2J\ud800 é ") == "a b c ??[2J? é"
    assert one_line("x" * 300) == "x" * 199 + "…"
    assert one_line("x" * 60, 60) == "x" * 60
    assert one_line(3) == "3"


def test_describe_names_key_and_finding() -> None:
    class Inner(BaseModel):
        n: int

    class Outer(BaseModel):
        inner: dict[str, Inner]

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"a\nb": {"n": "x\ny"}}})
    assert describe(caught.value, "where") == (
        "where.inner.a b.n: Input should be a valid integer, unable to parse string as an integer; found 'x\\ny'"
    )
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"a": {}}})
    assert describe(caught.value) == "inner.a.n: Field required"

"""Keys and values as they are typed, and what is fitted of them."""

import numpy as np
import pytest

from cm2pyro.errors import ConfigError
from cm2pyro.sweep.space import Choice, Range, apply, as_text, check_axes, corners, drawn, every


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("prior.components=1,2,3", (1, 2, 3)),
        ("fit.beta=1e-4, 0.01", (1e-4, 0.01)),
        ("prior.copula.family=gaussian,frank", ("gaussian", "frank")),
        ("missingness.mask=mcar:0.1,'mar:0.5@labs,gases',null", ("mcar:0.1", "mar:0.5@labs,gases", None)),
        ("priors.scales={dist: HalfNormal, scale: 1},{dist: LogNormal}", ({"dist": "HalfNormal", "scale": 1}, {"dist": "LogNormal"})),
        ("prior.copula.tied=true,false", (True, False)),
    ],
)
def test_values_are_yaml(text: str, values: tuple[object, ...]) -> None:
    axis = Choice.parse(text)
    assert (axis.key, axis.values) == (text.split("=")[0], values)
    assert [type(value) for value in axis.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fit.beta=1e-5:1e-1:log", Range("fit.beta", 1e-5, 0.1, log=True)),
        ("prior.components=1:6", Range("prior.components", 1, 6, whole=True)),
        ("fit.lr=1.0:6", Range("fit.lr", 1, 6)),
    ],
)
def test_ranges(text: str, found: Range) -> None:
    assert Range.parse(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit.beta", "expected a key and its values"),
        ("fit.beta=1e-5", "expected low:high"),
        ("fit.beta=1:2:lg", "expected low:high"),
        ("fit.beta=a:b", "expected low:high"),
        ("fit.beta=1:inf", "expected low:high"),
        ("fit.beta=2:1", "low below high"),
        ("fit.beta=0:1:log", "above 0"),
    ],
)
def test_ranges_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--random .*{message}"):
        Range.parse(text)


@pytest.mark.parametrize(
    ("text", "message"), [("a.b", "expected a key"), ("a=", "expected a key"), ("a=1,1", "stands twice"), ("a=[1", "not valid YAML")]
)
def test_values_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Choice.parse(text)


def test_what_cannot_be_varied() -> None:
    a, b = Choice("fit.lr", (1, 2)), Choice("fit.seed", (1, 2))
    for axes, message in (
        ([], "nothing is varied"),
        ([a, a], "varied twice"),
        ([b], "--seeds"),
        ([a, Choice("fit", ({"lr": 1},))], r"fit: is varied, and so is its part fit\.lr"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_axes(axes)


def test_all_combinations_in_order() -> None:
    axes = [Choice("a", (1, 2)), Choice("b", ("x", "y"))]
    assert list(every(axes)) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert list(corners(axes)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {"a": 1, "b": "x"}, {"a": 1, "b": "y"}]
    with pytest.raises(ConfigError, match="c: a range has no end"):
        list(every([Range("c", 1, 2)]))


def test_draws() -> None:
    axes = [Range("beta", 1e-5, 0.1, log=True), Range("K", 1, 6, whole=True), Choice("family", ("a", "b"))]
    many = list(drawn(axes, 0, 600))
    assert many[:5] == list(drawn(axes, 0, 5))  # more trials leave the first as they are
    assert many[:5] != list(drawn(axes, 1, 5))
    beta = np.array([setting["beta"] for setting in many])
    assert 1e-5 <= beta.min() <= beta.max() <= 0.1
    # Uniform logarithms: half of them below 1e-3, sd of the share 0.02.
    assert np.mean(beta < 1e-3) == pytest.approx(0.5, abs=0.08)
    counts = np.bincount([setting["K"] for setting in many], minlength=7)
    assert counts[0] == 0
    assert counts[1:].min() > 60  # 100 each, sd 9: the ends too
    assert {type(setting["K"]) for setting in many} == {int}
    assert {setting["family"] for setting in many} == {"a", "b"}


def test_a_setting_in_the_config() -> None:
    base = {"prior": {"components": 3, "copula": {"family": "gaussian"}}}
    changes = {"none": {}, "free": {"prior": {"copula": {"family": "independence"}}}}
    axes = [Choice("prior.components", (1, 2)), Choice("variant", tuple(changes), changes), Choice("fit.lr", (0.1,))]
    raw = apply(base, axes, {"prior.components": 2, "variant": "free", "fit.lr": 0.1})
    assert raw == {"prior": {"components": 2, "copula": {"family": "independence"}}, "fit": {"lr": 0.1}}
    assert base == {"prior": {"components": 3, "copula": {"family": "gaussian"}}}
    with pytest.raises(ConfigError, match="'components' is not a section"):
        apply(base, [Choice("prior.components.x", (1,))], {"prior.components.x": 1})
    with pytest.raises(ConfigError, match=r"prior\.components: found os:system, which is none of the values asked for"):
        apply(base, [Choice("prior.components", (1, 2))], {"prior.components": "os:system"})


def test_texts() -> None:
    assert [as_text(value) for value in (0.001, 1e-6, 2, 2.0, True, None, "a", [1, 2])] == [
        "0.001",
        "1e-06",
        "2",
        "2",
        "true",
        "null",
        "a",
        "[1, 2]",
    ]

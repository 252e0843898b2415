"""What is varied: keys of the config and their values."""

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Self, TypeAlias

import numpy as np

from cm2pyro.config_file import parse_yaml, put_over, set_key
from cm2pyro.errors import ConfigError
from cm2pyro.registry import one_line

VARIANT = "variant"  # the axis whose values are named changes of the config

Setting: TypeAlias = dict[str, Any]  # key -> value; of the axis `variant` the name


@dataclass(frozen=True)
class Choice:
    """A key that takes listed values.

    Attributes:
        key: `a.b` of the config, or `variant`. values: in the order given. changes: of variants, name -> part of a config.
    """

    key: str
    values: tuple[Any, ...]
    changes: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = [as_text(value) for value in self.values]
        if not texts:
            raise ConfigError(f"{self.key}: has no value; write for example prior.components=1,2,3")
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise ConfigError(f"{self.key}: the value {one_line(twice, 60)} stands twice; remove one")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `prior.components=1,2,3`; values are YAML, so one with a comma is quoted. Raises ConfigError."""
        key, values = _split(text, "--grid", "prior.components=1,2,3")
        return cls(key, tuple(parse_yaml(f"[{values}]", f"--grid {one_line(text)}", "quote values with commas or brackets")))

    def draw(self, random: np.random.Generator) -> Any:
        return self.values[int(random.integers(len(self.values)))]

    def ends(self) -> tuple[Any, ...]:
        """Values to check before the first fit: all of them."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number drawn between two others, ends included; `log`: uniformly on the log scale; `whole`: no fractions."""

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `fit.beta=1e-5:1e-1:log`; two whole numbers, `1:6`, give whole numbers, `1.0:6` does not. Raises ConfigError."""
        key, span = _split(text, "--random", "fit.beta=1e-5:1e-1:log")
        fault = f"--random {one_line(text)}"
        low, colon, rest = span.partition(":")
        high, _, scale = rest.partition(":")
        try:
            ends = float(low), float(high)
            whole = all(part.strip().lstrip("+-").isdecimal() for part in (low, high))
        except ValueError:
            ends, whole = (math.nan, math.nan), False
        if not colon or not all(map(math.isfinite, ends)) or scale.strip() not in ("", "log"):
            raise ConfigError(f"{fault}: expected low:high or low:high:log, two numbers; write for example fit.beta=1e-5:1e-1:log")
        if not ends[0] < ends[1] or (scale.strip() and ends[0] <= 0):
            raise ConfigError(f"{fault}: expected low below high, and with log both above 0; mend the range")
        return cls(key, *ends, bool(scale.strip()), whole)

    def draw(self, random: np.random.Generator) -> float | int:
        # Whole numbers each own the unit around them, so that the ends are drawn as often as the rest.
        half = 0.5 if self.whole else 0.0
        low, high = self.low - half, self.high + half
        value = math.exp(random.uniform(math.log(low), math.log(high))) if self.log else random.uniform(low, high)
        return self.round(min(max(value, self.low), self.high))

    def round(self, value: float) -> float | int:
        """Four digits are more than a search can tell apart, and can be read."""
        return round(value) if self.whole else min(max(float(f"{value:.4g}"), self.low), self.high)

    def ends(self) -> tuple[Any, ...]:
        """Values to check before the first fit."""
        return tuple(round(end) if self.whole else end for end in (self.low, self.high))


Axis: TypeAlias = Choice | Range


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not value or not all(key.split(".")):
        raise ConfigError(f"{option} {one_line(text)}: expected a key and its values; write for example {example}")
    return key, value


def as_text(value: Any) -> str:
    """A value as tables show it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def check_axes(axes: Sequence[Axis]) -> None:
    """Raises ConfigError: nothing varied, a key twice, a key inside another, the seed."""
    if not axes:
        raise ConfigError("nothing is varied; give --grid KEY=V1,V2, or --random KEY=low:high with --trials")
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key}: is varied twice; give all its values in one --grid or --random")
        if key == "fit.seed":
            raise ConfigError("fit.seed: settings are compared over the same seeds; give --seeds 0,1,2 in its place")
        inside = next((other for other in keys if other.startswith(f"{key}.")), None)
        if inside is not None:
            raise ConfigError(f"{key}: is varied, and so is its part {inside}; vary one of them")


def every(axes: Sequence[Axis]) -> Iterator[Setting]:
    """All combinations of listed values, the last key fastest. Raises ConfigError for a range."""
    for axis in axes:
        if isinstance(axis, Range):
            raise ConfigError(f"{axis.key}: a range has no end of values; give --trials N, or list values with --grid")
    yield from (dict(zip([a.key for a in axes], values, strict=True)) for values in product(*(a.ends() for a in axes)))


def drawn(axes: Sequence[Axis], seed: int, trials: int) -> Iterator[Setting]:
    """Independent draws of all keys; the first n are the same however many follow."""
    for i in range(trials):
        random = np.random.default_rng([seed, i])
        yield {axis.key: axis.draw(random) for axis in axes}


def corners(axes: Sequence[Axis]) -> Iterator[Setting]:
    """Every value, or end of a range, once; the other keys at their first."""
    first = {axis.key: axis.ends()[0] for axis in axes}
    yield from ({**first, axis.key: value} for axis in axes for value in axis.ends())


def apply(base: dict[str, Any], axes: Sequence[Axis], setting: Setting) -> dict[str, Any]:
    """The raw config with a setting's values. Raises ConfigError for a key whose sections are none, or a value that is not of its axis."""
    raw = copy.deepcopy(base)
    for axis in axes:
        value = setting[axis.key]
        if isinstance(axis, Choice) and value not in axis.values:  # of a sweep's folder or a storage that somebody else has written
            raise ConfigError(f"{axis.key}: found {one_line(as_text(value), 60)}, which is none of the values asked for; start anew")
        if isinstance(axis, Choice) and axis.changes:
            raw = put_over(raw, axis.changes[value])
        else:
            set_key(raw, axis.key, value, axis.key)
    return raw


def describe(setting: Setting) -> str:
    """`prior.components=2, fit.beta=0.001`."""
    return ", ".join(f"{key}={one_line(as_text(value), 60)}" for key, value in setting.items())

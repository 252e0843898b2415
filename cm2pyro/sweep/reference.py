"""Published numbers that stand beside a sweep's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from cm2pyro.config import Config
from cm2pyro.config_base import Section
from cm2pyro.config_file import read_mapping
from cm2pyro.errors import ConfigError
from cm2pyro.registry import describe as describe_fault
from cm2pyro.sweep import metrics
from cm2pyro.sweep.space import Axis, Choice, Setting, as_text


class Point(Section):
    """Published numbers for some values of the varied keys; without `at`, for the study as a whole.

    Attributes:
        at: key -> value. values: metric with its split, such as test_auroc -> number.
    """

    at: dict[str, Any] = Field(default_factory=dict)
    values: Annotated[dict[str, float], Field(min_length=1)]

    def belongs(self, setting: Setting) -> bool:
        """Whether it is for this setting; keys that it does not name may have any value."""
        return all(key in setting and as_text(setting[key]) == as_text(value) for key, value in self.at.items())


class Reference(Section):
    """Published numbers from one table.

    Attributes:
        source: who, table, data, as it is to be quoted. bases: names of base configs beside which it is shown; empty: all.
        label: of the task beside which it is shown; None: any.
    """

    source: str
    bases: list[str] = Field(default_factory=list)
    label: str | None = None
    points: Annotated[list[Point], Field(min_length=1)]

    def at(self, setting: Setting, metric: str) -> float | None:
        """The number for a setting, None where there is none."""
        return next((point.values[metric] for point in self.points if metric in point.values and point.belongs(setting)), None)

    @property
    def names(self) -> list[str]:
        """Metrics that it has, each once."""
        return list(dict.fromkeys(name for point in self.points for name in point.values))

    def _of(self, axes: Sequence[Axis]) -> Self | None:
        """What of it is about these axes: points whose keys are varied here, of a listed key values that are taken."""
        listed = {axis.key: {as_text(value) for value in axis.values} if isinstance(axis, Choice) else None for axis in axes}
        points = [point for point in self.points if all(_taken(listed, key, value) for key, value in point.at.items())]
        return self.model_copy(update={"points": points}) if points else None


def _taken(listed: dict[str, set[str] | None], key: str, value: Any) -> bool:
    return key in listed and (listed[key] is None or as_text(value) in (listed[key] or ()))


class _File(Section):
    """A file of published numbers."""

    reference: list[Reference]


def read(path: Path) -> list[Any]:
    """The entries of a file that holds `reference:` alone. Raises ConfigError."""
    try:
        return _File.model_validate(read_mapping(path)).reference
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_fault(error)}") from error


def beside(references: Sequence[Reference], base: str, config: Config, axes: Sequence[Axis]) -> tuple[Reference, ...]:
    """Those that belong beside a sweep; numbers of a study as a whole only where none is for a value that is varied.

    Args:
        base: file name of the base config. config: the base, for its label. axes: what is varied.

    Raises:
        ConfigError: a metric that the task does not have, or one without its split.
    """
    alone = len(config.task.columns) == 1 and not any(axis.key.startswith("task") for axis in axes)
    label = config.task.columns[0] if alone else None
    found = [one._of(axes) for one in references if (not one.bases or base in one.bases) and one.label in (None, label)]
    kept = [one for one in found if one is not None]
    for one in kept:
        for name in one.names:
            metrics.known(name, config.task.type, f"reference {one.source}: metric")
            if metrics.split_of(name) not in metrics.SPLITS:
                raise ConfigError(f"reference {one.source}: metric {name}: of which rows? Write test_{name} or val_{name}")
    precise = [one for one in kept if any(point.at for point in one.points)]
    return tuple(precise or kept)

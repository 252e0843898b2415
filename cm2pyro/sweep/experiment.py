"""A sweep as it is asked for: what is varied, how often, what is looked at; from a file or from the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.config_base import Number, Section
from cm2pyro.config_file import apply_override, put_over, read_mapping, read_yaml
from cm2pyro.errors import ConfigError
from cm2pyro.registry import describe as describe_fault
from cm2pyro.registry import nearest, one_line
from cm2pyro.sweep import metrics, reference
from cm2pyro.sweep.reference import Reference
from cm2pyro.sweep.space import VARIANT, Axis, Choice, Range, Setting, apply, check_axes, corners, describe

Seed = Annotated[int, Number, Field(ge=0, lt=2**32)]

_CONDITIONS = ("missingness", "missingness.mask", "fit.validation", "task")


class _File(Section):
    """The keys of an experiment file."""

    experiment: str  # its title
    base: str  # the config that it varies, relative to this file; --base names another
    set: dict[str, Any] = Field(default_factory=dict)  # put over the base
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    random: dict[str, str] = Field(default_factory=dict)  # key: low:high[:log]
    variants: dict[str, str | dict[str, Any]] = Field(default_factory=dict)  # name: a file of changes, or the changes
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    metric: str | None = None
    show: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)  # key: what its axis is called
    panels: list[str] = Field(default_factory=list)  # keys with a panel of their own; by default all
    reference: list[Reference] = Field(default_factory=list)  # in place, or the name of a file that holds them


@dataclass(frozen=True)
class Experiment:
    """A sweep, checked.

    Attributes:
        title: above table and figure. name: of the base config, for messages. base: that config, raw. axes: what is varied.
        seeds: each setting is fitted once with every one. metric: that the choice goes by, such as val_log_loss.
        show: metrics in table and figure, without split, the chosen one by default. labels, panels, references: see the file's keys.
    """

    title: str
    name: str
    base: dict[str, Any]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    metric: str
    show: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    panels: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Varied keys that change by which rows or labels a setting is judged: no choice is made between their values."""
        return tuple(axis.key for axis in self.axes if axis.key in _CONDITIONS or axis.key.startswith("task."))

    @classmethod
    def read(
        cls,
        path: str | Path,
        base: str | Path | None = None,
        overrides: Sequence[str] = (),
        axes: Sequence[Axis] = (),
        seeds: Sequence[int] = (),
        metric: str | None = None,
    ) -> Self:
        """From a config, or from an experiment file, with what the command line says put over it.

        Args:
            path: either file. base: with an experiment, another config to vary. overrides: `a.b=c`. axes: take the place of the file's
                with the same key. seeds, metric: take the place of the file's.

        Raises:
            ConfigError: a key, a value or a metric that cannot be; nothing has been fitted yet.
        """
        path = Path(path)
        mapping = read_mapping(path)
        if set(mapping) == {"reference"}:
            raise ConfigError(f"{path}: holds published numbers alone, expected a config or an experiment; name one")
        if "experiment" in mapping:
            file = _checked(mapping, path)
            name = path.parent / file.base if base is None else Path(base)
        else:
            if base is not None:
                raise ConfigError(f"--base {base}: belongs to an experiment file, and {path} is a config; name one of them")
            file, name = _File(experiment=path.name, base=path.name), path
        raw = put_over(read_yaml(name), file.set)
        for override in overrides:
            apply_override(raw, override)
        given = {axis.key: axis for axis in axes}
        if len(given) < len(axes):
            check_axes(axes)
        listed = {axis.key: axis for axis in _axes(file, path)}
        varied = listed | {key: _of_variants(axis, listed.get(VARIANT)) if key == VARIANT else axis for key, axis in given.items()}
        check_axes(list(varied.values()))
        config = _config(raw, str(name))
        chosen = metrics.check(metric or file.metric, config.task.type)
        seeds = tuple(seeds or file.seeds or (config.fit.seed,))
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"seeds {', '.join(map(str, seeds))}: one stands twice; give different ones")
        for key in (*file.panels, *file.labels):
            if key not in varied:
                raise ConfigError(f"{path}: panels and labels: '{one_line(key, 60)}' is not varied; {nearest(key, varied)}")
        show = tuple(metrics.known(one, config.task.type, f"{path}: show") for one in file.show) or (metrics.bare(chosen),)
        axes = tuple(varied.values())
        try:
            references = reference.beside(file.reference, name.name, config, axes)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        found = cls(file.experiment, str(name), raw, axes, seeds, chosen, show, dict(file.labels), tuple(file.panels), references)
        for setting in corners(found.axes):
            found.config(setting)
        return found

    def config(self, setting: Setting, seed: int | None = None) -> Config:
        """The config of a setting. Raises ConfigError that names the setting."""
        where = f"{self.name}, {describe(setting)}"
        raw = apply(self.base, self.axes, setting)
        if seed is not None:
            raw = put_over(raw, {"fit": {"seed": seed}})
        return _config(raw, where)


def _config(raw: dict[str, Any], where: str) -> Config:
    """The config, with all that a fit refuses before it reads data refused now."""
    config = Config.from_dict(raw, where)
    try:
        return CM2.from_config(config).config
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(mapping: dict[str, Any], path: Path) -> _File:
    for key in mapping:
        if key not in _File.model_fields:
            raise ConfigError(f"{path}: unknown key '{one_line(key, 60)}'; {nearest(str(key), _File.model_fields)}")
    if isinstance(mapping.get("reference"), str):
        mapping = mapping | {"reference": reference.read(path.parent / mapping["reference"])}
    try:
        return _File.model_validate(mapping)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_fault(error)}") from error


def _axes(file: _File, path: Path) -> list[Axis]:
    axes: list[Axis] = [Choice(key, tuple(values)) for key, values in file.grid.items()]
    axes += [Range.parse(f"{key}={span}") for key, span in file.random.items()]
    if file.variants:
        changes = {name: _change(change, path, name) for name, change in file.variants.items()}
        axes.append(Choice(VARIANT, tuple(changes), changes))
    return axes


def _change(change: str | dict[str, Any], path: Path, name: str) -> dict[str, Any]:
    """A variant's part of a config; of a file its `base` does not count, since the experiment has one."""
    if isinstance(change, str):
        change = {key: value for key, value in read_mapping(path.parent / change).items() if key != "base"}
    if "base" in change:
        raise ConfigError(f"{path}: variants: {one_line(name, 60)}: has a base, and the experiment has one; remove it")
    return change


def _of_variants(asked: Axis, listed: Axis | None) -> Axis:
    """Some of the file's variants, named on the command line."""
    if not isinstance(listed, Choice) or not isinstance(asked, Choice):
        return asked  # refused later, as a key that no config has
    for name in asked.values:
        if name not in listed.changes:
            raise ConfigError(f"--grid variant: no variant '{one_line(name, 60)}'; {nearest(str(name), listed.changes)}")
    return Choice(VARIANT, asked.values, listed.changes)

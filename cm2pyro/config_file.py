"""Configs as YAML files: read with care, built on one another, overridden from the command line, written."""

import re
from pathlib import Path
from typing import Any

import yaml

from cm2pyro.errors import ConfigError
from cm2pyro.files import read_text, write_text
from cm2pyro.registry import one_line

_BASE = "base"  # a config may name another that it changes
_MOST_BASES = 10
_MOST_BYTES = 200_000  # a config has some thousand; PyYAML needs seconds for more than this
_DEEPEST = 30  # levels; PyYAML's time grows with the square of them


def read_yaml(path: str | Path, based: bool = True) -> dict[str, Any]:
    """A YAML mapping; with the key `base`, the one of that file with the rest of this one put over it, section by section.

    `base` is relative to the folder of the file that names it.

    Args:
        based: whether it may name a base; the config of a run is whole.

    Raises:
        ConfigError: not readable, not YAML, aliases, nested too deep, not a mapping, bases that lead round in a circle.
    """
    return _built(Path(path), _MOST_BASES if based else 0)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """A YAML mapping as it stands in the file, `base` not followed. Raises ConfigError, as `read_yaml`."""
    return _read(Path(path))


def _built(path: Path, most: int) -> dict[str, Any]:
    raw = _read(path)
    if _BASE not in raw:
        return raw
    base = raw.pop(_BASE)
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: found {one_line(base, 60)}, expected the name of a YAML file beside this one; write one")
    if most == 0:
        raise ConfigError(f"{path}: base: more than {_MOST_BASES} files name one another, or this one may name none; look for a circle")
    return put_over(_built(path.parent / base, most - 1), raw)


def put_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` put over `below`, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        merged[key] = put_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); expected a YAML file; name one") from error
    raw = parse_yaml(text, str(path), "mend the file")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections such as modalities and fit; found {type(raw).__name__}")
    return raw


def parse_yaml(text: str, where: str, remedy: str) -> Any:
    """What a piece of YAML says. Raises ConfigError that names `where` and the remedy."""
    try:
        # Aliases are refused: a few lines of them can unfold into gigabytes.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                line = f", line {event.start_mark.line + 1}" if event.start_mark else ""
                raise ConfigError(f"{where}{line}: nested more than {_DEEPEST} deep, expected sections and their keys; {remedy}")
            if isinstance(event, yaml.AliasEvent):
                line = f", line {event.start_mark.line + 1}" if event.start_mark else ""
                raise ConfigError(f"{where}{line}: found the YAML alias *{one_line(event.anchor)}, expected a value; write it out")
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = one_line(getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed")
        raise ConfigError(f"{where}{line}: not valid YAML ({problem}); {remedy}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML's own constructors raise these, for example for the date 2020-13-45.
        raise ConfigError(f"{where}: holds a value that YAML cannot read ({one_line(error)}); quote it, or {remedy}") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers (1e-3 is one), and duplicate keys refused."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' stands twice", key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if not _INTEGER.fullmatch(node.value):
        raise _ambiguous(node)
    return value


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    if set(node.value) & set("_:"):
        raise _ambiguous(node)
    return float(loader.construct_yaml_float(node))


def _ambiguous(node: yaml.ScalarNode) -> yaml.YAMLError:
    # YAML 1.1 reads 010 as 8, 1:30 as 90 and a hexadecimal number of any length; YAML 1.2 and people do not.
    problem = f"{one_line(node.value, 60)} is not the same number in every version of YAML; write it in decimal"
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as a number."""


_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_EXPONENT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set a key given as `a.b=c`; c is read as YAML. Raises ConfigError if it is not of that form."""
    key, sign, value = override.partition("=")
    where = f"--set {one_line(override)}"
    if not sign or not all(key.strip().split(".")):
        raise ConfigError(f"{where}: expected key=value such as fit.epochs=10")
    set_key(raw, key.strip(), parse_yaml(value, where, "quote it"), where)


def set_key(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the key `a.b` of a mapping, making sections on the way. Raises ConfigError if a part of it is no section."""
    *sections, last = key.split(".")
    place: Any = raw
    for part in sections:
        place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"{where}: '{one_line(part)}' is not a section of the config; name a key such as fit.epochs")
    place[last] = value


def write_yaml(path: str | Path, raw: dict[str, Any]) -> None:
    """Write plain JSON as YAML that `read_yaml` gives back, atomically."""
    write_text(path, yaml.dump(raw, Dumper=_Dumper, sort_keys=False))

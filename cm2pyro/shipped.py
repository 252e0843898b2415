"""The configs that come with the package: `cm2pyro/configs` of an installed one, `configs/` of a checkout."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from cm2pyro.errors import CM2Error, ConfigError, DataError
from cm2pyro.files import write_text
from cm2pyro.registry import nearest

_HERE = Path(__file__).resolve().parent


def folder() -> Path:
    """Where they are. Raises CM2Error if the installation lacks them."""
    for found in (_HERE / "configs", _HERE.parent / "configs"):
        if (found / "simulated.yaml").is_file():
            return found
    raise CM2Error(f"{_HERE / 'configs'}: the configs of the package are not there; install cm2pyro again")


def names() -> dict[str, str]:
    """Name without `.yaml`, such as `ablations/frank` -> the comment at its top, in one line."""
    return {_name(path): _comment(path) for path in sorted(folder().rglob("*.yaml"), key=lambda path: (len(path.parts), path))}


def copy(wanted: Iterable[str], out: Path, overwrite: bool = False) -> list[Path]:
    """Copy configs, and those that they name, to a folder; the paths written.

    Args:
        wanted: names; none of them for all. out: made if it is not there.
        overwrite: replace files that differ.

    Raises:
        ConfigError: an unknown name; a file that differs is there. DataError: the folder cannot be made or written.
    """
    known = names()
    chosen: dict[Path, str] = {}
    for name in wanted or known:
        plain = name.removesuffix(".yaml")
        if plain not in known:
            raise ConfigError(f"unknown config '{name}'; {nearest(plain, known)}")
        chosen |= _with_named(folder() / f"{plain}.yaml")
    for path, text in chosen.items():
        target = out / path
        if target.exists() and not overwrite and (not target.is_file() or target.read_bytes() != text.encode()):
            raise ConfigError(f"{target}: is there already and differs; pass --overwrite to replace it, or name another folder with --out")
    for path, text in chosen.items():
        _make(out / path.parent)
        write_text(out / path, text)
    return [out / path for path in chosen]


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{place}: cannot be made ({error.strerror}); name another folder with --out") from error


def _with_named(path: Path) -> dict[Path, str]:
    """Relative path -> text, of a config and of all that it needs: its base, and in an experiment the files of its variants and
    published numbers."""
    text = path.read_text(encoding="utf-8")
    found = {path.relative_to(folder()): text}
    raw = yaml.safe_load(text)
    for name in (raw.get("base"), *raw.get("variants", {}).values(), raw.get("reference")):
        if isinstance(name, str):
            found |= _with_named((path.parent / name).resolve())
    return found


def _name(path: Path) -> str:
    return path.relative_to(folder()).with_suffix("").as_posix()


def _comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip(" ,;:") if first.startswith("#") else ""

"""Classes of other packages, which a config names as `package.module:Class`."""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from types import ModuleType
from typing import Any

from cm2pyro.errors import ConfigError

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
FORM = "package.module:Class"


def is_place(name: object) -> bool:
    """Whether a name says where a class is, and so asks for an import."""
    return isinstance(name, str) and _PLACE.fullmatch(name) is not None


@dataclass(frozen=True)
class Contract:
    """What a class must be, so that a config may name it.

    Attributes:
        base: what it derives from. name: where that is public, for messages. positional: what it is called with before its options;
            None: not checked. needs: attributes and methods that `base` leaves to it.
    """

    base: type
    name: str
    positional: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()

    def fault(self, entry: Any) -> str | None:
        """What is wrong with a class, in words that follow its name; None: nothing."""
        if not (inspect.isclass(entry) and issubclass(entry, self.base) and entry is not self.base):
            found = "another class" if inspect.isclass(entry) else f"{type(entry).__name__}"
            return f"found {found}, expected a subclass of {self.name}; name one"
        lacking = [name for name in self.needs if next((c for c in entry.__mro__ if name in vars(c)), self.base) is self.base]
        if lacking:
            return f"does not define {lacking[0]}, expected {', '.join(self.needs)} as {self.name} says; add it"
        if self.positional is not None and not _takes(entry, self.positional):
            expected = ", ".join((*self.positional, "*", "options"))
            return f"takes {inspect.signature(entry)}, expected ({expected}); options are keyword-only, mend its __init__"
        return None

    def fitting(self, module: ModuleType) -> Iterator[str]:
        """Names of a module that could be meant."""
        return (name for name, entry in vars(module).items() if inspect.isclass(entry) and self.fault(entry) is None)


def _takes(entry: type, positional: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(entry)
        options = {p.name: None for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        signature.bind(*positional, **options)
    except (TypeError, ValueError):
        return False
    return True


def versions_of(places: Iterable[str]) -> dict[str, str]:
    """Top-level module -> version of the distribution that it belongs to, "unknown" where it belongs to none; of a namespace all."""
    tops = {place.partition(":")[0].partition(".")[0] for place in places}
    owners = packages_distributions() if tops else {}
    return {top: ", ".join(version(name) for name in sorted(set(owners.get(top, ())))) or "unknown" for top in sorted(tops)}


def module_of(place: str, where: str) -> ModuleType:
    """Import the module of `package.module:Class`: from where Python looks, and from the current folder if it is nowhere else.

    The folder stays at the end of `sys.path`, so that no file in it takes the place of an installed module.

    Raises:
        ConfigError: there is no such module, or it cannot be imported; begins with `where`.
    """
    path = place.partition(":")[0]
    top = path.partition(".")[0]
    # As with `python -m`, but last; `python -P` asks for neither.
    if top not in sys.modules and not sys.flags.safe_path and importlib.util.find_spec(top) is None:
        with suppress(OSError):  # the current folder was removed
            sys.path += [here for here in [os.getcwd()] if here not in sys.path]
    try:
        return importlib.import_module(path)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent is not None and f"{path}.".startswith(f"{absent}."):
            remedy = f"expected one that is installed, on PYTHONPATH, or in the current folder; mend {FORM}"
            raise ConfigError(f"{where}: {place}: there is no module {absent}; {remedy}") from error
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: {place}: importing {path} failed ({type(error).__name__}: {why}); mend that module") from error

"""Named things that a config can ask for: one table per kind, with checked options."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from cm2pyro.errors import ConfigError

Entry = TypeVar("Entry", bound=Callable[..., Any])


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, and all of them when they are few."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known)}"


class Registry(Generic[Entry]):
    """A table from names to classes. Options are the keyword-only parameters of the class, checked by their annotations.

    Args:
        kind: what the entries are, for messages ("encoder", "fusion", …).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Add an entry. Raises ConfigError if the name is taken by another entry."""
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name")
        self._entries[name] = entry
        return entry

    def names(self) -> list[str]:
        return sorted(self._entries)

    def get(self, name: str, where: str = "") -> Entry:
        """The entry of that name. Raises ConfigError that names the nearest known one."""
        if name not in self._entries:
            prefix = f"{where}: " if where else ""
            raise ConfigError(f"{prefix}unknown {self.kind} '{name}'; {nearest(name, self._entries)}")
        return self._entries[name]

    def options(self, name: str, given: dict[str, Any], where: str, also_known: Iterable[str] = ()) -> dict[str, Any]:
        """Check options against the keyword-only parameters of the entry.

        Args:
            name: the entry. given: the options as read from a config. where: the config key, for messages.
            also_known: other keys that are legal at the same place, for the suggestion.

        Returns:
            The options, converted to their annotated types.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type.
        """
        entry = self.get(name, where)
        parameters = {p.name: p for p in inspect.signature(entry).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for key in given:
            if key not in parameters:
                raise ConfigError(f"{where}.{key}: unknown key for {self.kind} '{name}'; {nearest(key, {*parameters, *also_known})}")
        fields: dict[str, Any] = {
            key: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
            for key, p in parameters.items()
        }
        model: type[BaseModel] = create_model("Options", __config__=ConfigDict(extra="forbid"), **fields)
        try:
            checked = model(**given)
        except ValidationError as error:
            raise ConfigError(describe(error, where)) from error
        return {key: getattr(checked, key) for key in parameters}


def describe(error: ValidationError, where: str = "") -> str:
    """The first problem that pydantic found, in one line: key, what was found, what was expected."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in ([where] if where else []) + [*problem["loc"]])
    found = problem.get("input")
    shown = "" if isinstance(found, dict) else f"; found {found!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{shown}"

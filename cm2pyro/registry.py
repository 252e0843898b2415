"""Named things that a config can ask for: one table per kind, with checked options."""

import datetime
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from cm2pyro.errors import FOREIGN, ConfigError
from cm2pyro.foreign import FORM, Contract, is_place, module_of

__all__ = ["Registry", "describe", "nearest", "not_a_switch", "one_line", "refuse_values"]

Entry = TypeVar("Entry", bound=Callable[..., Any])


_MANY = 30  # names in a list that a message still shows whole


def one_line(text: object, most: int = 200) -> str:
    """Text from a user's file as a message can hold it: one line, printable, cut when long."""
    flat = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in str(text)).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def nearest(name: str, known: Iterable[str], others: Iterable[str] = ()) -> str:
    """A sentence that names the nearest known word, and all of them when they are few. `others` can be nearest, and are not listed."""
    known = sorted(str(word) for word in known)
    close = difflib.get_close_matches(str(name), [*known, *others], n=1, cutoff=0.5)
    hint = f"did you mean '{one_line(close[0])}'? " if close else ""
    more = f" and {len(known) - _MANY} more" if len(known) > _MANY else ""
    return f"{hint}known: {', '.join(one_line(word, 60) for word in known[:_MANY])}{more}"


class UnknownNameError(ConfigError):
    """A name that no registry knows; a program may have registered it."""


class Registry(Generic[Entry]):
    """A table from names to classes. Options are the keyword-only parameters of the class, checked by their annotations.

    Args:
        kind: what the entries are, for messages ("encoder", "fusion", …).
        others: name -> entry or None, asked for names that are not registered; and_also: what it knows, in words, for messages;
        suggested: names that it knows, for suggestions.
        contract: what a class of another package must be; None: the registry takes none. A name `package.module:Class` is then imported.
    """

    def __init__(
        self,
        kind: str,
        others: Callable[[str], Entry | None] | None = None,
        and_also: str = "",
        suggested: Callable[[], Iterable[str]] = tuple,
        contract: Contract | None = None,
    ) -> None:
        self.kind = kind
        self._entries: dict[str, Entry | str] = {}
        self._others = others
        self._and_also = and_also
        self._suggested = suggested
        self.contract = contract

    def __contains__(self, name: object) -> bool:
        """Whether a name is registered, or says where a class of another package is."""
        return name in self._entries or (self.contract is not None and is_place(name))

    def register(self, name: str, entry: Entry | str) -> Entry | str:
        """Add an entry, or where it is, as `package.module:Name`: it is then imported when first asked for.

        Raises:
            ConfigError: the name is taken by another entry.
        """
        if not _same(self._entries.get(name, entry), entry):
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name")
        self._entries[name] = entry
        return entry

    def register_foreign(self, name: str, entry: Entry | str) -> None:
        """As `register`, for a class of another package, which is checked; one that is defined anew, as in a notebook, takes its own place.

        Raises:
            ConfigError: the name is none or is taken, or the class is not what a config may name.
        """
        where = f"{self.kind} '{one_line(name, 60)}'"
        if not name.isidentifier():
            raise ConfigError(f"{where}: expected a name of letters, digits and underscores; choose another")
        if self._others is not None and self._others(name) is not None:
            raise ConfigError(f"{where} is there already; choose another name")
        fault = None
        if isinstance(entry, str):
            fault = None if is_place(entry) else f"found '{one_line(entry, 60)}', expected a class or {FORM}; mend it"
        elif self.contract is not None:
            fault = self.contract.fault(entry)
        if fault is not None:
            raise ConfigError(f"{where}: {fault}")
        self.register(name, entry)

    def names(self) -> list[str]:
        """Registered names, in alphabetical order."""
        return sorted(self._entries)

    def get(self, name: str, where: str = "", foreign: bool = True) -> Entry:
        """The entry of that name.

        Args:
            where: the config key, for messages. foreign: whether `package.module:Class` may be imported.

        Raises:
            ConfigError: an unknown name, with the nearest known one; a class that is not there, or not what a config may name.
        """
        entry = self._entries.get(name)
        if isinstance(entry, str):
            entry = self._entries[name] = self._at(entry, where or f"{self.kind} '{name}'")
        elif entry is None and foreign and name in self:
            entry = self._at(name, where or self.kind)
        if entry is not None:
            return entry
        found = self._others(name) if self._others is not None else None
        if found is None:
            prefix = f"{where}: " if where else ""
            also = self._and_also + (f", a class of your own as {FORM}" if foreign and self.contract is not None else "")
            if not foreign and ":" in name:
                also += "; nothing is imported here: register the class under a name first, or make it by its own from_tau"
            raise UnknownNameError(
                f"{prefix}unknown {self.kind} '{one_line(name, 60)}'; {nearest(name, self._entries, self._suggested())}{also}"
            )
        return found

    def _at(self, place: str, where: str) -> Entry:
        """What stands at `package.module:Class`."""
        module, name = module_of(place, where), place.partition(":")[2]
        entry: Entry | None = getattr(module, name, None)
        if entry is None:
            fitting = list(self.contract.fitting(module)) if self.contract is not None else []
            known = nearest(name, fitting) if fitting else f"it has no {self.kind}"
            raise ConfigError(f"{where}: {place}: {module.__name__} has no {name}; {known}")
        fault = self.contract.fault(entry) if self.contract is not None else None
        if fault is not None:
            raise ConfigError(f"{where}: {place}: {fault}")
        if not module.__name__.startswith("cm2pyro."):
            FOREIGN.add(module.__name__)
        return entry

    def keywords(self, name: str, where: str = "") -> set[str]:
        """Names of the options of an entry."""
        return {p.name for p in _signature(self.get(name, where)).parameters.values() if p.kind is p.KEYWORD_ONLY}

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
        parameters = {p.name: p for p in _signature(entry).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for key in given:
            if key not in parameters:
                known = {*parameters, *also_known}
                raise ConfigError(f"{where}.{one_line(key, 60)}: unknown key for {self.kind} '{name}'; {nearest(key, known)}")
        fields: dict[str, Any] = {
            key: (_guarded(p.annotation), ... if p.default is p.empty else p.default) for key, p in parameters.items()
        }
        settings = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
        model: type[BaseModel] = create_model("Options", __config__=settings, **fields)
        try:
            checked = model(**given)
        except ValidationError as error:
            raise ConfigError(describe(error, where)) from error
        return {key: getattr(checked, key) for key in parameters}


def _same(one: Any, other: Any) -> bool:
    """Whether two entries are one class, perhaps defined again."""
    names = [(getattr(entry, "__module__", None), getattr(entry, "__qualname__", None)) for entry in (one, other)]
    return one == other or (inspect.isclass(one) and inspect.isclass(other) and names[0] == names[1])


def _signature(entry: Callable[..., Any]) -> inspect.Signature:
    try:
        # A module with `from __future__ import annotations` has its annotations as text.
        return inspect.signature(entry, eval_str=True)
    except (NameError, AttributeError, SyntaxError, TypeError):
        return inspect.signature(entry)  # names that exist only for the type checker: those options go unchecked


def not_a_switch(value: Any) -> Any:
    """A validator for numbers: pydantic reads true and false as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, true and false are none; write one")
    return value


def _guarded(annotation: Any) -> Any:
    """The annotation, with switches refused where it asks for a number. Unresolved annotations check nothing."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return Any
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation) or (annotation,)
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}
    return Annotated[annotation, BeforeValidator(not_a_switch)] if kinds & {int, float} and bool not in kinds else annotation


def refuse_values(raw: Any, where: str) -> None:
    """Raises ConfigError for what JSON has no word for, wherever it stands: options and prior arguments are typed only later."""
    for key, value in leaves(raw):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {key}: found {value}, expected a finite number; write one")
        if isinstance(value, bytes | set | frozenset | datetime.date):
            found = f"{one_line(value, 60)} ({type(value).__name__})"
            raise ConfigError(f"{where}: {key}: found {found}, expected text, a number, a list or a mapping; quote it")


def leaves(raw: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """`a.b.0` -> value, of everything in nested mappings and lists."""
    inner = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list | tuple) else None
    if inner is None:
        yield key, raw
        return
    for part, value in inner:
        yield from leaves(value, f"{key}.{one_line(part, 60)}" if key else one_line(part, 60))


def describe(error: ValidationError, where: str = "") -> str:
    """The first problem that pydantic found, in one line: key, what was found, what was expected."""
    problem = error.errors()[0]
    key = ".".join(one_line(part, 60) for part in ([where] if where else []) + [*problem["loc"]])
    found = problem.get("input")
    shown = "" if isinstance(found, dict | BaseModel) else f"; found {one_line(repr(found), 80)}"
    message = one_line(problem["msg"].removeprefix("Value error, "), 300)
    return f"{key}: {message}{shown}" if key else f"{message}{shown}"

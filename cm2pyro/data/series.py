"""Time series as they come: long or wide, a file a sample or one table for all."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.csv_file import read_columns
from cm2pyro.data.manifest import Manifest, own_lines
from cm2pyro.data.parquet import is_parquet
from cm2pyro.data.table import NO_CLOCK, as_text, parse_numbers, read_table
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

Part = tuple[pd.DataFrame, Callable[[int], str]]  # measurements, and where their record stands, for messages
_VARIABLES = 10_000  # a dense grid has a column for each
HOURS, BIN_HOURS = 48.0, 2.0  # the window and the bins where a config names none


@dataclass(frozen=True)
class Events:
    """Measurements of all samples, ordered by sample, variable, time; missing values dropped.

    Attributes:
        samples: (E,) row of the manifest. variables: (E,) index into names. hours, values: (E,) float64.
        names: the variables. rows: number of samples. remarks: what the reader of the data should know.
    """

    samples: NDArray[np.int64]
    variables: NDArray[np.int64]
    hours: NDArray[np.float64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    rows: int
    remarks: tuple[str, ...] = ()

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(rows,) which samples have at least one measurement."""
        return np.bincount(self.samples, minlength=self.rows) > 0

    def select(self, names: tuple[str, ...]) -> "Events":
        """The same measurements with variables numbered by `names`; others are dropped."""
        if names == self.names:
            return self  # ordered already, and sorting is what costs
        place = np.array([names.index(name) if name in names else -1 for name in self.names] or [-1], dtype=np.int64)
        variables = place[self.variables] if len(self.variables) else self.variables
        keep = variables >= 0
        return _ordered(self.samples[keep], variables[keep], self.hours[keep], self.values[keep], names, self.rows)


def read_series(manifest: Manifest, name: str, modality: Modality) -> Events:
    """Read a time-series modality within its window (0 to `hours`, both included).

    Measurements outside the window are left out, those out of order are put in order; how many there were, and where the
    first is, stands in `remarks`.

    Raises:
        DataError: a file or table that is not there, lacks its columns, or holds something that is not a number.
    """
    table = modality.table
    remarks: list[str] = []
    parts = _from_files(manifest, modality.column or name) if table is None else [_from_table(manifest, name, table, remarks)]
    kept = []
    for long, place in parts:
        inside_window = _within(long, modality.hours or HOURS, name, place, remarks)
        _say_disorder(long, name, place, remarks)
        kept.append(long[inside_window])
    long = pd.concat(kept, ignore_index=True) if len(kept) > 1 else (kept or [_NOTHING])[0]
    variables, names = pd.factorize(long["variable"], sort=True)
    if len(names) > _VARIABLES:
        where = f"modality {name} ({table or modality.column or name})"
        raise DataError(
            f"{manifest.name}, {where}: {len(names):,} variables, such as '{one_line(names[0], 60)}'; expected at most {_VARIABLES:,}; "
            "look whether another column stands in the place of variable"
        )
    events = _ordered(
        long["row"].to_numpy(), variables.astype(np.int64), long["hours"].to_numpy(), long["value"].to_numpy(), tuple(names), len(manifest)
    )
    return replace(events, remarks=tuple(remarks))


def _within(long: pd.DataFrame, window: float, name: str, place: Callable[[int], str], remarks: list[str]) -> NDArray[np.bool_]:
    """(E,) which measurements lie in the window."""
    within: NDArray[np.bool_] = ((long["hours"] >= 0) & (long["hours"] <= window)).to_numpy()
    outside = long["record"].to_numpy()[~within]
    if len(outside):
        # Wide tables come a variable at a time: the first is that of the lines of the file.
        remarks.append(
            f"modality {name}: {len(outside):,} measurements outside 0 to {window:g} hours are left out, first {place(int(outside.min()))}"
        )
    return within


def _say_disorder(long: pd.DataFrame, name: str, place: Callable[[int], str], remarks: list[str]) -> None:
    # Wide tables come a variable at a time: the order that counts is that of the lines of the file.
    order = np.argsort(long["record"].to_numpy(), kind="stable")
    rows, hours = long["row"].to_numpy()[order], long["hours"].to_numpy()[order]
    by_row = np.argsort(rows, kind="stable")
    back = np.flatnonzero((np.diff(rows[by_row]) == 0) & (np.diff(hours[by_row]) < 0))
    if len(back):
        samples = len(np.unique(rows[by_row][back]))
        first = long["record"].to_numpy()[order][by_row][back[0] + 1]
        remarks.append(f"modality {name}: hours out of order in {samples:,} samples, put in order; first {place(first)}")


def _from_table(manifest: Manifest, name: str, table: str, remarks: list[str]) -> Part:
    where = f"{table} (modality {name})"
    frame = read_table(manifest.table(table, name), where, numbers=True)
    if "sample_id" not in frame:
        raise DataError(f"{where}: column 'sample_id' is missing; expected sample_id, hours and the measurements; add it")
    frame, rows, strange = own_lines(frame, manifest, f"modality {name}: {table}")
    remarks += strange
    place = _lines(where, frame.index)
    return _long(frame.drop(columns="sample_id"), rows, where, place), place


def _from_files(manifest: Manifest, column: str) -> list[Part]:
    """A file a sample. Files with the same header are parsed together: for thousands of small ones that is 20 times quicker."""
    if column not in manifest.frame:
        return []
    groups: dict[tuple[str, ...], _Group] = {}
    parts = []
    for row, cell in enumerate(manifest.frame[column]):
        if cell == "":
            continue
        where = f"{one_line(cell)} ({manifest.where(row)})"
        path = manifest.file(row, column)
        if is_parquet(path):
            frame = read_table(path, where, numbers=True)
            lines_of = _lines(where, frame.index)
            parts.append((_long(frame, np.full(len(frame), row), where, lines_of), lines_of))
            continue
        columns, lines = read_columns(path, where)
        group = groups.setdefault(tuple(columns), _Group(where, {name: [] for name in columns}))
        for name, cells in columns.items():
            group.columns[name] += cells
        group.lines += lines
        group.rows += [row] * len(lines)
    for group in groups.values():
        frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in group.columns.items()})

        def place(i: int, group: _Group = group) -> str:
            row = group.rows[i]
            return f"{one_line(manifest.frame[column].iloc[row])} ({manifest.where(row)}), line {group.lines[i]}"

        parts.append((_long(frame, np.array(group.rows, dtype=np.int64), group.where, place), place))
    return parts


def _lines(where: str, lines: pd.Index) -> Callable[[int], str]:
    return lambda i: f"{where}, line {lines[i]}"


@dataclass
class _Group:
    """Records of the files that share a header. `where` names the first of them."""

    where: str
    columns: dict[str, list[str]]
    lines: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def _ordered(
    samples: NDArray[np.int64],
    variables: NDArray[np.int64],
    hours: NDArray[np.float64],
    values: NDArray[np.float64],
    names: tuple[str, ...],
    rows: int,
) -> Events:
    cell = samples * max(len(names), 1) + variables
    if not (np.diff(cell) < 0).any() and not ((np.diff(cell) == 0) & (np.diff(hours) < 0)).any():
        return Events(samples, variables, hours, values, names, rows)
    order = np.lexsort((hours, variables, samples))
    return Events(samples[order], variables[order], hours[order], values[order], names, rows)


def _long(frame: pd.DataFrame, rows: NDArray[np.int64], where: str, place: Callable[[int], str]) -> pd.DataFrame:
    """Columns row, hours, variable, value, record (position in `frame`), without missing values.

    Long tables have `variable` and `value`; others are wide. `where` names the file and `place(i)` the line of record i, for
    messages.
    """
    columns: dict[str, str] = {}
    for column in frame.columns:
        key = column.strip().lower()
        if key in columns and key in ("hours", "variable", "value"):
            raise DataError(f"{where}: columns '{columns[key]}' and '{column}' both are {key}; expected one; rename the other")
        columns.setdefault(key, column)
    if "hours" not in columns:
        raise DataError(
            f"{where}: column 'hours' is missing; expected hours, variable, value (long) or hours and a column a variable (wide); "
            f"found {', '.join(one_line(column, 40) for column in frame.columns[:6])}; rename or add it"
        )
    hours = _numbers(frame[columns["hours"]], place, NO_CLOCK)
    for i in np.flatnonzero(np.isnan(hours))[:1]:
        raise DataError(f"{place(i)}, column '{columns['hours']}': is empty, expected a finite number; fill it or remove the line")
    if "variable" in columns and "value" in columns:
        variable = as_text(frame[columns["variable"]])
        for i in np.flatnonzero(variable == "")[:1]:
            raise DataError(f"{place(i)}: variable is empty, expected its name; name it or remove the line")
        values = _numbers(frame[columns["value"]], place)
        there = ~np.isnan(values)
        return _table(rows[there], hours[there], variable[there], values[there], np.flatnonzero(there))
    others = [column for column in frame.columns if column != columns["hours"]]
    if not others:
        raise DataError(f"{where}: only hours are there; expected a column a variable; add them")
    parts = []
    for column in others:
        values = _numbers(frame[column], place)
        there = ~np.isnan(values)
        parts.append(_table(rows[there], hours[there], np.full(there.sum(), column, dtype=object), values[there], np.flatnonzero(there)))
    return pd.concat(parts, ignore_index=True)


def _table(
    rows: NDArray[np.int64], hours: NDArray[np.float64], variable: NDArray[Any], values: NDArray[np.float64], records: NDArray[np.int64]
) -> pd.DataFrame:
    return pd.DataFrame({"row": rows, "hours": hours, "variable": pd.Series(variable, dtype=object), "value": values, "record": records})


_NOTHING = _table(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, dtype=object), np.zeros(0), np.zeros(0, np.int64))


def _numbers(cells: pd.Series, place: Callable[[int], str], remedy: str = "correct it or leave it empty") -> NDArray[np.float64]:
    """Finite numbers, NaN for an empty cell. Raises DataError naming the line."""
    values, wrong = parse_numbers(cells)
    for i in wrong[:1]:
        raise DataError(
            f"{place(i)}, column '{one_line(cells.name, 60)}': found '{one_line(cells.iloc[i], 60)}', expected a finite number; {remedy}"
        )
    return values

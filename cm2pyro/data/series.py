"""Time series as they come: long or wide, a file a sample or one table for all."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.manifest import Manifest, inside, read_table
from cm2pyro.errors import DataError

HOURS, BIN_HOURS = 48.0, 2.0  # the window and the bins where a config names none


@dataclass(frozen=True)
class Events:
    """Measurements of all samples, ordered by sample, variable, time; missing values dropped.

    Attributes:
        samples: (E,) row of the manifest. variables: (E,) index into names. hours, values: (E,) float64.
        names: the variables. rows: number of samples.
    """

    samples: NDArray[np.int64]
    variables: NDArray[np.int64]
    hours: NDArray[np.float64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    rows: int

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(rows,) which samples have at least one measurement."""
        return np.bincount(self.samples, minlength=self.rows) > 0

    def select(self, names: tuple[str, ...]) -> "Events":
        """The same measurements with variables numbered by `names`; others are dropped."""
        place = np.array([names.index(name) if name in names else -1 for name in self.names] or [-1], dtype=np.int64)
        variables = place[self.variables] if len(self.variables) else self.variables
        keep = variables >= 0
        return _ordered(self.samples[keep], variables[keep], self.hours[keep], self.values[keep], names, self.rows)


def read_series(manifest: Manifest, name: str, modality: Modality) -> Events:
    """Read a time-series modality within its window (0 to `hours`, both included).

    Raises:
        DataError: a file or table that is not there, lacks its columns, or holds something that is not a number.
    """
    rows = {sample: i for i, sample in enumerate(manifest.ids)}
    if modality.table is not None:
        where = f"{modality.table} (modality {name})"
        frame = read_table(inside(manifest.root, modality.table, f"modality {name}, table"), where, numbers=True)
        if "sample_id" not in frame:
            raise DataError(f"{where}: column 'sample_id' is missing; expected sample_id, hours and the measurements")
        known = frame["sample_id"].map(rows)
        # Lines of other samples are legal: one table can serve several manifests.
        frame, known = frame[known.notna()], known[known.notna()]
        long = _long(frame.drop(columns="sample_id"), known.to_numpy(dtype=np.int64), where)
    else:
        column = modality.column or name
        parts = []
        cells = manifest.frame[column] if column in manifest.frame else [""] * len(manifest)
        for row, cell in enumerate(cells):
            if cell != "":
                path = manifest.file(row, column)
                where = f"{cell} ({manifest.where(row)})"
                frame = read_table(path, where)
                parts.append(_long(frame, np.full(len(frame), row, dtype=np.int64), where))
        long = (
            pd.concat(parts, ignore_index=True) if parts else _long(pd.DataFrame(columns=["hours"], dtype=str), np.zeros(0, np.int64), name)
        )
    window = modality.hours or HOURS
    long = long[(long["hours"] >= 0) & (long["hours"] <= window)]
    variables, names = pd.factorize(long["variable"], sort=True)
    return _ordered(
        long["row"].to_numpy(), variables.astype(np.int64), long["hours"].to_numpy(), long["value"].to_numpy(), tuple(names), len(manifest)
    )


def _ordered(
    samples: NDArray[np.int64],
    variables: NDArray[np.int64],
    hours: NDArray[np.float64],
    values: NDArray[np.float64],
    names: tuple[str, ...],
    rows: int,
) -> Events:
    order = np.lexsort((hours, variables, samples))
    return Events(samples[order], variables[order], hours[order], values[order], names, rows)


def _long(frame: pd.DataFrame, rows: NDArray[np.int64], where: str) -> pd.DataFrame:
    """Columns row, hours, variable, value, without missing values. Long tables have `variable` and `value`; others are wide."""
    columns = {str(column).strip().lower(): column for column in frame.columns}
    if "hours" not in columns:
        raise DataError(
            f"{where}: column 'hours' is missing; expected hours, variable, value (long) or hours and a column a variable (wide); "
            f"found {', '.join(map(str, frame.columns[:6]))}"
        )
    hours = _numbers(frame[columns["hours"]], "hours", where, empty=False)
    if "variable" in columns and "value" in columns:
        variable = frame[columns["variable"]].to_numpy(dtype=object)
        for i in np.flatnonzero(variable == "")[:1]:
            raise DataError(f"{where}, line {i + 2}: variable is empty; name it or remove the line")
        long = pd.DataFrame({"row": rows, "hours": hours, "variable": variable, "value": _numbers(frame[columns["value"]], "value", where)})
    else:
        others = [column for column in frame.columns if column != columns["hours"]]
        if not others:
            raise DataError(f"{where}: only hours are there; expected a column a variable")
        parts = [
            pd.DataFrame({"row": rows, "hours": hours, "variable": str(column), "value": _numbers(frame[column], str(column), where)})
            for column in others
        ]
        long = pd.concat(parts, ignore_index=True)
    return long[long["value"].notna()]


def _numbers(cells: pd.Series, column: str, where: str, empty: bool = True) -> NDArray[np.float64]:
    """Finite numbers, NaN for an empty cell. Raises DataError naming the line."""
    if pd.api.types.is_numeric_dtype(cells):
        blank = cells.isna().to_numpy() if empty else np.zeros(len(cells), dtype=bool)
    else:
        cells = cells.astype(str).str.strip()
        blank = cells.str.lower().isin(["", "nan"] if empty else []).to_numpy()
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    for i in np.flatnonzero(~np.isfinite(numbers) & ~blank)[:1]:
        found = cells.iloc[i]
        raise DataError(
            f"{where}, line {i + 2}, column '{column}': found '{found}', expected a finite number; correct it or leave it empty"
        )
    return numbers

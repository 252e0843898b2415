"""The official CSV tables, read as streams: some columns, any case of the header, compressed or not, in bounded memory.

CHARTEVENTS of MIMIC-III has 33 GB. A table is read in blocks of `_BLOCK` bytes and only the columns asked for are kept, as text. The reader
parses some blocks ahead and holds about 0.6 GB of them, the same for 10 million rows as for 30 million (1 and 3 GB, measured). Nothing here
grows with the table but `Table.frame`, which is for small ones (patients, admissions, stays) and for the rows of some keys.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from cm2pyro.errors import DataError
from cm2pyro.registry import nearest, one_line

__all__ = ["Rows", "Table", "find_table", "look_for_table", "numbers", "rows", "seconds", "timestamps"]

_BLOCK = 1 << 24  # bytes of text parsed at a time; also the longest row that can be read
_AGAIN = "download the table again"


@dataclass(frozen=True)
class Rows:
    """A block of a table: `columns` (n,) object arrays of text by lower-case name, '' where empty; `lines` (n,) rows of the file."""

    columns: dict[str, NDArray[np.object_]]
    lines: NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """A table on disk. `names`: its columns by lower-case name, as the file spells them."""

    path: Path
    names: dict[str, str]

    def where(self, line: int, column: str) -> str:
        """How a cell is named in messages; the header is row 1."""
        return f"{self.path}, row {line:,}, column {self.names.get(column, column)}"

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(row of the file, block) of the columns, named in lower case, every cell text.

        Raises:
            DataError: the file ends early, or holds a row that is not as wide as the header or not UTF-8.
        """
        actual = [self.names[name] for name in columns]
        try:
            reader = pacsv.open_csv(
                self.path,
                read_options=pacsv.ReadOptions(block_size=_BLOCK),
                parse_options=pacsv.ParseOptions(newlines_in_values=True),
                # Only an empty cell is empty: "None" is a level of the coma scale, and no id is NA.
                convert_options=pacsv.ConvertOptions(
                    include_columns=actual, column_types=dict.fromkeys(actual, pa.string()), strings_can_be_null=False, null_values=[]
                ),
            )
            line = 2
            for batch in reader:
                yield line, batch.rename_columns(list(columns))
                line += len(batch)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise DataError(f"{self.path}: cannot be read ({one_line(error)}); expected a complete CSV table in UTF-8; {_AGAIN}") from error

    def frame(self, columns: Sequence[str], of: tuple[str, Iterable[str]] | None = None) -> pd.DataFrame:
        """Rows of some columns, object columns of text; the index is the row of the file.

        Args:
            of: one of the columns, and the values that it must have in the rows to return; None returns all rows.
        """
        wanted = None if of is None else pa.array(list(of[1]), pa.string())
        blocks = []
        for line, batch in self.batches(columns):
            keep = np.ones(len(batch), bool) if of is None else pc.is_in(batch[of[0]], wanted).to_numpy(zero_copy_only=False)
            blocks.append(rows(batch.filter(pa.array(keep)), line + np.flatnonzero(keep)))
        lines = np.concatenate([np.zeros(0, np.int64), *(block.lines for block in blocks)])
        cells = {name: np.concatenate([np.zeros(0, object), *(block.columns[name] for block in blocks)]) for name in columns}
        return pd.DataFrame({name: pd.Series(values, lines, dtype=object) for name, values in cells.items()}, index=lines)


def rows(batch: pa.RecordBatch, lines: NDArray[np.int64]) -> Rows:
    """A block of text columns as arrays. lines: the rows of the file."""
    return Rows({name: batch[name].to_numpy(zero_copy_only=False) for name in batch.schema.names}, lines)


def find_table(folder: Path, name: str, columns: Sequence[str] | None, within: Sequence[str] = ()) -> Table:
    """As `look_for_table`, and DataError too where no such file is."""
    found = look_for_table(folder, name, columns, within)
    if found is None:
        where = f", nor has its folder {' or '.join(within)}" if within else ""
        raise DataError(f"{folder}: has no {name}.csv or {name}.csv.gz{where}; expected the table; download it into that folder")
    return found


def look_for_table(folder: Path, name: str, columns: Sequence[str] | None, within: Sequence[str] = ()) -> Table | None:
    """The table `name`.csv or `name`.csv.gz, in any case, in `folder` or in one of its subfolders `within`; None where no such file is.

    Args:
        columns: those that it must have, in lower case.

    Raises:
        DataError: no folder, two such files, not readable, or a column is missing.
    """
    places = [folder, *(folder / sub for sub in within)]
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise DataError(f"{folder}: {what}, expected the folder with the tables of MIMIC; name it with --records")
        wanted = (f"{name}.csv", f"{name}.csv.gz")
        found = sorted(path for place in places if place.is_dir() for path in place.iterdir() if path.name.lower() in wanted)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}); check the folder and its permissions") from error
    if not found:
        return None
    if len(found) > 1:
        raise DataError(
            f"{folder}: has both {found[0].relative_to(folder)} and {found[1].relative_to(folder)}; expected one; remove the other"
        )
    names = _header(found[0])
    for column in columns or ():
        if column not in names:
            raise DataError(f"{found[0]}, row 1: column {column.upper()} is missing; {nearest(column, names)}; {_AGAIN}")
    return Table(found[0], names)


def _header(path: Path) -> dict[str, str]:
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            line = stream.readline(_BLOCK).decode("utf-8-sig")
        header = next(csv.reader([line], strict=True), [])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, row 1: is not UTF-8 text; expected the header of a CSV table; {_AGAIN}") from error
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise DataError(f"{path}: cannot be read ({reason}); expected a CSV table, gzipped if it is named .gz; {_AGAIN}") from error
    names: dict[str, str] = {}
    for column in header:
        if column.strip().lower() in names:
            raise DataError(f"{path}, row 1: column {one_line(column, 40)} stands twice; expected every name once; {_AGAIN}")
        names[column.strip().lower()] = column
    if not any(names):
        raise DataError(f"{path}: is empty, expected a header and rows; {_AGAIN}")
    return names


def timestamps(cells: NDArray[np.object_], place: Callable[[int], str], empty: bool = False) -> NDArray[np.datetime64]:
    """Times such as 2150-03-01 07:30:00, or dates, as datetime64[s]; NaT for an empty cell where `empty` allows it.

    Raises:
        DataError: a cell is neither; `place(i)` names it.
    """
    array = pa.array(cells, pa.string())
    if empty:
        array = pa.array(np.where(cells == "", None, cells), pa.string())  # type: ignore[call-overload]
    try:
        return array.cast(pa.timestamp("s")).to_numpy(zero_copy_only=False).astype("datetime64[s]")
    except pa.ArrowInvalid:
        for i, cell in enumerate(array):
            try:
                cell.cast(pa.timestamp("s"))
            except pa.ArrowInvalid:
                found = one_line(cells[i], 40)
                raise DataError(f"{place(i)}: found the time '{found}', expected one such as 2150-03-01 07:30:00; {_AGAIN}") from None
        raise


def seconds(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Times without gaps as whole seconds since 1970."""
    return times.astype("datetime64[s]").astype(np.int64)


def numbers(cells: NDArray[np.object_], place: Callable[[int], str]) -> NDArray[np.float64]:
    """Numbers of a numeric column, NaN for an empty cell. Raises DataError where a cell is not a finite number; `place(i)` names it."""
    try:
        values = np.where(cells == "", "nan", cells).astype(np.float64)
    except ValueError:
        values = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    for i in np.flatnonzero(~np.isfinite(values) & (cells != ""))[:1]:
        raise DataError(f"{place(i)}: found '{one_line(cells[i], 40)}', expected a finite number or nothing; {_AGAIN}")
    return values

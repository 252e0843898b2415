"""Tables as text: CSV and Parquet files whose cells stay what they are, and numbers where numbers are asked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cm2pyro.data.csv_file import check_names, read_columns
from cm2pyro.data.parquet import is_parquet, read_parquet, readable
from cm2pyro.files import open_regular


def read_table(path: Path, where: str = "", numbers: bool = False, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV or Parquet file with every column as text; an empty cell is ''. Raises DataError, one line.

    The index is the row in the file as a spreadsheet counts, the header being row 1.

    Args:
        where: how messages name the file. numbers: numeric columns of a Parquet file other than sample_id stay numeric, as float64:
            long tables have millions of rows. columns: those to read of a Parquet file, if they are there; None: all.
    """
    where = where or str(path)
    if is_parquet(path):
        return _read_parquet(path, where, numbers, columns)
    cells, rows = read_columns(path, where)
    return text_frame(cells, rows)


def _read_parquet(path: Path, where: str, numbers: bool, columns: Sequence[str] | None) -> pd.DataFrame:
    # An open file: from a path pyarrow would also read folders, and columns from folder names such as split=1.
    with readable(where, "expected a Parquet file; write it again or correct the path"), open_regular(path) as opened:
        table = read_parquet(opened, where, columns)
        names = [name for name in table.column_names if not name.startswith("__index_level_")]
        check_names(names, where)
        kept = [name for name in names if numbers and name != "sample_id" and _is_numeric(table[name].type)]
        cells = {name: _as_floats(table[name]) if name in kept else column_text(table[name]) for name in names}
        return text_frame(cells, range(2, len(table) + 2))


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _as_floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def column_text(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Cells of a column of a Parquet file as text, '' where one is missing."""
    kind = column.type
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        # Equal words share one str.
        parts = [_words(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=object)
    if pa.types.is_integer(kind):
        column = column.cast(pa.string())  # exact, also beyond 2^53 and beside gaps
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(column.fill_null("").to_numpy(), dtype=object)
    return as_text(pd.Series(column.to_pylist(), dtype=object))


def _words(chunk: pa.DictionaryArray) -> NDArray[np.object_]:
    words = np.array([*chunk.dictionary.fill_null("").to_pylist(), ""], dtype=object)
    return words[chunk.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]


def text_frame(columns: dict[str, Any], rows: Iterable[int]) -> pd.DataFrame:
    """Columns of cells as a frame indexed by `rows`; those of text hold plain str, where pandas 3 would infer a dtype of its own."""
    made = {name: cells if isinstance(cells, np.ndarray) else np.array(cells, dtype=object) for name, cells in columns.items()}
    index = pd.Index(list(rows) if not isinstance(rows, range) else rows)
    return pd.DataFrame({name: pd.Series(cells, index, dtype=cells.dtype) for name, cells in made.items()}, index=index)


def as_text(column: pd.Series) -> NDArray[np.object_]:
    """Cells as text, '' where one is missing."""
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False) == "string":
        return column.to_numpy()
    missing = column.isna().to_numpy()
    cells = column.astype(object).tolist()
    return np.array(["" if gap else _plain(cell) for cell, gap in zip(cells, missing, strict=True)], dtype=object)


def _plain(value: Any) -> str:
    # Whole floats lose their '.0', which pandas adds to integer columns with gaps; arrays become JSON lists.
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        try:
            return str(np.asarray(value, dtype=np.float64).tolist())
        except (OverflowError, TypeError, ValueError):
            return str(value)
    return str(value)


NO_CLOCK = "hours count from the start of the stay, as 6.5; from a clock time subtract that of the start"  # what to do about a clock time


def parse_numbers(cells: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Numbers of a column, NaN where a cell is empty or says nan; and the positions of cells that are not finite numbers."""
    if pd.api.types.is_numeric_dtype(cells):
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
        return values, np.flatnonzero(np.isinf(values))
    text = cells.to_numpy(dtype=object)
    values = pd.to_numeric(pd.Series(text, dtype=object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = np.flatnonzero(~np.isfinite(values))
    return values, np.array([i for i in odd if text[i] != "" and text[i].strip().lower() not in ("", "nan")], dtype=np.int64)

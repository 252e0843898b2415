"""Parquet files that are read whole: refused where some bytes of file would unfold into gigabytes of memory."""

import os
import subprocess
import sys
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cm2pyro.data import count_values
from cm2pyro.errors import DataError

# A file may hold this much whatever its size, or so much for each of its bytes: tables of measurements have 1 to 10 values and 5 to 30
# bytes of text for each.
_VALUES, _VALUES_EACH = 30_000_000, 100
_BYTES, _BYTES_EACH = 256 << 20, 200
_SECONDS = 120  # to count the values in lists, which takes one


def read_parquet(opened: BinaryIO, where: str) -> pa.Table:
    """A table whose text columns are dictionaries, so that a word which stands in every row is held once.

    Raises:
        DataError: more values, or more bytes once unpacked, than the limits allow. Whatever else pyarrow raises for a damaged file.
    """
    size = os.fstat(opened.fileno()).st_size
    file = pq.ParquetFile(opened)
    about = file.metadata
    values = about.num_rows * about.num_columns
    if any(file.schema.column(j).max_repetition_level for j in range(about.num_columns)):
        values = max(values, _values_in_lists(opened))
    _check(values, max(_VALUES, _VALUES_EACH * size), "values", size, where)
    # Nothing is asked of single columns here: of a damaged file `row_group(i).column(j)` can end the process.
    unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    _check(unpacked, max(_BYTES, _BYTES_EACH * size), "bytes once unpacked", size, where)
    flat = [field.name for field in file.schema_arrow if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    table = pq.ParquetFile(opened, read_dictionary=flat).read()
    for column in table.columns:
        if pa.types.is_dictionary(column.type) and len(column):
            text = sum(pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0 for chunk in column.chunks)
            _check(text, max(_BYTES, _BYTES_EACH * size), "bytes of text", size, where)
    return table


def _values_in_lists(opened: BinaryIO) -> int:
    opened.seek(0)
    command = [sys.executable, count_values.__file__]
    try:
        done = subprocess.run(command, stdin=opened, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        done = None
    opened.seek(0)  # both processes share the place in the file
    if done is None or done.returncode:
        raise ValueError("the description of its columns is damaged")
    return int(done.stdout)


def _check(found: int, most: int, what: str, size: int, where: str) -> None:
    if found > most:
        raise DataError(
            f"{where}: holds {found:,} {what}, and the file has {size:,}; expected at most {most:,}; split the table, or write it plainly"
        )

"""Parquet files that are read whole: refused where some bytes of file would unfold into gigabytes of memory."""

import os
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cm2pyro.errors import DataError

# A file may hold this much whatever its size, or so much for each of its bytes: tables of measurements have 1 to 10 values and 5 to 30
# bytes of text for each.
_VALUES, _VALUES_EACH = 30_000_000, 100
_BYTES, _BYTES_EACH = 256 << 20, 200


def read_parquet(opened: BinaryIO, where: str) -> pa.Table:
    """A table whose text columns are dictionaries, so that a word which stands in every row is held once.

    Raises:
        DataError: more values, or more bytes once unpacked, than the limits allow. Whatever else pyarrow raises for a damaged file.
    """
    size = os.fstat(opened.fileno()).st_size
    file = pq.ParquetFile(opened)
    about = file.metadata
    chunks = [about.row_group(i).column(j) for i in range(about.num_row_groups) for j in range(about.num_columns)]
    values = max(about.num_rows * about.num_columns, sum(chunk.num_values for chunk in chunks))
    _check(values, max(_VALUES, _VALUES_EACH * size), "values", size, where)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    _check(unpacked, max(_BYTES, _BYTES_EACH * size), "bytes once unpacked", size, where)
    flat = [field.name for field in file.schema_arrow if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    table = pq.ParquetFile(opened, read_dictionary=flat).read()
    for column in table.columns:
        if pa.types.is_dictionary(column.type) and len(column):
            text = sum(pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0 for chunk in column.chunks)
            _check(text, max(_BYTES, _BYTES_EACH * size), "bytes of text", size, where)
    return table


def _check(found: int, most: int, what: str, size: int, where: str) -> None:
    if found > most:
        raise DataError(
            f"{where}: holds {found:,} {what}, and the file has {size:,}; expected at most {most:,}; split the table, or write it plainly"
        )

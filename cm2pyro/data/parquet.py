"""Parquet files, whole or some rows at a time: refused where some bytes of file would unfold into gigabytes of memory."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cm2pyro.data import count_values
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

# A file may hold this much whatever its size, or so much for each of its bytes: tables of measurements have 1 to 10 values and 5 to 30
# bytes of text for each.
_VALUES, _VALUES_EACH = 30_000_000, 100
_BYTES, _BYTES_EACH = 256 << 20, 200
_WORDS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_SECONDS = 120  # to count the values in lists, which takes one


def is_parquet(path: Path) -> bool:
    """Whether a file's name says that it is one."""
    return path.suffix.lower() in (".parquet", ".pq")


@contextmanager
def readable(where: str, remedy: str) -> Iterator[None]:
    """Whatever pyarrow raises for a damaged file while the block runs becomes a DataError; `remedy`: how its line ends."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error, 120) or type(error).__name__
        raise DataError(f"{where}: cannot be read ({reason}); {remedy}") from error


def read_parquet(opened: BinaryIO, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table whose text columns are dictionaries, so that a word which stands in every row is held once.

    Args:
        columns: those to read, in this order; None: all.

    Raises:
        DataError: more values, or more bytes once unpacked, than the limits allow. Whatever else pyarrow raises for a damaged file.
    """
    file = _checked(opened, where)
    table = pq.ParquetFile(opened, read_dictionary=file.text).read(columns)
    file.check_bytes(_bytes(table), "bytes of text")
    return table


def read_batches(opened: BinaryIO, where: str, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The columns, so many rows at a time, of the file's own types. Raises as `read_parquet`."""
    file = _checked(opened, where)
    schema = pa.schema([file.schema.field(name) for name in columns])
    found = 0
    for batch in pq.ParquetFile(opened, read_dictionary=file.text).iter_batches(rows, columns=columns):
        table = pa.Table.from_batches([batch])
        found += _bytes(table)
        file.check_bytes(found, "bytes of text")
        yield table.cast(schema)


@dataclass(frozen=True)
class _Checked:
    """A file whose description of itself is within the limits: its bytes, how messages name it, its columns."""

    size: int
    where: str
    schema: pa.Schema

    @property
    def text(self) -> list[str]:
        """Names of the text columns."""
        return [field.name for field in self.schema if field.type in _WORDS[:2]]

    def check_values(self, found: int) -> None:
        self._check(found, "values", max(_VALUES, _VALUES_EACH * self.size))

    def check_bytes(self, found: int, what: str) -> None:
        self._check(found, what, max(_BYTES, _BYTES_EACH * self.size))

    def _check(self, found: int, what: str, most: int) -> None:
        if found > most:
            raise DataError(
                f"{self.where}: holds {found:,} {what}, and the file has {self.size:,}; expected at most {most:,}; "
                "split the table, or write it plainly"
            )


def _checked(opened: BinaryIO, where: str) -> _Checked:
    file = pq.ParquetFile(opened)
    about = file.metadata
    checked = _Checked(os.fstat(opened.fileno()).st_size, where, file.schema_arrow)
    values = about.num_rows * about.num_columns
    if any(file.schema.column(j).max_repetition_level for j in range(about.num_columns)):
        values = max(values, _values_in_lists(opened))
    checked.check_values(values)
    # Nothing is asked of single columns here: of a damaged file `row_group(i).column(j)` can end the process.
    checked.check_bytes(sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)), "bytes once unpacked")
    return checked


def _bytes(table: pa.Table) -> int:
    """Of the words in columns that are dictionaries, each as often as it stands there, and of cells that are bytes."""
    total = 0
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        words = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if words.type in _WORDS:
            lengths = pc.binary_length(words)
            total += pc.sum(lengths if words is chunk else pc.take(lengths, chunk.indices)).as_py() or 0
    return total


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

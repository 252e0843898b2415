"""CSV files, whole or a block at a time: strict, UTF-8, every record as wide as the header."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from cm2pyro.errors import DataError
from cm2pyro.files import read_bytes
from cm2pyro.registry import one_line

_SHOWN = 60  # characters of a name that a message repeats
_MOST_BYTES = 2 << 30  # of a CSV that is read whole, which takes ten times that in memory; Parquet has its own limits
_LONGEST = 10_000_000  # characters of a cell or a line of one that is read in blocks: a quote that never closes would swallow the rest
_BLOCK_ROWS, _BLOCK = 1 << 15, 4 << 20  # rows and characters of a block, about

_NOT_UTF8, _UTF16 = "not UTF-8 text", "UTF-16 text, not UTF-8"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # both are no UTF-8
_UTF16_TEXT = tuple(mark.decode("utf-8", "surrogateescape") for mark in _UTF16_MARKS)


def read_columns(path: Path, where: str) -> tuple[dict[str, list[str]], list[int]]:
    """Columns of a CSV by name, and the row of each record in the file; every record is as wide as the header. Raises DataError.

    pandas' own reader takes surplus fields for row labels and fills short rows: both shift values under wrong names.
    """
    try:
        data = read_bytes(path, _MOST_BYTES)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error}); name a CSV or Parquet file") from error
    except UnicodeDecodeError as error:
        raise _not_text(where, data.count(b"\n", 0, error.start) + 1, encoding_fault(data)) from error
    if "\0" in text:
        raise _nul(where, text.count("\n", 0, text.index("\0")) + 1)
    header: list[str] = []
    cells: list[str] = []  # record by record: a list for each of a million records would cost seconds
    rows: list[int] = []
    with _longest(max(len(text), 1)):
        for row, record in _records(io.StringIO(text, newline=""), where):
            if header:
                cells += record
                rows.append(row)
            else:
                header = record
    return {name: cells[j :: len(header)] for j, name in enumerate(header)}, rows


def read_blocks(opened: BinaryIO, where: str) -> Iterator[dict[str, list[str]]]:
    """The same columns, some 32,768 records at a time; the first block has none. Raises DataError, OSError.

    pyarrow's reader takes a quote that never closes for a cell which ends with the file, and text after a closing quote for part of it:
    patients would be lost in silence.
    """
    lines = _Lines(opened, where)
    records = _records(lines, where)
    _, header = next(records)
    cells: list[str] = []
    while True:
        yield {name: cells[j :: len(header)] for j, name in enumerate(header)}
        cells, most = [], lines.characters + _BLOCK
        with _longest(_LONGEST):
            for _, record in records:
                cells += record
                if len(cells) >= _BLOCK_ROWS * len(header) or lines.characters > most:
                    break
        if not cells:
            return


class _Lines:
    """Lines of a file as text, each with its end; `characters` of those that were given."""

    def __init__(self, opened: BinaryIO, where: str) -> None:
        self.opened, self.where, self.characters = opened, where, 0

    def __iter__(self) -> Iterator[str]:
        # Bytes that are not UTF-8 come as surrogates, so that their line is known.
        text = io.TextIOWrapper(self.opened, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for number in count(1):
            line = text.readline(_LONGEST)
            if not line:
                return
            if number == 1 and line.startswith(_UTF16_TEXT):
                raise _not_text(self.where, number, _UTF16)
            if "\0" in line:
                raise _nul(self.where, number)
            if len(line) == _LONGEST:
                raise DataError(f"{self.where}, line {number}: has {_LONGEST:,} characters or more; expected a record; correct the line")
            if not line.isascii():
                try:
                    line.encode()
                except UnicodeEncodeError as error:
                    raise _not_text(self.where, number, _NOT_UTF8) from error
            self.characters += len(line)
            yield line


def _records(lines: Iterable[str], where: str) -> Iterator[tuple[int, list[str]]]:
    """The header, then every record, each as wide as the header, with its row in the file; blank lines are left out."""
    header: list[str] = []
    line = 1
    try:
        reader = csv.reader(lines, strict=True)
        for row, record in enumerate(reader, 1):
            if header and len(record) == len(header):
                yield row, record
            elif record and (len(record) > 1 or record[0].strip()):
                if header:
                    raise DataError(
                        f"{where}, line {line}: {len(record)} fields, expected {len(header)} as in the header; "
                        "correct the line, and quote fields that hold commas"
                    )
                header = record
                check_names(header, where)
                _check_separator(header, where)
                yield row, header
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where}, line {line}: not a CSV record ({error}); expected quotes to open and close a field; correct the line"
        ) from error
    if not header:
        raise DataError(f"{where}: the file is empty; expected a header and rows; write it again")


def _check_separator(header: list[str], where: str) -> None:
    """Refuse a header that another separator divides, as spreadsheets in many countries write it: every cell would be of one column."""
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise DataError(
                f"{where}, line 1: columns are separated by {name}, expected commas (and points in decimal numbers); "
                "export it so, or read it with pandas (sep, decimal) and write it with to_csv"
            )


@contextmanager
def _longest(characters: int) -> Iterator[None]:
    """Cells of so many characters: the module's own limit is shorter than a long note, and belongs to the process."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def encoding_fault(data: bytes) -> str:
    """What bytes that are not UTF-8 seem to be."""
    return _UTF16 if data.startswith(_UTF16_MARKS) else _NOT_UTF8


def _not_text(where: str, line: int, fault: str) -> DataError:
    return DataError(f"{where}, line {line}: {fault}; expected a CSV; save it as UTF-8 (in a spreadsheet: CSV UTF-8)")


def _nul(where: str, line: int) -> DataError:
    return DataError(
        f"{where}, line {line}: found a NUL byte, expected a CSV as UTF-8 text; save it as UTF-8, or name it .parquet if it is one"
    )


def check_names(names: Iterable[Any], where: str) -> None:
    """Refuse names of columns that are no text, empty, or stand twice."""
    seen: set[str] = set()
    for j, name in enumerate(names):
        if not isinstance(name, str):
            raise DataError(f"{where}: column {j + 1} is named {one_line(repr(name), _SHOWN)}, expected text; name it")
        if not name.strip():
            raise DataError(
                f"{where}: column {j + 1} has no name; expected one for every column; name it, or write the table without its row index"
            )
        if name in seen:
            raise DataError(f"{where}: column '{one_line(name, _SHOWN)}' stands twice; expected every name once; rename one")
        seen.add(name)

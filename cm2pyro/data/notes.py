"""Clinical notes as they come: in the manifest's cell, in a file, or in one table; cleaned, and ordered by time."""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.csv_file import encoding_fault
from cm2pyro.data.manifest import Manifest, own_lines
from cm2pyro.data.table import NO_CLOCK, as_text, parse_numbers, read_table
from cm2pyro.errors import DataError
from cm2pyro.files import read_bytes
from cm2pyro.registry import one_line

LONGEST = 100_000  # characters of a note that are read; a discharge summary has some 10,000
_LONGEST_NAME = 1000
_MOST_BYTES = 100_000_000  # of a file with one note
_FILES = (".txt", ".csv", ".parquet", ".pq")
# What de-identification leaves in MIMIC-III and MIMIC-IV. No brackets inside: else each that never closes is looked for to the end.
_MASKED = re.compile(r"\[\*\*[^\[\]]*\*\*\]|_{3,}")


@dataclass
class Notes:
    """Notes of n samples.

    Attributes:
        rows: (P,) sample of each note, in order. texts: P cleaned notes, by time within a sample. n: samples.
        remarks: what the reader of the data should know.
    """

    rows: NDArray[np.int64]
    texts: list[str]
    n: int
    remarks: list[str] = field(default_factory=list)


def clean(text: str) -> str:
    """A note on one line: compatible characters unified (NFKC), gaps of de-identification and control characters dropped."""
    text = _MASKED.sub(" ", unicodedata.normalize("NFKC", text))
    # Soft hyphens and joiners stand inside words; other unprintable characters between them.
    kept = (c if c.isprintable() or c.isspace() else "" if unicodedata.category(c) == "Cf" else " " for c in text)
    return " ".join("".join(kept).split())


def is_path(cell: str, root: Path) -> bool:
    """Whether a cell names a file: it ends in .txt, .csv or .parquet, and is one word or a file that is there. Else it is the note."""
    if not cell.lower().endswith(_FILES) or len(cell) > _LONGEST_NAME or "\n" in cell:
        return False
    return not any(c.isspace() for c in cell) or (root / cell).is_file()


def read_notes(manifest: Manifest, name: str, modality: Modality, keep_end: bool) -> Notes:
    """Read a text modality.

    Rules: notes are ordered by `hours`, those without by their order in the file, first; notes outside 0 … `hours` of the
    config are left out where it names a window; one that is empty once cleaned does not count; of one that is longer than
    `LONGEST` characters the beginning is read, or with `keep_end` the end. What a rule left out is among the remarks.

    Raises:
        DataError: a file or table that is not there or not text, a table without its columns, an hour that is not a number.
    """
    remarks: list[str] = []
    table = modality.table
    frame = _from_cells(manifest, modality.column or name) if table is None else _from_table(manifest, name, table, remarks)

    def leave_out(wrong: NDArray[np.bool_], what: str) -> None:
        found = np.flatnonzero(wrong)
        if len(found):
            remarks.append(f"modality {name}: {len(found):,} notes {what}, first {frame['where'].iloc[found[0]]}")

    hours = frame["hours"].to_numpy(dtype=np.float64)
    if modality.hours is not None:
        outside = (hours < 0) | (hours > modality.hours)
        leave_out(outside, f"outside 0 to {modality.hours:g} hours are left out")
        frame, hours = frame[~outside], hours[~outside]
    elif np.isfinite(hours).any():
        remarks.append(f"modality {name}: the config names no hours, so notes of any hour are read, up to {np.nanmax(hours):g}")
    long = frame["text"].str.len().to_numpy(dtype=np.int64) > LONGEST
    leave_out(long, f"longer than {LONGEST:,} characters are read to that length{', from their end' if keep_end else ''}")
    texts = np.array([clean(text[-LONGEST:] if keep_end else text[:LONGEST]) for text in frame["text"]], dtype=object)
    empty = texts == ""
    leave_out(empty, "are empty and count as missing")
    rows = frame["row"].to_numpy(dtype=np.int64)
    # Stable, and a note without an hour comes first.
    order = np.lexsort((np.where(np.isnan(hours), -np.inf, hours), rows))
    order = order[~empty[order]]
    return Notes(rows[order], texts[order].tolist(), len(manifest), remarks)


def _from_table(manifest: Manifest, name: str, table: str, remarks: list[str]) -> pd.DataFrame:
    where = f"{table} (modality {name})"
    frame = read_table(manifest.table(table, name), where, numbers=True)
    _require(frame, ["sample_id", "text"], where)
    frame, rows, strange = own_lines(frame, manifest, f"modality {name}: {table}")
    remarks += strange
    return _notes(frame, rows, [f"{where}, line {line}" for line in frame.index])


def _from_cells(manifest: Manifest, column: str) -> pd.DataFrame:
    parts = [_frame([], [], [], [])]
    if column in manifest.frame:
        texts, rows, places = [], [], []
        for row, cell in enumerate(manifest.frame[column]):
            if cell == "":
                continue
            shown, path = manifest.where(row), None
            if is_path(cell, manifest.root):
                path, shown = manifest.file(row, column), f"{one_line(cell)} ({shown})"
            if path is not None and path.suffix.lower() != ".txt":
                table = read_table(path, shown, numbers=True)
                _require(table, ["text"], shown)
                parts.append(_notes(table, np.full(len(table), row), [f"{shown}, line {line}" for line in table.index]))
                continue
            texts.append(cell if path is None else _text_file(path, shown))
            rows.append(row)
            places.append(shown if path is not None else f"{shown}, column '{column}'")
        parts.append(_frame(rows, [np.nan] * len(rows), texts, places))
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _text_file(path: Path, where: str) -> str:
    try:
        data = read_bytes(path, _MOST_BYTES)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {encoding_fault(data)}; expected a note; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); correct the path or its permissions") from error


def _require(frame: pd.DataFrame, columns: list[str], where: str) -> None:
    for column in columns:
        if column not in frame:
            found = ", ".join(one_line(name, 40) for name in frame.columns[:6])
            raise DataError(
                f"{where}: column '{column}' is missing; expected {', '.join(columns)} and if known hours; found {found}; rename or add it"
            )


def _notes(frame: pd.DataFrame, rows: NDArray[np.int64], places: list[str]) -> pd.DataFrame:
    hours = np.full(len(frame), np.nan)
    if "hours" in frame:
        hours, wrong = parse_numbers(frame["hours"])
        for i in wrong[:1]:
            found = one_line(frame["hours"].iloc[i], 60)
            raise DataError(f"{places[i]}, column 'hours': found '{found}', expected a finite number; {NO_CLOCK}, or leave it empty")
    return _frame(rows, hours, as_text(frame["text"]), places)


def _frame(rows: object, hours: object, texts: object, places: list[str]) -> pd.DataFrame:
    columns = {"text": texts, "where": places}
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    return frame.assign(row=np.asarray(rows, dtype=np.int64), hours=np.asarray(hours, dtype=np.float64))

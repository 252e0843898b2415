"""Notes of the first hours of a stay: NOTEEVENTS of MIMIC-III, radiology reports of MIMIC-IV-Note.

What may count, so that a prediction made at the end of the window sees nothing of the future:

* A note counts from its chart time, the time of what it describes, if that lies in the window of the stay (see `windows`).
* A note with a date alone (in MIMIC-III the reports on echocardiograms and electrocardiograms) was written at some time of that day: it
  counts from the midnight that ends the day, if that midnight lies in the window and is not its very beginning.
* An addendum to a report bears the chart time of the report and is written later: it counts from the time it was stored.
* Discharge summaries tell the outcome: they never count. Neither does a note marked as an error.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cm2pyro.data.mimic.tables import Table, find_table, timestamps
from cm2pyro.data.mimic.windows import inside, windows
from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest, one_line

__all__ = ["CATEGORIES", "mimic3_notes", "mimic4_notes"]

# Of MIMIC-III; the discharge summary, its fifteenth, is none of them.
CATEGORIES = (
    *("Case Management", "Consult", "ECG", "Echo", "General", "Nursing", "Nursing/other"),
    *("Nutrition", "Pharmacy", "Physician", "Radiology", "Rehab Services", "Respiratory", "Social Work"),
)
_DISCHARGE = "discharge summary"
_REPORTS = {"RR": "Radiology", "AR": "Radiology addendum"}
_REASONS = ("error", "discharge_summary", "other_category", "of_no_stay", "without_time", "day_outside_window", "outside_window", "empty")
_DAY = np.timedelta64(1, "D")


def mimic3_notes(
    stays: pd.DataFrame, path: Path, hours: float, categories: tuple[str, ...] | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Notes of NOTEEVENTS within the first hours of each stay.

    A note with an admission belongs to the stays of that admission, one without to the stays of its subject. The table is read in blocks;
    only the notes that count are held in memory.

    Args:
        stays: see `windows`.
        path: NOTEEVENTS.csv or NOTEEVENTS.csv.gz, or the folder that holds it.
        hours: length of the window.
        categories: those of `CATEGORIES` to keep, in any case; None keeps whatever is no discharge summary.

    Returns:
        `sample_id`, `hours` since `intime`, `text` as it stands in the table, `category`; sorted by sample, time and row of the table.
        Counts of notes: `read` is the sum of the others, `kept` the notes that count, once each even if for two stays.

    Raises:
        ConfigError: discharge summaries are asked for, or a category that MIMIC-III does not have.
        DataError: the table is not there, is damaged or lacks a column, or a time in it is none.
    """
    wanted = None if categories is None else {_plain(name) for name in categories}
    for name in categories or ():
        if _plain(name) == _DISCHARGE:
            raise ConfigError("note categories: found 'Discharge summary', which is written after the outcome and tells it; leave it out")
        if _plain(name) not in map(_plain, CATEGORIES):
            raise ConfigError(f"note categories: found '{one_line(name, 40)}', which MIMIC-III does not have; {nearest(name, CATEGORIES)}")

    def judge(notes: _Notes) -> NDArray[np.bool_]:
        category = [_plain(name) for name in notes.category]
        notes.drop("error", np.isin(notes.cells["iserror"], ["1", "1.0"]))
        notes.drop("discharge_summary", np.array([name == _DISCHARGE for name in category], dtype=bool))
        notes.drop("other_category", np.array([wanted is not None and name not in wanted for name in category], dtype=bool))
        charted = notes.times("charttime")
        day = notes.times("chartdate", np.isnat(charted)).astype("datetime64[D]")
        notes.time = np.where(np.isnat(charted), (day + _DAY).astype("datetime64[s]"), charted)
        return np.isnat(charted)

    file = (path, "noteevents") if path.is_dir() else (path.parent, path.name.lower().removesuffix(".gz").removesuffix(".csv"))
    columns = ["subject_id", "hadm_id", "chartdate", "charttime", "category", "iserror", "text"]
    table = find_table(*file, columns)
    return _collect(table, columns, "category", windows(stays, hours), judge)


def mimic4_notes(stays: pd.DataFrame, folder: Path, hours: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Radiology reports of MIMIC-IV-Note within the first hours of each stay; the rest as in `mimic3_notes`.

    Args:
        folder: holds radiology.csv or radiology.csv.gz, or has a folder `note` that does. discharge.csv is never read.
    """

    def judge(notes: _Notes) -> NDArray[np.bool_]:
        kind = np.array([name.strip().upper() for name in notes.category], dtype=object)
        notes.drop("other_category", ~np.isin(kind, list(_REPORTS)))
        notes.category = np.array([_REPORTS.get(name, "") for name in kind], dtype=object)
        late = kind == "AR"
        notes.time = np.where(late, notes.times("storetime", late), notes.times("charttime", ~late))
        return np.zeros(len(kind), dtype=bool)

    columns = ["subject_id", "hadm_id", "note_type", "charttime", "storetime", "text"]
    table = find_table(folder, "radiology", columns, within=("note",))
    return _collect(table, columns, "note_type", windows(stays, hours), judge)


def _plain(category: str) -> str:
    return category.strip().casefold()  # the table has "Physician " with a space


class _Notes:
    """Notes of known patients from one block of the table: what is left of them, and how many fell for which reason."""

    def __init__(self, table: Table, block: pa.RecordBatch, lines: NDArray[np.int64], kind: str, counts: dict[str, int]) -> None:
        self.cells = {name: block[name].to_numpy(zero_copy_only=False) for name in block.schema.names if name != "text"}
        self.text: pa.Array = block["text"]
        self.category: NDArray[np.object_] = self.cells[kind]
        self.time: NDArray[np.datetime64] = np.full(len(lines), "NaT", dtype="datetime64[s]")
        self.left = np.ones(len(lines), dtype=bool)
        self._table, self._lines, self._counts = table, lines, counts

    def drop(self, reason: str, falls: NDArray[np.bool_]) -> None:
        self._counts[reason] += int((self.left & falls).sum())
        self.left &= ~falls

    def times(self, column: str, rows: NDArray[np.bool_] | bool = True) -> NDArray[np.datetime64]:
        """The times of a column for `rows` that are left, NaT for the others and for empty cells."""
        cells = np.where(self.left & rows, self.cells[column], "").astype(object)
        return timestamps(cells, lambda i: self._table.where(int(self._lines[i]), column), empty=True)


def _collect(
    table: Table, columns: list[str], kind: str, window: pd.DataFrame, judge: Callable[[_Notes], NDArray[np.bool_]]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read the table block by block. `judge` drops what never counts, sets the times, and says of which notes the day alone is known."""
    subjects, admissions = (pa.array(window[name].unique(), pa.string()) for name in ("subject_id", "hadm_id"))
    counts = dict.fromkeys(["read", *_REASONS, "kept"], 0)
    kept: list[pd.DataFrame] = []
    for first, block in table.batches(columns):
        no_admission = pc.equal(block["hadm_id"], "")
        known = pc.if_else(no_admission, pc.is_in(block["subject_id"], subjects), pc.is_in(block["hadm_id"], admissions))
        ours = np.flatnonzero(known.to_numpy(zero_copy_only=False))  # the texts and times of other patients are not touched
        counts["read"] += len(block)
        counts["of_no_stay"] += len(block) - len(ours)
        notes = _Notes(table, block.take(pa.array(ours)), first + ours, kind, counts)
        day_only = judge(notes)
        notes.drop("without_time", np.isnat(notes.time))
        kept.append(_in_windows(notes, day_only, window))
        counts["kept"] += int(notes.left.sum())
    empty = pd.DataFrame({"sample_id": [], "hours": [], "text": [], "category": []}, dtype=object)
    frame = pd.concat([empty, *kept], ignore_index=True).astype({"hours": "float64"})
    return frame.sort_values(["sample_id", "hours"], kind="stable", ignore_index=True), counts


def _in_windows(notes: _Notes, day_only: NDArray[np.bool_], window: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a note and a stay that it counts for."""
    left = np.flatnonzero(notes.left)
    frame = pd.DataFrame({"note": left, "time": notes.time[left].astype("datetime64[ns]"), "day_only": day_only[left]})
    frame = frame.assign(subject_id=notes.cells["subject_id"][left], hadm_id=notes.cells["hadm_id"][left])
    by_admission = frame[frame["hadm_id"] != ""].merge(window, on=["subject_id", "hadm_id"])
    by_subject = frame[frame["hadm_id"] == ""].drop(columns="hadm_id").merge(window, on="subject_id")
    pairs = pd.concat([by_admission, by_subject], ignore_index=True)
    notes.drop("of_no_stay", ~np.isin(np.arange(len(notes.left)), pairs["note"]))
    pairs = inside(pairs[~(pairs["day_only"] & pairs["time"].eq(pairs["start"]))]).sort_values("note", kind="stable")
    out = ~np.isin(np.arange(len(notes.left)), pairs["note"])
    notes.drop("day_outside_window", out & day_only)
    notes.drop("outside_window", out)
    at = pairs["note"].to_numpy()
    text = np.array(notes.text.take(pa.array(at)).to_pylist(), dtype=object)
    blank = np.array([not cell.strip() for cell in text], dtype=bool)
    notes.drop("empty", np.isin(np.arange(len(notes.left)), at[blank]))
    category = np.array([cell.strip() for cell in notes.category[at]], dtype=object)
    found = pd.DataFrame({"sample_id": pairs["sample_id"].to_numpy(object), "hours": pairs["hours"].to_numpy(), "text": text})
    return found.assign(category=category)[~blank]

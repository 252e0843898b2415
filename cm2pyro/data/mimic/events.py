"""The events of a table, streamed: a block at a time is filtered by item and patient, and what is left goes to the spool."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cm2pyro.data.mimic.spool import PLACE, RECORD, Spool, Stays
from cm2pyro.data.mimic.tables import Rows, Table, numbers, rows, seconds, timestamps
from cm2pyro.data.mimic.values import Counts, convert
from cm2pyro.data.mimic.variables import ITEMS

__all__ = ["EVENT_COLUMNS", "EventTable", "stream"]

EVENT_COLUMNS = ("subject_id", "itemid", "charttime", "value", "valuenum", "valueuom")


@dataclass(frozen=True)
class EventTable:
    """A table of events. label: its name in the counts. items: ids that are looked for. stay, hadm, error: names of its columns, if any."""

    table: Table
    label: str
    items: tuple[int, ...]
    stay: str | None = None
    hadm: str | None = None
    error: str | None = None


def stream(source: EventTable, stays: Stays, spool: Spool, counts: Counts) -> None:
    """Read one table of events into the spool.

    Raises:
        DataError: the table cannot be read; a row of a patient of the cohort has a time or a number that is none.
    """
    names = [*EVENT_COLUMNS, *filter(None, (source.stay, source.hadm, source.error))]
    wanted = pa.array([str(item) for item in source.items])
    subjects = pa.array(stays.subjects.tolist(), pa.string())
    for line, batch in source.table.batches(names):
        keep = pc.and_(pc.is_in(batch["itemid"], wanted), pc.is_in(batch["subject_id"], subjects))
        lines = line + np.flatnonzero(keep.to_numpy(zero_copy_only=False))
        if len(lines):
            spool.add(_measurements(rows(batch.filter(keep), lines), source, stays, counts))


def _measurements(block: Rows, source: EventTable, stays: Stays, counts: Counts) -> NDArray[Any]:
    """Records of the rows that are values of a stay's window; what is dropped is counted, each row once, by the first of `REASONS`."""
    cells, lines, table = block.columns, block.lines, source.table
    counts.read[source.label] += len(lines)
    alive = np.ones(len(lines), dtype=bool)

    def drop(wrong: NDArray[np.bool_], reason: str) -> None:
        counts.dropped[reason] += int((alive & wrong).sum())
        alive[wrong] = False

    if source.error:
        drop(np.isin(cells[source.error], ["1", "1.0"]), "error_flag")
    drop((cells["value"] == "") & (cells["valuenum"] == ""), "no_value")
    drop(cells["charttime"] == "", "no_time")
    timed = np.flatnonzero(alive)
    when = np.zeros(len(lines), dtype=np.int64)
    when[timed] = seconds(timestamps(cells["charttime"][timed], lambda i: table.where(lines[timed[i]], "charttime")))

    stay = stays.at(cells["subject_id"], when)
    named = cells[source.stay] != "" if source.stay else np.zeros(len(lines), dtype=bool)
    if source.stay:
        stay = np.where(named, stays.named(cells[source.stay], cells["subject_id"]), stay)
    drop(stay < 0, "no_stay")
    if source.hadm:
        hadm = cells[source.hadm]
        drop(~named & (hadm != "") & (hadm != stays.hadm[stay]), "other_admission")
    offset = when - stays.start[stay]
    drop((offset < 0) | (offset > stays.window), "outside_window")
    counts.assigned[source.label] += int((alive & ~named).sum())

    at = np.flatnonzero(alive)
    number = numbers(cells["valuenum"][at], lambda i: table.where(lines[at[i]], "valuenum"))
    items = cells["itemid"][at].astype(np.int64)
    value, good = convert(items, cells["value"][at], number, cells["valueuom"][at], counts)
    at, value, items = at[good], value[good], items[good]
    records = np.zeros(len(at), RECORD)
    records["stay"], records["second"], records["value"] = stay[at], offset[at], value
    records["variable"] = [PLACE[ITEMS[item][0]] for item in items.tolist()]
    records["rank"] = [ITEMS[item][1] for item in items.tolist()]
    return records

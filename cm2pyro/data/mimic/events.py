"""The events of a table, streamed: a block at a time is filtered by item and patient, and what is left goes to the spool."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from cm2pyro.data.mimic.spool import PLACE, RECORD, Spool, Stays
from cm2pyro.data.mimic.tables import Rows, Table, numbers, rows, seconds, timestamps
from cm2pyro.data.mimic.values import Counts, convert
from cm2pyro.data.mimic.variables import ITEMS

__all__ = ["EARLY", "EVENT_COLUMNS", "EventTable", "stream"]

EVENT_COLUMNS = ("subject_id", "itemid", "charttime", "value", "valuenum", "valueuom")
# Height and weight at admission are charted on the full minute, just before the first second of the stay, or while the patient is brought
# in. They do not change in those hours, so of a row that names the stay they count as known at its start.
EARLY = 6 * 3600  # seconds
_SIZE = [PLACE["height"], PLACE["weight"]]
_VARIABLE = pd.Series({item: PLACE[variable] for item, (variable, _, _) in ITEMS.items()})
_RANK = pd.Series({item: rank for item, (_, rank, _) in ITEMS.items()})


@dataclass(frozen=True)
class EventTable:
    """A table of events. label: its name in the counts. items: ids that are looked for. hadm, stay, error: names of its columns."""

    table: Table
    label: str
    items: tuple[int, ...]
    hadm: str
    stay: str | None = None
    error: str | None = None


def stream(source: EventTable, stays: Stays, spool: Spool, counts: Counts) -> None:
    """Read one table of events into the spool.

    Raises:
        DataError: the table cannot be read; a row of a patient of the cohort has a time or a number that is none.
    """
    names = [*EVENT_COLUMNS, *filter(None, (source.hadm, source.stay, source.error))]
    wanted = pa.array([str(item) for item in source.items])
    subjects = pa.array(stays.subjects.tolist(), pa.string())
    with tqdm(desc=source.label, unit=" rows", unit_scale=True, leave=False, disable=None) as bar:  # None: only on a terminal
        for line, batch in source.table.batches(names):
            keep = pc.and_(pc.is_in(batch["itemid"], wanted), pc.is_in(batch["subject_id"], subjects))
            lines = line + np.flatnonzero(keep.to_numpy(zero_copy_only=False))
            if len(lines):
                spool.add(_measurements(rows(batch.filter(keep), lines), source, stays, counts))
            bar.update(len(batch))


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
    hadm = cells[source.hadm]
    drop(~named & (hadm != "") & (hadm != stays.hadm[stay]), "other_admission")
    items = cells["itemid"].astype(np.int64)
    variable, rank = _VARIABLE.reindex(items).to_numpy(), _RANK.reindex(items).to_numpy()
    offset = when - stays.start[stay]
    early = alive & named & (offset < 0) & (offset >= -EARLY) & np.isin(variable, _SIZE)
    offset[early] = 0
    drop((offset < 0) | (offset > stays.window), "outside_window")
    counts.assigned[source.label] += int((alive & (~named if source.stay else hadm == "")).sum())

    at = np.flatnonzero(alive)
    number = numbers(cells["valuenum"][at], lambda i: table.where(lines[at[i]], "valuenum"))
    value, good = convert(items[at], cells["value"][at], number, cells["valueuom"][at], counts)
    at = at[good]
    counts.early[source.label] += int(early[at].sum())
    records = np.zeros(len(at), RECORD)
    records["stay"], records["second"], records["value"] = stay[at], offset[at], value[good]
    records["variable"], records["rank"] = variable[at], rank[at]
    return records

"""The cohort's stays by patient and time, and their measurements on disk until they are sorted.

Memory: what a block of a table leaves is appended to one of `_BUCKETS` temporary files, by stay, and at the end one bucket at a time is
sorted and written. The peak is one bucket, about a 64th of the kept rows at 18 bytes each, and its few sorted copies; the whole of
MIMIC-III keeps some tens of millions of rows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cm2pyro.data.mimic.tables import seconds
from cm2pyro.data.mimic.values import Counts
from cm2pyro.data.mimic.variables import CATEGORIES, VARIABLES

__all__ = ["LONG", "PLACE", "RECORD", "Spool", "Stays"]

RECORD = np.dtype([("stay", "<i4"), ("second", "<i4"), ("variable", "i1"), ("rank", "i1"), ("value", "<f8")])
PLACE = {name: i for i, name in enumerate(VARIABLES)}
_BUCKETS = 64
# Of vitals.parquet.
LONG = pa.schema([("sample_id", pa.string()), ("hours", pa.float64()), ("variable", pa.string()), ("value", pa.float64())])


class Stays:
    """The cohort's stays, to find the one that a row belongs to. Their windows are `[intime, intime + hours]`, ends included.

    Attributes:
        ids: (n,) sample ids in the order in which they are to be written. hadm: (n,) admissions. start: (n,) seconds since 1970.
        window: seconds. subjects: the patients.
    """

    def __init__(self, stays: pd.DataFrame, hours: float) -> None:
        """stays: sample_id, subject_id, hadm_id, intime, outtime."""
        self.ids: list[str] = stays.sample_id.tolist()
        self.window = round(hours * 3600)
        self.hadm = stays.hadm_id.to_numpy(dtype=object)
        self.start, self._end = seconds(stays.intime.to_numpy()), seconds(stays.outtime.to_numpy())
        self.subjects = pd.Index(stays.subject_id.unique(), dtype=object)
        self._index = pd.Index(stays.sample_id, dtype=object)
        self._subject = self.subjects.get_indexer(stays.subject_id)
        self._order = np.lexsort((self.start, self._subject))
        self._keys = self._key(self._subject, self.start)[self._order]

    @staticmethod
    def _key(subject: NDArray[Any], second: NDArray[np.int64]) -> NDArray[np.int64]:
        return subject.astype(np.int64) * (1 << 40) + second + (1 << 38)  # a second of any year below 8,000 has 38 bits with its sign

    def named(self, ids: NDArray[np.object_], subjects: NDArray[np.object_]) -> NDArray[np.int64]:
        """Position of the stay that a row names; -1 where it is not in the cohort or another patient's."""
        stay = self._index.get_indexer(ids)
        return np.where((stay >= 0) & (self._subject[stay] == self.subjects.get_indexer(subjects)), stay, -1)

    def at(self, subjects: NDArray[np.object_], second: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of the patient's stay that goes on at that second, the later one where two do; -1 where none does."""
        subject = self.subjects.get_indexer(subjects)
        place = np.searchsorted(self._keys, self._key(subject, second), side="right") - 1
        stay = self._order[np.maximum(place, 0)]
        inside = (place >= 0) & (self._subject[stay] == subject) & (second >= self.start[stay]) & (second <= self._end[stay])
        return np.where(inside, stay, -1)


class Spool:
    """Measurements of all stays, on disk in buckets of neighbouring stays. values: (stays,) how many were added, repeats included."""

    def __init__(self, folder: Path, stays: int) -> None:
        self._folder, self._width = folder, max(1, -(-stays // _BUCKETS))
        self._buckets: set[int] = set()
        self.values = np.zeros(stays, dtype=np.int64)

    def add(self, records: NDArray[Any]) -> None:
        """Append records; `stay` is the position of a stay."""
        self.values += np.bincount(records["stay"], minlength=len(self.values))
        bucket = records["stay"] // self._width
        order = np.argsort(bucket, kind="stable")
        cuts = np.flatnonzero(np.diff(bucket[order])) + 1
        for part in np.split(order, cuts) if len(order) else []:
            number = int(bucket[part[0]])
            self._buckets.add(number)
            with self._path(number).open("ab") as stream:
                stream.write(records[part].tobytes())

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket}.events"

    def write(self, path: Path, ids: list[str], wanted: set[str], counts: Counts) -> dict[str, int]:
        """Write `sample_id, hours, variable, value`, sorted by these, one value each, and empty the spool.

        Args:
            ids: of the stays, by position. wanted: those to write. counts: gets the repeats and, by variable, what was kept.

        Returns:
            variable -> stays that have it.
        """
        keep = np.array([sample in wanted for sample in ids], dtype=bool)
        coverage = np.zeros(len(VARIABLES), dtype=np.int64)
        kept = np.zeros(len(VARIABLES), dtype=np.int64)
        names, samples = pa.array(VARIABLES, pa.string()), pa.array(ids, pa.string())
        alphabetical = np.argsort(np.argsort(np.array(VARIABLES)))
        with pq.ParquetWriter(path, LONG) as writer:
            for bucket in sorted(self._buckets):
                records = np.fromfile(self._path(bucket), RECORD)
                self._path(bucket).unlink()
                counts.dropped["unmatched_stay"] += int((~keep[records["stay"]]).sum())
                records = _one_each(records[keep[records["stay"]]], alphabetical, counts)
                variable = records["variable"].astype(np.int64)
                kept += np.bincount(variable, minlength=len(VARIABLES))
                pairs = np.unique(records["stay"].astype(np.int64) * len(VARIABLES) + variable)
                coverage += np.bincount(pairs % len(VARIABLES), minlength=len(VARIABLES))
                columns = [samples.take(pa.array(records["stay"])), pa.array(records["second"] / 3600)]
                columns += [names.take(pa.array(variable)), pa.array(records["value"])]
                writer.write_table(pa.table(columns, schema=LONG))
        counts.kept.update(dict(zip(VARIABLES, kept.tolist(), strict=True)))
        return dict(zip(VARIABLES, coverage.tolist(), strict=True))


def _one_each(records: NDArray[Any], alphabetical: NDArray[np.int64], counts: Counts) -> NDArray[Any]:
    """Sorted, with one value for each (stay, second, variable).

    Of several, those of the most preferred item count; numbers are averaged, and of categories the smallest code is taken: nothing in the
    tables says which of them is right, and neither rule depends on the order of the file.
    """
    name = alphabetical[records["variable"]]
    records = records[np.lexsort((records["value"], records["rank"], name, records["second"], records["stay"]))]
    changes = [records[field][1:] != records[field][:-1] for field in ("stay", "second", "variable")]
    new = np.concatenate([[True], np.logical_or.reduce(changes)])[: len(records)]
    starts, group = np.flatnonzero(new), np.cumsum(new) - 1
    first = records[starts]
    best = records["rank"] == first["rank"][group]
    total = np.bincount(group, weights=np.where(best, records["value"], 0.0), minlength=len(starts))
    mean = total / np.bincount(group, weights=best, minlength=len(starts))
    categorical = np.isin(first["variable"], [PLACE[name] for name in CATEGORIES])
    first["value"] = np.where(categorical, first["value"], mean)
    counts.dropped["repeated"] += len(records) - len(first)
    return first

"""Which stay a row belongs to, and what the spool makes of repeats, in any number of buckets."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cm2pyro.data.mimic.spool import PLACE, RECORD, Spool, Stays
from cm2pyro.data.mimic.values import Counts
from cm2pyro.data.mimic.variables import VARIABLES


def stays(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["sample_id", "subject_id", "intime", "outtime"]).assign(hadm_id="1")
    return frame.assign(intime=pd.to_datetime(frame.intime), outtime=pd.to_datetime(frame.outtime))


def test_a_stay_is_found_by_patient_and_time() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(200):
        start = 86400 * 30 * (i % 7) + int(rng.integers(0, 86400 * 20))
        first, last = (pd.Timestamp("2150-01-01") + pd.Timedelta(seconds=s) for s in (start, start + int(rng.integers(3600, 86400 * 9))))
        rows.append((str(i), str(i % 31), str(first), str(last)))
    table = stays(rows)
    index = Stays(table, 48)
    subjects = np.array([str(i) for i in rng.integers(0, 33, 5000)], dtype=object)
    when = pd.Timestamp("2150-01-01") + pd.to_timedelta(rng.integers(0, 86400 * 220, 5000), unit="s")
    found = index.at(subjects, when.to_numpy().astype("datetime64[s]").astype(np.int64))
    some = 0
    plain: list[Any] = [(position, row.subject_id, row.intime, row.outtime) for position, row in enumerate(table.itertuples())]
    for subject, moment, position in zip(subjects, when, found, strict=True):
        begun = [(start, end, i) for i, patient, start, end in plain if patient == subject and start <= moment]
        # Where stays overlap the later one counts; an earlier one that outlasts it is not looked for.
        _, end, newest = max(begun, default=(None, None, -1))
        assert position == (newest if newest >= 0 and end >= moment else -1)
        some += position >= 0
    assert some > 200


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_repeats_are_merged_as_said(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    n = 4000
    records = np.zeros(n, RECORD)
    records["stay"], records["second"] = rng.integers(0, count, n), rng.integers(0, 4, n) * 1800
    records["variable"], records["rank"] = rng.integers(0, len(VARIABLES), n), rng.integers(0, 3, n)
    records["value"] = rng.integers(0, 9, n)
    ids = [f"{i:03d}" for i in range(count)]
    spool, counts = Spool(tmp_path, count), Counts()
    for part in np.array_split(records, 7):
        spool.add(part)
    assert spool.values.tolist() == np.bincount(records["stay"], minlength=count).tolist()
    coverage = spool.write(tmp_path / "out.parquet", ids, set(ids[:-1]) if count > 1 else set(ids), counts)

    frame = pd.DataFrame({name: records[name] for name in RECORD.names or ()})
    if count > 1:
        frame = frame[frame.stay != count - 1]
    keys = ["stay", "second", "variable"]
    best = frame[frame["rank"] == frame.groupby(keys)["rank"].transform("min")]
    merged = best.groupby(keys).value.agg(["mean", "min"]).reset_index()
    merged["variable"] = [VARIABLES[code] for code in merged.variable]
    categorical = merged.variable.isin(["capillary_refill_rate", "gcs_eye", "gcs_motor", "gcs_total", "gcs_verbal"])
    merged["value"] = merged["mean"].where(~categorical, merged["min"])
    merged = merged.sort_values(["stay", "second", "variable"], ignore_index=True)
    written = pd.read_parquet(tmp_path / "out.parquet")
    assert written.sample_id.tolist() == [ids[stay] for stay in merged.stay]
    assert written.variable.tolist() == merged.variable.tolist()
    assert written.hours.tolist() == (merged.second / 3600).tolist()
    np.testing.assert_allclose(written.value, merged.value)
    assert counts.dropped["repeated"] == len(frame) - len(merged)
    assert counts.dropped["unmatched_stay"] == n - len(frame)
    assert coverage == {name: merged.stay[merged.variable == name].nunique() for name in PLACE}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]

"""MIMIC-III tables in small: every exclusion, every dropped row, labels, ages, and every refusal."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cm2pyro.data.mimic.mimic3 import prepare
from cm2pyro.data.mimic.phenotypes import PHENOTYPES
from cm2pyro.data.mimic.summary import Summary
from cm2pyro.data.mimic.variables import CATEGORIES
from cm2pyro.errors import CM2Error, ConfigError, DataError
from tests import refusals

SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2}


def run(root: Path, tables: Any, compressed: bool = True, swap: bool = False, **changes: Any) -> tuple[Path, Summary]:
    records = tables.write(root / "mimic", compressed, swap)
    options: dict[str, Any] = {"splits": SPLITS, "seed": 0, "overwrite": False} | changes
    summary = prepare(records=records, out=root / "out", **options)
    assert isinstance(summary, Summary)
    return root / "out", summary


def refused(root: Path, records: Path, kind: type[CM2Error], *says: str, **changes: Any) -> None:
    options: dict[str, Any] = {"splits": SPLITS, "seed": 0, "overwrite": False} | changes
    with refusals.refused(kind, *says):
        prepare(records=records, out=root / "out", **options)
    refusals.nothing_left(root / "out")


def values(out: Path) -> list[tuple]:
    return list(pd.read_parquet(out / "vitals.parquet").itertuples(index=False, name=None))


def manifest(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id")


@pytest.mark.parametrize("compressed", [True, False], ids=["gz", "csv"])
@pytest.mark.parametrize("swap", [True, False], ids=["lower", "upper"])
def test_every_rule_of_the_events(tmp_path: Path, mimic3: Any, expected: Any, compressed: bool, swap: bool) -> None:
    out, summary = run(tmp_path, mimic3, compressed, swap)
    assert [row[:3] for row in values(out)] == [row[:3] for row in expected.kept]
    assert [row[3] for row in values(out)] == pytest.approx([row[3] for row in expected.kept])
    assert summary.counts.dropped == expected.dropped
    assert summary.counts.assigned == {"chartevents": 1, "labevents": 1}


def test_the_counts_of_the_events_add_up(tmp_path: Path, mimic3: Any) -> None:
    _, summary = run(tmp_path, mimic3)
    counts = summary.counts
    assert sum(counts.read.values()) == sum(counts.dropped.values()) + sum(counts.kept.values())
    assert counts.impossible == {"heart_rate": 1, "ph": 1}
    assert counts.unreadable == {"heart_rate": 1, "gcs_eye": 1, "capillary_refill_rate": 1}
    assert counts.units == {"heart_rate in hz": 1, "fraction_inspired_oxygen in torr": 1}
    assert counts.early == {"chartevents": 1, "labevents": 0}


def test_every_exclusion_is_counted_in_order(tmp_path: Path, mimic3: Any) -> None:
    _, summary = run(tmp_path, mimic3)
    assert [(step.reason, step.removed, step.stays, step.admissions, step.patients) for step in summary.steps] == [
        ("in the tables", 0, 16, 14, 15),
        ("without an admission", 2, 14, 13, 13),
        ("without a patient", 1, 13, 12, 12),
        ("transferred between units or wards", 2, 11, 10, 10),
        ("several stays in one admission", 2, 9, 9, 9),
        ("younger than 18 or of unknown age", 1, 8, 8, 8),
        ("without an end", 1, 7, 7, 7),
        ("shorter than 48 h", 1, 6, 6, 6),
        ("without an event within 48 h", 1, 5, 5, 5),
    ]
    text = "\n".join(summary.lines())
    assert "younger than 18 or of unknown age: -1, left 8 stays of 8 admissions, 8 patients" in text
    assert "dropped rows: error flag 1, no value 1, no time 1, no stay 4" in text


def test_a_stay_without_admission_is_named(tmp_path: Path, mimic3: Any) -> None:
    _, summary = run(tmp_path, mimic3)
    table = tmp_path / "mimic" / "ICUSTAYS.csv.gz"
    assert summary.notes == [
        f"{table}, row 14, column HADM_ID: stay 213 names '99', which no admission of its patient has; excluded, like 1 more",
        f"{table}, row 16, column SUBJECT_ID: stay 215 names '14', which no patient has; excluded, like 0 more",
    ]
    assert set(summary.notes) <= set(summary.lines())


def test_labels(tmp_path: Path, mimic3: Any) -> None:
    out, summary = run(tmp_path, mimic3)
    rows = manifest(out)
    assert list(rows.columns) == ["subject_id", "split", "label_mortality", "label_readmission", *(f"label_{name}" for name in PHENOTYPES)]
    assert rows.label_mortality.to_dict() == {"201": "0", "202": "1", "203": "0", "204": "0", "216": "1"}
    assert rows.label_readmission.to_dict() == {"201": "0", "202": "1", "203": "1", "204": "0", "216": "1"}
    assert summary.labels["label_mortality"] == 2
    assert summary.flags_differ == 1, "the flag of 216 says alive"
    positive = {(sample, name) for name in PHENOTYPES for sample, cell in rows[f"label_{name}"].items() if cell == "1"}
    assert positive == {("201", "septicemia")}


def test_static_and_what_is_written(tmp_path: Path, mimic3: Any) -> None:
    out, summary = run(tmp_path, mimic3)
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    assert static.age.to_dict() == pytest.approx({"201": 60, "202": 60, "203": 60, "204": 60, "216": 90}, abs=0.01)
    assert static.gender.to_dict() == {"201": "M", "202": "F", "203": "M", "204": "F", "216": "F"}
    assert static.first_careunit["216"] == "CCU"
    assert static.admission_location.isna().all()
    content = json.loads((out / "prepared.json").read_text())
    assert content["categories"] == {name: list(codes) for name, codes in CATEGORIES.items()}
    assert content["counts"]["dropped"] == summary.counts.dropped
    assert content["hours"] == 48
    assert content["stays"] == 5
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.csv",
        "notes.parquet",
        "prepared.json",
        "static.parquet",
        "vitals.parquet",
    ]


def test_splits_keep_patients_together_and_follow_the_seed(tmp_path: Path, mimic3: Any) -> None:
    out, summary = run(tmp_path, mimic3)
    assert summary.splits == {"train": 3, "val": 1, "test": 1}
    first = manifest(out).split.to_dict()
    run(tmp_path, mimic3, overwrite=True)
    assert manifest(out).split.to_dict() == first
    assert any(run(tmp_path, mimic3, overwrite=True, seed=seed) and manifest(out).split.to_dict() != first for seed in (1, 2, 3))


def test_the_order_of_rows_changes_nothing(tmp_path: Path, mimic3: Any) -> None:
    out, _ = run(tmp_path, mimic3)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "prepared.json"}
    for rows in mimic3.rows.values():
        rows.reverse()
    run(tmp_path, mimic3, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != "prepared.json"} == before


def test_a_longer_window_wants_longer_stays(tmp_path: Path, mimic3: Any) -> None:
    out, summary = run(tmp_path, mimic3, hours=72.0)
    assert "202" not in manifest(out).index
    assert Counter(row[0] for row in values(out))["201"] == 17 + 2, "a rate a second after 48 h and a glucose"
    assert summary.steps[-2].reason == "shorter than 72 h"


def test_matched_keeps_the_stays_with_a_note(tmp_path: Path, mimic3: Any) -> None:
    note = {
        "SUBJECT_ID": 1,
        "HADM_ID": 11,
        "CHARTDATE": "2150-01-01",
        "CHARTTIME": "2150-01-01 12:30:00",
        "STORETIME": "2150-01-01 12:30:00",
    }
    mimic3.add("NOTEEVENTS", **note, CATEGORY="Radiology", TEXT="Clear,\nlungs")
    out, summary = run(tmp_path, mimic3, splits={"train": 1.0}, pairs="matched")
    assert list(manifest(out).index) == ["201"]
    assert set(pd.read_parquet(out / "vitals.parquet").sample_id) == {"201"}
    assert summary.steps[-1].removed == 4
    assert summary.counts.dropped["unmatched_stay"] == 4
    notes = pd.read_parquet(out / "notes.parquet")
    assert notes[["sample_id", "hours", "text"]].values.tolist() == [["201", 2.0, "Clear,\nlungs"]]
    assert summary.modalities["note"]["stays"] == 1
    out, summary = run(tmp_path, mimic3, overwrite=True)
    assert len(manifest(out)) == 5
    assert summary.modalities["note"]["stays"] == 1


def test_notes_may_be_absent(tmp_path: Path, mimic3: Any) -> None:
    records = mimic3.write(tmp_path / "mimic")
    (records / "NOTEEVENTS.csv.gz").unlink()
    summary = prepare(records=records, out=tmp_path / "out", splits=SPLITS, seed=0, overwrite=False)
    assert isinstance(summary, Summary)
    assert summary.modalities == {}
    assert not (tmp_path / "out" / "notes.parquet").exists()


def test_no_stay_left_is_refused(tmp_path: Path, mimic3: Any) -> None:
    records = mimic3.write(tmp_path / "mimic")
    refused(tmp_path, records, DataError, "no stay is left of 16", "shorter than 1000 h", hours=1000.0)
    refused(tmp_path, records, DataError, "no stay is left", "5 without note (--pairs matched)", pairs="matched")


@pytest.mark.parametrize("table", ["PATIENTS", "ADMISSIONS", "ICUSTAYS", "CHARTEVENTS", "LABEVENTS", "DIAGNOSES_ICD"])
def test_a_missing_table_is_named(tmp_path: Path, mimic3: Any, table: str) -> None:
    records = mimic3.write(tmp_path / "mimic")
    (records / f"{table}.csv.gz").unlink()
    refused(tmp_path, records, DataError, str(records), f"has no {table.lower()}.csv or {table.lower()}.csv.gz")


def test_what_is_no_folder_of_tables_is_refused(tmp_path: Path, mimic3: Any) -> None:
    refused(tmp_path, tmp_path / "absent", DataError, "absent: does not exist")
    (tmp_path / "file").touch()
    refused(tmp_path, tmp_path / "file", DataError, "file: is a file, expected the folder")
    records = mimic3.write(tmp_path / "mimic")
    mimic3.write(records, compressed=False)
    refused(tmp_path, records, DataError, "has both", "remove the other")


@pytest.mark.parametrize("table", ["PATIENTS", "ADMISSIONS", "CHARTEVENTS"])
def test_a_table_that_was_cut_off_is_refused(tmp_path: Path, mimic3: Any, table: str) -> None:
    path = mimic3.write(tmp_path / "mimic") / f"{table}.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    refused(tmp_path, path.parent, DataError, f"{table}.csv.gz: cannot be read", "download the table again")


@pytest.mark.parametrize(
    ("table", "row", "column", "cell", "says"),
    [
        ("ICUSTAYS", 0, "INTIME", "yesterday", "ICUSTAYS.csv.gz, row 2, column INTIME: found the time 'yesterday'"),
        ("ICUSTAYS", 0, "INTIME", "", "ICUSTAYS.csv.gz, row 2, column INTIME: found the time ''"),
        ("ICUSTAYS", 3, "ICUSTAY_ID", "201", "ICUSTAYS.csv.gz, row 5, column ICUSTAY_ID: '201' stands twice"),
        ("ICUSTAYS", 3, "ICUSTAY_ID", "", "ICUSTAYS.csv.gz, row 5, column ICUSTAY_ID: '' is empty"),
        ("ADMISSIONS", 2, "DISCHTIME", "2150-13-01 00:00:00", "ADMISSIONS.csv.gz, row 4, column DISCHTIME: found the time '2150-13-01"),
        ("ADMISSIONS", 2, "HADM_ID", 11, "ADMISSIONS.csv.gz, row 4, column HADM_ID: '11' stands twice"),
        ("PATIENTS", 1, "DOB", "1 Jan", "PATIENTS.csv.gz, row 3, column DOB: found the time '1 Jan'"),
        ("CHARTEVENTS", 10, "CHARTTIME", "noon\nish", "CHARTEVENTS.csv.gz, row 12, column CHARTTIME: found the time 'noon ish'"),
        ("CHARTEVENTS", 10, "VALUENUM", "eighty", "CHARTEVENTS.csv.gz, row 12, column VALUENUM: found 'eighty', expected a finite number"),
        ("CHARTEVENTS", 10, "VALUENUM", "inf", "CHARTEVENTS.csv.gz, row 12, column VALUENUM: found 'inf'"),
        ("LABEVENTS", 1, "CHARTTIME", "x", "LABEVENTS.csv.gz, row 3, column CHARTTIME: found the time 'x'"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, mimic3: Any, table: str, row: int, column: str, cell: object, says: str) -> None:
    mimic3.rows[table][row][column] = cell
    refused(tmp_path, mimic3.write(tmp_path / "mimic"), DataError, says)


def test_a_row_of_another_width_and_latin_1_are_refused(tmp_path: Path, mimic3: Any) -> None:
    path = mimic3.write(tmp_path / "mimic", compressed=False) / "CHARTEVENTS.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"1,2,3\n")
    refused(tmp_path, path.parent, DataError, "CHARTEVENTS.csv: cannot be read", "Expected 15 columns, got 3")
    path.write_bytes(whole.replace(b"?C", b"\xb0C"))
    refused(tmp_path, path.parent, DataError, "CHARTEVENTS.csv: cannot be read", "UTF-8")
    path.write_bytes(whole.replace(b"ITEMID", b"ITEM"))
    refused(tmp_path, path.parent, DataError, "CHARTEVENTS.csv, row 1: column ITEMID is missing")
    path.write_bytes(b"")
    refused(tmp_path, path.parent, DataError, "CHARTEVENTS.csv: is empty")
    path.unlink()
    path.with_suffix(".csv.gz").write_bytes(b"no gzip")
    refused(tmp_path, path.parent, DataError, "CHARTEVENTS.csv.gz: cannot be read")


def test_options_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    for changes, says in (
        ({"splits": {"train": 0.5}}, "sum to 0.5"),
        ({"hours": 0.0}, "--hours: found 0"),
        ({"hours": float("nan")}, "--hours: found nan"),
        ({"pairs": "all"}, "--pairs: found 'all'"),
        ({"seed": -1}, "seed: found -1"),
    ):
        refused(tmp_path, tmp_path / "absent", ConfigError, says, **changes)


def test_overwrite_never_deletes_its_own_input(tmp_path: Path, mimic3: Any) -> None:
    out, _ = run(tmp_path, mimic3)
    records = mimic3.write(out / "mimic")
    with pytest.raises(ConfigError, match="holds the input"):
        prepare(records=records, out=out, splits=SPLITS, seed=0, overwrite=True)
    assert (records / "PATIENTS.csv.gz").exists()


def test_a_task_folder_of_mimic3_benchmarks_is_read_as_one(tmp_path: Path) -> None:
    """Its own tests are beside `prepare_folder`; here only that it is found, and that it takes no window."""
    records = tmp_path / "task"
    (records / "train").mkdir(parents=True)
    (records / "train" / "listfile.csv").write_text("stay,y_true\n")
    refused(tmp_path, records, DataError, "has no episodes")
    refused(tmp_path, records, ConfigError, "leave --hours and --pairs out", hours=24.0)


def test_codes_in_no_category_are_told(tmp_path: Path, mimic3: Any) -> None:
    _, plain = run(tmp_path / "plain", mimic3)
    assert not any("no category" in line for line in plain.lines())
    for code, times in {"ZZ9": 2, "": 1, "A": 1, "B": 1, "C": 1, "D": 1}.items():
        for i in range(times):
            mimic3.add("DIAGNOSES_ICD", SUBJECT_ID=1, HADM_ID=11, SEQ_NUM=10 + i, ICD9_CODE=code)
    mimic3.add("DIAGNOSES_ICD", SUBJECT_ID=1, HADM_ID=99999, SEQ_NUM=1, ICD9_CODE="YY9")  # of no stay
    _, summary = run(tmp_path / "codes", mimic3)
    assert summary.unknown_codes == {"ZZ9": 2, "": 1, "A": 1, "B": 1, "C": 1, "D": 1}
    assert summary.content()["unknown_codes"] == summary.unknown_codes
    (line,) = [line for line in summary.lines() if "no category" in line]
    assert line == "diagnosis codes in no category, so of no phenotype: 6 codes, 7 rows (ZZ9 2, (empty) 1, A 1, B 1, C 1, …)"

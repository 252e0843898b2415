"""MIMIC-IV tables in small: what differs from MIMIC-III."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cm2pyro.data.mimic.mimic4 import prepare
from cm2pyro.data.mimic.summary import Summary
from cm2pyro.errors import ConfigError, DataError

SPLITS = {"train": 0.6, "val": 0.2, "test": 0.2}


def run(root: Path, tables: Any, compressed: bool = True, swap: bool = False, **changes: Any) -> tuple[Path, Summary]:
    records = tables.write(root / "mimic", compressed, swap)
    options: dict[str, Any] = {"splits": SPLITS, "seed": 0, "overwrite": False} | changes
    return root / "out", prepare(records=records, out=root / "out", **options)


@pytest.mark.parametrize("compressed", [True, False], ids=["gz", "csv"])
@pytest.mark.parametrize("swap", [True, False], ids=["upper", "lower"])
def test_the_same_content_gives_the_same_values(tmp_path: Path, mimic4: Any, expected: Any, compressed: bool, swap: bool) -> None:
    out, summary = run(tmp_path, mimic4, compressed, swap)
    found = list(pd.read_parquet(out / "vitals.parquet").itertuples(index=False, name=None))
    # MIMIC-IV has no column ERROR, so the one row that it marks in MIMIC-III counts.
    wanted = sorted([*expected.kept, ("201", 1.5, "heart_rate", 84.0)])
    assert [row[:3] for row in found] == [row[:3] for row in wanted]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in wanted])
    assert summary.counts.dropped == expected.dropped | {"error_flag": 0}
    assert sum(summary.counts.read.values()) == sum(summary.counts.dropped.values()) + len(found)


def test_cohort_labels_and_ages(tmp_path: Path, mimic4: Any) -> None:
    out, summary = run(tmp_path, mimic4)
    # There are no wards: 206, which changed its ward, stays until it turns out to have no events.
    removed = {step.reason: step.removed for step in summary.steps}
    assert removed["transferred between units or wards"] == 1
    assert removed["without an event within 48 h"] == 2
    assert summary.stays == 5
    rows = pd.read_csv(out / "manifest.csv", dtype=str).set_index("sample_id")
    assert rows.label_mortality.to_dict() == {"201": "0", "202": "1", "203": "0", "204": "0", "216": "1"}
    assert rows.label_readmission.to_dict() == {"201": "0", "202": "1", "203": "1", "204": "0", "216": "1"}
    assert rows.label_septicemia.to_dict() == {"201": "1", "202": "0", "203": "0", "204": "0", "216": "0"}
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    assert static.age.to_dict() == {"201": 60, "202": 60, "203": 60, "204": 60, "216": 90}


def test_the_files_may_lie_together(tmp_path: Path, mimic4: Any) -> None:
    records = mimic4.write(tmp_path / "mimic")
    for path in [*records.glob("*/*.gz")]:
        path.rename(records / path.name)
    for sub in ("hosp", "icu"):
        (records / sub).rmdir()
    assert prepare(records=records, out=tmp_path / "out", splits=SPLITS, seed=0, overwrite=False).stays == 5


def test_refusals(tmp_path: Path, mimic4: Any) -> None:
    mimic4.rows["hosp/patients"][2]["anchor_age"] = "old"
    with pytest.raises(DataError, match=r"patients\.csv\.gz, row 4, column anchor_age: found 'old', expected a finite number"):
        run(tmp_path, mimic4)
    mimic4.rows["hosp/patients"][2]["anchor_age"] = 50
    (mimic4.write(tmp_path / "mimic") / "icu" / "icustays.csv.gz").unlink()
    with pytest.raises(DataError, match=r"has no icustays\.csv or icustays\.csv\.gz , nor has its folder hosp or icu"):
        prepare(records=tmp_path / "mimic", out=tmp_path / "out", splits=SPLITS, seed=0, overwrite=False)
    (tmp_path / "out" / "cxr").mkdir(parents=True)
    (tmp_path / "out" / "manifest.csv").touch()
    with pytest.raises(ConfigError, match="holds the input"):
        run(tmp_path, mimic4, cxr=tmp_path / "out" / "cxr", overwrite=True)

"""MIMIC-IV tables in small: what differs from MIMIC-III."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


def link_files(root: Path) -> dict[str, Any]:
    """MIMIC-CXR-JPG with an image of stays 201 and 203, and MIMIC-IV-Note with a report on 201 and 202."""
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
    lines = [header]
    for dicom, subject, study, view, time in (
        ("a", "1", "51", "AP", "120000.0"),
        ("b", "1", "52", "AP", "180000.0"),
        ("c", "1", "53", "LATERAL", "190000.0"),
        ("d", "3", "54", "AP", "120000.0"),
        ("e", "5", "55", "AP", "120000.0"),  # of a patient without a stay in the cohort
    ):
        lines.append(f"{dicom},{subject},{study},CHEST,{view},40,30,21500101,{time}")
        path = root / "cxr" / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 30), 10 * ord(dicom) % 256, dtype=np.uint8)).save(path)
    (root / "cxr" / "mimic-cxr-2.0.0-metadata.csv").write_text("\n".join(lines) + "\n")
    (root / "note").mkdir()
    (root / "note" / "radiology.csv").write_text(
        "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
        "1-RR-1,1,11,RR,1,2150-01-01 12:30:00,2150-01-01 12:40:00,Lungs clear\n"
        "2-RR-1,2,12,RR,1,2150-01-01 11:30:00,2150-01-01 11:40:00,Effusion\n"
        "1-RR-2,1,11,RR,2,2150-01-04 11:30:00,2150-01-04 11:40:00,Later\n"
    )
    return {"cxr": root / "cxr", "notes": root / "note"}


def test_images_and_reports_are_linked(tmp_path: Path, mimic4: Any) -> None:
    out, summary = run(tmp_path, mimic4, **link_files(tmp_path))
    rows = pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id")
    assert rows.image.to_dict() == {"201": "images/201.jpg", "202": "", "203": "images/203.jpg", "204": "", "216": ""}
    assert abs(int(np.asarray(Image.open(out / "images" / "201.jpg")).mean()) - 10 * ord("b") % 256) <= 2, "the last AP view"
    notes = pd.read_parquet(out / "notes.parquet")
    assert notes[["sample_id", "hours", "text"]].values.tolist() == [["201", 2.0, "Lungs clear"], ["202", 1.0, "Effusion"]]
    assert summary.modalities["image"]["stays"] == 2
    assert summary.modalities["note"]["stays"] == 2
    text = "\n".join(summary.lines())
    assert "images, notes.parquet, prepared.json" in text
    assert "image: stays 2, read 5, other view 1" in text


def test_matched_keeps_the_stays_with_everything_that_was_asked_for(tmp_path: Path, mimic4: Any) -> None:
    files = link_files(tmp_path)
    out, summary = run(tmp_path, mimic4, splits={"train": 1.0}, pairs="matched", **files)
    assert pd.read_csv(out / "manifest.csv", dtype=str).sample_id.tolist() == ["201"]
    assert [(step.reason, step.removed) for step in summary.steps[-2:]] == [
        ("without image (--pairs matched)", 3),
        ("without note (--pairs matched)", 1),
    ]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["201.jpg"]
    assert set(pd.read_parquet(out / "notes.parquet").sample_id) == {"201"}
    out, summary = run(tmp_path, mimic4, splits={"train": 1.0}, pairs="matched", overwrite=True, notes=files["notes"])
    assert pd.read_csv(out / "manifest.csv", dtype=str).sample_id.tolist() == ["201", "202"]


def test_refusals(tmp_path: Path, mimic4: Any) -> None:
    mimic4.rows["hosp/patients"][2]["anchor_age"] = "old"
    with pytest.raises(DataError, match=r"patients\.csv\.gz, row 4, column anchor_age: found 'old', expected a finite number"):
        run(tmp_path, mimic4)
    mimic4.rows["hosp/patients"][2]["anchor_age"] = 50
    (mimic4.write(tmp_path / "mimic") / "icu" / "icustays.csv.gz").unlink()
    with pytest.raises(DataError, match=r"has no icustays\.csv or icustays\.csv\.gz, nor has its folder hosp or icu or core"):
        prepare(records=tmp_path / "mimic", out=tmp_path / "out", splits=SPLITS, seed=0, overwrite=False)
    (tmp_path / "out" / "cxr").mkdir(parents=True)
    (tmp_path / "out" / "manifest.csv").touch()
    with pytest.raises(ConfigError, match="holds the input"):
        run(tmp_path, mimic4, cxr=tmp_path / "out" / "cxr", overwrite=True)

"""A collection of X-rays becomes a manifest: every rule on a small one with each oddity, and the real one where CM2_DATA names it."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2pyro.data.covid_cxr import PreparedSummary, prepare
from cm2pyro.data.covid_cxr_records import NUMBERS, RANGES, SAME_PERSON
from cm2pyro.errors import ConfigError, DataError
from tests.data.covid_collection import ABSENT, ROWS, changed, manifest_of, refused, run, write_rows


def test_manifest(collection: Path) -> None:
    out, _ = run(collection)
    manifest = manifest_of(out)
    assert list(manifest.columns) == ["subject_id", "split", "label", "image", "note"]
    labels = {"a.jpg": "1", "b.jpg": "0", "c.png": "1", "d.jpg": "1", "e.jpg": "0", "f.jpg": "0", "m.jpg": "1", "n.jpg": "1"}
    assert manifest.label.to_dict() == labels
    assert manifest.image.to_dict() == {name: f"images/{name}" for name in labels}
    notes = {name: note for name, note in manifest.note.items() if note}
    assert notes == {
        "a.jpg": "[blank] positive. Fever.",
        "b.jpg": "Normal.",
        "m.jpg": 'Two lines,\nand "quotes".',
        "n.jpg": "[blank] tests were negative",
    }
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(labels)
    for name in labels:
        assert (out / "images" / name).read_text() == name
    assert {path.name for path in out.iterdir()} == {"manifest.csv", "images", "static.parquet", "licences.csv", "prepared.json"}


def test_no_patient_is_in_two_splits_and_one_person_with_two_ids_is_one(collection: Path) -> None:
    for seed in range(8):
        out, summary = run(collection, seed=seed, overwrite=True)
        manifest = manifest_of(out)
        assert manifest.groupby("subject_id").split.nunique().max() == 1
        assert manifest.subject_id["m.jpg"] == manifest.subject_id["n.jpg"] == "97"
        assert (summary.patients, summary.mixed_patients) == (4, 1)


def test_notes_may_keep_the_names(collection: Path) -> None:
    out, summary = run(collection, blank=False)
    assert manifest_of(out).note["a.jpg"] == "COVID-19 positive. Fever."
    assert summary.blanked is None
    assert "tell the label" in "\n".join(summary.lines())
    assert json.loads((out / "prepared.json").read_text())["blanking"] is None


def test_counts_and_what_is_printed(collection: Path) -> None:
    out, summary = run(collection)
    assert (summary.rows, summary.images) == (15, 8)
    assert summary.dropped == {"no_finding_yet": 3, "no_xray": 1, "not_frontal": 1, "no_image_file": 2}
    assert summary.rows - sum(summary.dropped.values()) == summary.images
    assert summary.first_missing == "row 13, images/gone.jpg"
    assert summary.labels == {"0": 3, "1": 5}
    assert summary.coverage["note"] == {"0": 1, "1": 3}
    assert summary.blanked == {"0": 0, "1": 2}
    assert summary.licences == {"": 1, "CC BY 4.0": 7}
    manifest = manifest_of(out)
    for name, counts in summary.splits.items():
        assert counts == {label: int(((manifest.split == name) & (manifest.label == label)).sum()) for label in "01"}
    lines = summary.lines()
    assert not any("\n" in line for line in lines)
    printed = "\n".join(lines)
    assert "no image file 2 (first: row 13, images/gone.jpg)" in printed
    assert "age 'old' in row 6" in printed
    assert "none stated 1, CC BY 4.0 7" in printed
    assert "tells it: temperature, pO2_saturation, leukocyte_count, neutrophil_count, offset" in printed
    content = json.loads((out / "prepared.json").read_text())
    assert {"token", "names"} == set(content["blanking"])
    assert "covid*" in content["blanking"]["names"]
    assert content["dropped"] == summary.dropped
    assert content["same_person"] == SAME_PERSON
    assert str(collection.parent) not in (out / "prepared.json").read_text()


def test_a_split_with_one_label_is_said(collection: Path) -> None:
    write_rows(collection, [cells for cells in ROWS if cells["patientid"] in ("2", "3")])
    assert "split test has one label alone" in "\n".join(run(collection)[1].lines())


def test_every_image_has_its_licence(collection: Path) -> None:
    out, _ = run(collection)
    table = pd.read_csv(out / "licences.csv", dtype=str, keep_default_na=False).set_index("sample_id")
    assert list(table.columns) == ["file", "licence", "doi", "url", "credit", "source"]
    assert list(table.file) == list(manifest_of(out).image)
    assert table.licence.to_dict() == {name: "" if name == "e.jpg" else "CC BY 4.0" for name in table.index}
    assert (table.doi["a.jpg"], table.credit["b.jpg"]) == ("10.1/x", "Credit to A, B")
    assert table.source.str.contains("Cohen").all()


def test_the_same_files_whatever_the_order_of_rows(collection: Path) -> None:
    one, _ = run(collection, splits={"train": 1.0})
    write_rows(collection, [cells for cells in reversed(ROWS) if cells["filename"] not in ABSENT and cells["age"] != "old"])
    two, _ = run(collection, out=collection.parent / "two", splits={"train": 1.0})
    left, right = manifest_of(one).drop("e.jpg"), manifest_of(two)
    assert left.equals(right)


def test_folders_that_are_refused(collection: Path) -> None:
    refused(collection, DataError, "is no folder", records=collection / "absent")
    refused(collection, DataError, "is no folder", records=collection / "metadata.csv")
    refused(collection, DataError, "metadata.csv: is not there", records=collection / "images")
    refused(collection, ConfigError, "sum to 0.9", splits={"train": 0.9})
    refused(collection, DataError, "4 subjects are too few", splits={"train": 0.95, "val": 0.05})
    (collection / "metadata.csv").unlink()
    (collection / "metadata.csv").mkdir()
    refused(collection, DataError, "metadata.csv: cannot be read")


@pytest.mark.slow
def test_a_long_note_is_kept_whole(collection: Path) -> None:
    note = "opacity " * 131_072
    write_rows(collection, changed(clinical_notes=note))
    assert manifest_of(run(collection)[0]).note["a.jpg"] == note.strip()


def test_broken_images_are_left_for_the_reader(collection: Path) -> None:
    (collection / "images" / "a.jpg").write_bytes(b"")
    out, summary = run(collection)
    assert (out / "images" / "a.jpg").read_bytes() == b""
    assert "broken is refused when it is read" in "\n".join(summary.lines())


def test_an_earlier_folder_is_replaced_only_when_asked(collection: Path) -> None:
    out, _ = run(collection)
    with pytest.raises(ConfigError, match="not empty"):
        run(collection)
    run(collection, overwrite=True)
    inner = out / "collection"
    collection.rename(inner)
    with pytest.raises(ConfigError, match="holds the input"):
        run(inner, out=out, overwrite=True)
    assert (inner / "metadata.csv").exists()


@pytest.fixture
def real(real_data: Path, tmp_path: Path) -> tuple[Path, PreparedSummary, list[dict[str, str]]]:
    """The prepared folder, its summary, and the metadata read by the standard library."""
    folder = real_data / "covid_cxr"
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    out = tmp_path / "out"
    return out, prepare(records=folder, out=out, splits={"train": 0.6, "val": 0.15, "test": 0.25}, seed=0, overwrite=False), rows


@pytest.mark.real
def test_the_real_collection_by_another_route(real: tuple[Path, PreparedSummary, list[dict[str, str]]]) -> None:
    out, summary, rows = real
    kept = {r["filename"]: r for r in rows if r["finding"] not in ("todo", "Unknown")}
    assert summary.rows == len(rows) == 319
    assert summary.images == len(kept) == 268
    assert summary.dropped == {"no_finding_yet": len(rows) - len(kept), "no_xray": 0, "not_frontal": 0, "no_image_file": 0}
    manifest = manifest_of(out)
    assert set(manifest.index) == set(kept)
    covid = {name for name, r in kept.items() if r["finding"].startswith("COVID-19")}
    assert set(manifest.index[manifest.label == "1"]) == covid
    assert summary.labels == {"0": len(kept) - len(covid), "1": len(covid)} == {"0": 74, "1": 194}
    assert set(manifest.index[manifest.note != ""]) == {name for name, r in kept.items() if r["clinical_notes"].strip()}
    assert summary.patients == len({r["patientid"] for r in kept.values()}) - 1, "178 is 97"
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    hannover = {name for name, r in kept.items() if "Hannover" in r["location"]}
    for column in (*NUMBERS, "sex", "view"):
        given = {name for name, r in kept.items() if r[column].strip()}
        if column == "pO2_saturation":
            assert max(float(kept[name][column]) for name in given - hannover) <= 100
            given -= hannover
        assert set(static.index[static[column].notna()]) == given, column
        assert summary.recorded[column] == {"0": len(given - covid), "1": len(given & covid)}
    for column, (low, high) in RANGES.items():
        assert static[column].dropna().between(low, high).all()
    licences = pd.read_csv(out / "licences.csv", dtype=str, keep_default_na=False).set_index("sample_id")
    assert licences.licence.to_dict() == {name: r["license"].strip() for name, r in kept.items()}
    assert (licences.licence != "").all()


@pytest.mark.real
def test_the_real_splits_hold_both_labels_and_no_image_stands_in_two(real: tuple[Path, PreparedSummary, list[dict[str, str]]]) -> None:
    out, summary, _ = real
    assert all(counts["0"] >= 5 and counts["1"] >= 5 for counts in summary.splits.values())
    manifest = manifest_of(out)
    small = [np.asarray(Image.open(out / path).convert("L").resize((32, 32)), dtype=float).ravel() for path in manifest.image]
    alike = np.corrcoef(np.stack(small)) > 0.99
    crossing = np.argwhere(alike & (manifest.split.to_numpy()[:, None] != manifest.split.to_numpy()))
    assert not len(crossing), [manifest.index[i] for i in crossing[0]]
    original = manifest.subject_id.to_numpy()
    assert alike.sum() > len(alike), f"the pairs of {SAME_PERSON} are found this way"
    assert not (alike & (original[:, None] != original)).any(), "another person with two ids"

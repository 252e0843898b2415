"""`cm2pyro prepare covid-cxr` as a user types it: what it prints, and one line for whatever is wrong."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.commands import call

COLUMNS = (
    "patientid,offset,sex,age,finding,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,modality,location,"
    "filename,doi,url,license,clinical_notes,other_notes"
)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Twenty patients with an X-ray each, half of them COVID-19, and the note of one of them names it."""
    folder = tmp_path / "collection"
    (folder / "images").mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS.split(","), restval="")
        writer.writeheader()
        for patient in range(20):
            name = f"{patient:02d}.jpg"
            (folder / "images" / name).touch()
            note = "SARS-CoV-2 was found." if patient == 0 else "Cough."
            finding = "Klebsiella" if patient % 2 else "COVID-19"
            cells = {"patientid": patient, "filename": name, "finding": finding, "age": 50, "clinical_notes": note}
            writer.writerow(cells | {"view": "PA", "modality": "X-ray", "license": "CC BY"})
    return folder


def prepared(capsys: pytest.CaptureFixture[str], collection: Path, *extra: str) -> tuple[int, str, str]:
    return call(capsys, "prepare", "covid-cxr", "--records", collection, "--out", collection.parent / "out", *extra)


def test_it_says_what_it_wrote(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = prepared(capsys, collection)
    assert (code, err) == (0, "")
    assert "images: 20 of 20 patients (0 with both labels); COVID-19 10, other findings 10" in out
    assert "notes with a name blanked (COVID-19 / other): 1 / 0" in out
    assert [part.split()[0] for part in out.split("splits (COVID-19 / other): ")[1].split(", ")[:3]] == ["train", "val", "test"]
    manifest = (collection.parent / "out" / "manifest.csv").read_text()
    assert manifest.startswith("sample_id,subject_id,split,label,image,note\n00.jpg,0,")
    assert "[blank] was found." in manifest


def test_options_are_passed_on(collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = prepared(capsys, collection, "--no-blank", "--splits", "test=1")
    assert code == 0
    assert "names of diseases and tests are left in" in out
    assert "splits (COVID-19 / other): test 10 / 10" in out
    assert "SARS-CoV-2 was found." in (collection.parent / "out" / "manifest.csv").read_text()
    assert prepared(capsys, collection)[0] == 2
    assert prepared(capsys, collection, "--overwrite")[0] == 0


def test_help_says_what_the_folder_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "prepare", "covid-cxr", "--help")
    assert code == 0
    for part in ("metadata.csv and images/", "--blank / --no-blank", "train=0.6,val=0.15,test=0.25"):
        assert part in " ".join(out.split())


def edit(old: str, new: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "metadata.csv"
        text = path.read_text()
        assert old in text
        path.write_bytes(text.replace(old, new).encode(encoding))

    return change


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "metadata.csv").unlink(), "metadata.csv: is not there"),
        (edit("finding", "diagnosis"), "row 1: has no column 'finding'"),
        (edit("Cough.", "Fièvre.", "latin-1"), "line 3: is not UTF-8 text"),
        (edit("05.jpg", "../05.jpg"), "row 7: filename '../05.jpg' is no plain file name"),
        (edit("05.jpg", "04.jpg"), "row 7: filename '04.jpg' stands already in row 6"),
        (lambda folder: [path.unlink() for path in (folder / "images").iterdir()], "none of 20 rows is a sample"),
        (lambda folder: folder.rename(folder.parent / "elsewhere") and folder.touch(), "collection: is no folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    collection: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], says: str
) -> None:
    spoil(collection)
    code, out, err = prepared(capsys, collection)
    assert (code, out) == (1, "")
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (collection.parent / "out").exists()

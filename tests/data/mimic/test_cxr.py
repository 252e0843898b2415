"""Chest X-rays of a stay: which view counts, when it was taken, and what becomes of its file."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2pyro.data.mimic.cxr import CHEXPERT, export, link
from cm2pyro.errors import DataError
from tests.refusals import refusal

METADATA = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
FINDINGS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,"
    "Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
# 100 and 200 are two stays of one subject, 300 ends after ten hours, 400 begins at midnight and has no known end.
STAYS = pd.DataFrame(
    [
        ("400", "10000004", "4", "2190-01-02 00:00:00", None),
        ("100", "10000001", "1", "2180-05-06 07:30:00", "2180-05-16 12:00:00"),
        ("200", "10000001", "2", "2180-06-06 07:30:00", "2180-06-16 12:00:00"),
        ("300", "10000003", "3", "2180-05-06 12:00:00", "2180-05-06 22:00:00"),
    ],
    columns=["sample_id", "subject_id", "hadm_id", "intime", "outtime"],
).assign(intime=lambda f: pd.to_datetime(f.intime), outtime=lambda f: pd.to_datetime(f.outtime))


class Archive:
    """A folder of MIMIC-CXR-JPG in the making."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows = root, []  # type: ignore[var-annotated]

    def image(
        self, name: str, subject: str, date: str, time: str, view: str = "AP", study: str = "50000001", suffix: str | None = ".jpg"
    ) -> str:
        """Add an image; `suffix` None leaves its file out. Returns the path that it should be found at."""
        self.rows.append((name, subject, study, "CHEST (PORTABLE AP), upright", view, "3056", "2544", date, time))
        path = self.root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{name}{suffix}"
        if suffix is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not looked into by link")
        return str(path)

    def link(self, hours: float = 48, **options: str) -> tuple[dict[str, str], dict[str, int]]:
        """Stay -> image, and the counts that are not 0; `read` must be the sum of the others."""
        table(self.root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA, self.rows)
        frame, counts = link(STAYS, self.root, hours, **options)
        assert counts["read"] == sum(counts.values()) - counts["read"] == len(self.rows)
        return dict(zip(frame.sample_id, frame.dicom_id, strict=True)), {k: n for k, n in counts.items() if n}


def table(path: Path, header: str, rows: list[tuple]) -> None:
    stream = io.StringIO(newline="")
    stream.write(header + "\n")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    data = stream.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_the_last_view_of_the_window_wins(archive: Archive) -> None:
    archive.image("b", "10000001", "20180506", "80000.0")  # a century early
    archive.image("d", "10000001", "21800507", "235959.999", study="50000003")
    archive.image("c", "10000001", "21800507", "180000.0", study="50000002")
    archive.image("a", "10000001", "21800506", "80000.0")
    archive.image("e", "10000001", "21800509", "80000.0", study="50000004")
    archive.image("f", "10000001", "21800606", "80000.0", study="50000005")
    archive.image("g", "99999999", "21800506", "80000.0")
    found, counts = archive.link()
    assert found == {"100": "d", "200": "f"}
    assert counts == {"read": 7, "of_no_stay": 1, "outside_window": 2, "earlier": 2, "linked": 2}


def test_the_row_says_what_was_linked(archive: Archive) -> None:
    path = archive.image("d-1", "10000001", "21800507", "73000.5", study="50000003")
    archive.image("z", "10000004", "21900102", "0.0", study="50000009")
    archive.link()
    frame, _ = link(STAYS, archive.root, 48)
    assert list(frame.columns) == ["sample_id", "subject_id", "study_id", "dicom_id", "hours", "path"]
    assert frame.sample_id.tolist() == ["400", "100"], "the order of the stays"
    assert frame.iloc[1, :4].tolist() == ["100", "10000001", "50000003", "d-1"]
    assert frame.path[1] == path
    assert frame.hours[1] == pytest.approx(24 + 0.5 / 3600, abs=1e-12)


def test_images_of_the_same_time_go_by_study_and_then_by_id(archive: Archive) -> None:
    for name, study in (("b", "50000001"), ("c", "50000002"), ("a", "50000002"), ("d", "50000001")):
        archive.image(name, "10000001", "21800507", "73000.0", study=study)
    found, _ = archive.link()
    assert found == {"100": "c"}


@pytest.mark.parametrize(
    ("subject", "date", "time", "linked"),
    [
        ("10000001", "21800506", "72959.999", False),
        ("10000001", "21800506", "73000.0", True),  # 07:30:00, the admission
        ("10000001", "21800508", "73000.0", True),
        ("10000001", "21800508", "73000.001", False),
        ("10000003", "21800506", "220000", True),  # the end of the stay
        ("10000003", "21800506", "220000.1", False),
        ("10000004", "21900102", "0.0", True),  # midnight
        ("10000004", "21900102", "59.5", True),  # 00:00:59.5
        ("10000004", "21900101", "235959.9", False),
        ("10000004", "21900104", "0", True),
        ("10000004", "21900104", "100.0", False),  # 00:01:00
    ],
)
def test_the_edges_of_the_window(archive: Archive, subject: str, date: str, time: str, linked: bool) -> None:
    archive.image("a", subject, date, time)
    assert archive.link()[1] == {"read": 1, "linked" if linked else "outside_window": 1}


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("21800506", ""),
        ("21800506", "noon"),
        ("21800506", "240000.0"),
        ("21800506", "86000.0"),  # 08:60
        ("21800506", "85960.0"),
        ("21800506", "-1"),
        ("21800506", "nan"),
        ("21800506", "inf"),
        ("", "80000"),
        ("21801306", "80000"),
        ("2180", "80000"),
    ],
)
def test_an_image_without_a_readable_time_is_left_out(archive: Archive, date: str, time: str) -> None:
    archive.image("a", "10000001", date, time)
    archive.image("b", "10000001", "21800506", "80000")
    found, counts = archive.link()
    assert found == {"100": "b"}
    assert counts == {"read": 2, "without_time": 1, "linked": 1}


def test_views_other_than_the_asked_one_do_not_count(archive: Archive) -> None:
    for hour, view in enumerate(["AP", "PA", "LATERAL", "LL", "", "AP AXIAL", " ap "], start=8):
        archive.image(f"v{hour}", "10000001", "21800506", f"{hour}0000", view)
    found, counts = archive.link()
    assert found == {"100": "v14"}
    assert counts == {"read": 7, "other_view": 5, "earlier": 1, "linked": 1}
    assert archive.link(view="PA")[0] == {"100": "v9"}


def test_an_image_without_its_file_is_counted_and_the_one_before_it_taken(archive: Archive) -> None:
    archive.image("a", "10000001", "21800506", "80000")
    archive.image("b", "10000001", "21800506", "90000", suffix=None)
    archive.image("../../a", "10000001", "21800506", "90000", suffix=None)  # no id, and a way out of the folder
    dicom = archive.image("c", "10000004", "21900102", "10000", suffix=".dcm")
    found, counts = archive.link()
    assert found == {"100": "a", "400": "c"}
    assert counts == {"read": 4, "file_absent": 2, "linked": 2}
    assert link(STAYS, archive.root, 48)[0].path[0] == dicom


def test_an_image_may_count_for_two_stays(archive: Archive) -> None:
    archive.image("a", "10000001", "21800506", "80000")
    archive.link()
    both = pd.concat([STAYS, STAYS[STAYS.sample_id == "100"].assign(sample_id="100z")])
    frame, counts = link(both, archive.root, 48)
    assert (frame.sample_id.tolist(), counts["linked"]) == (["100", "100z"], 1)


def test_split_and_labels_are_joined_where_they_are_there(archive: Archive) -> None:
    archive.image("a", "10000001", "21800506", "80000", study="50000001")
    archive.image("b", "10000004", "21900102", "10000", study="50000004")
    archive.image("c", "10000003", "21800506", "130000", study="50000003")
    table(archive.root / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split", [("a", "50000001", "10000001", "validate")])
    labels = [("10000001", "50000001", "1.0", "0.0", "-1.0", *[""] * 8, "1.0", "", ""), ("10000004", "50000004", *[""] * 14)]
    table(archive.root / "mimic-cxr-2.0.0-chexpert.csv.gz", f"subject_id,study_id,{FINDINGS}", labels)
    archive.link()
    frame = link(STAYS, archive.root, 48)[0].set_index("sample_id")
    assert frame.cxr_split.to_dict() == {"100": "validate", "400": "", "300": ""}
    assert len(CHEXPERT) == 14
    assert [c for c in frame.columns if c.startswith("chexpert_")] == list(CHEXPERT)
    present = frame.loc["100", list(CHEXPERT)].dropna().to_dict()
    assert present == {"chexpert_atelectasis": 1, "chexpert_cardiomegaly": 0, "chexpert_consolidation": -1, "chexpert_pneumonia": 1}
    assert frame.loc[["300", "400"], list(CHEXPERT)].isna().all(axis=None)


def refused(archive: Archive, *says: str) -> None:
    refusal(lambda: link(STAYS, archive.root, 48), *says)


def test_wrong_folders_are_refused(archive: Archive) -> None:
    refused(archive, str(archive.root), "mimic-cxr-2.0.0-metadata.csv.gz")
    table(archive.root / "mimic-cxr-2.0.0-metadata.csv", METADATA.replace("StudyTime", "When"), [])
    refused(archive, "STUDYTIME")
    table(archive.root / "mimic-cxr-2.0.0-metadata.csv", METADATA, [])
    assert len(link(STAYS, archive.root, 48)[0]) == 0
    table(archive.root / "mimic-cxr-2.1.0-metadata.csv", METADATA, [])
    refused(archive, "2.0.0", "2.1.0", "remove the other")
    with pytest.raises(DataError, match="cannot be read"):
        link(STAYS, archive.root / "absent", 48)


def test_wrong_labels_are_refused(archive: Archive) -> None:
    archive.image("a", "10000001", "21800506", "80000")
    table(archive.root / "mimic-cxr-2.0.0-chexpert.csv", f"subject_id,study_id,{FINDINGS}", [("10000001", "50000001", "maybe", *[""] * 13)])
    table(archive.root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA, archive.rows)
    refused(archive, "chexpert.csv, study 50000001, column Atelectasis", "'maybe'")


def picture(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, Path]:
    """A smooth picture of a shape (height, width[, 3])."""
    height, width = shape[:2]
    grey = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    pixels = grey if len(shape) == 2 else np.stack([grey, 255 - grey, np.full_like(grey, 40)], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=98)
    return pixels, path


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((900, 1200), (300, 400)), ((1200, 900), (400, 300)), ((300, 333), (300, 333)), ((200, 700), (200, 700)), ((301, 2000), (300, 1993))],
)
def test_images_are_scaled_by_their_shorter_side(tmp_path: Path, shape: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels, path = picture(tmp_path / "in.jpg", shape)
    names = export(pd.DataFrame({"sample_id": ["100"], "path": [str(path)]}), tmp_path / "out", size=300)
    assert names == {"100": "images/100.jpg"}
    with Image.open(tmp_path / "out" / names["100"]) as image:
        assert (image.mode, image.format, image.size) == ("L", "JPEG", expected[::-1])
        found = np.asarray(image, dtype=float)
    # A plane of grey stays that plane at any size.
    plane = np.add.outer(np.linspace(0, 120, expected[0]), np.linspace(0, 120, expected[1]))
    assert np.abs(found - plane).max() < 4
    assert pixels.max() > 200


def test_colour_becomes_grey_and_any_sample_id_a_file_in_the_folder(tmp_path: Path) -> None:
    pixels, path = picture(tmp_path / "in.png", (64, 64, 3))
    names = export(pd.DataFrame({"sample_id": ["../up"], "path": [str(path)]}), tmp_path / "out")
    assert list((tmp_path / "out" / "images").iterdir()) == [tmp_path / "out" / names["../up"]]
    with Image.open(tmp_path / "out" / names["../up"]) as image:
        assert image.mode == "L"
        assert np.abs(np.asarray(image, dtype=float) - pixels @ [0.299, 0.587, 0.114]).max() < 4


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    _, path = picture(tmp_path / "in.jpg", (400, 400))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"in\.jpg") as caught:
        export(pd.DataFrame({"sample_id": ["1"], "path": [str(path)]}), tmp_path / "out")
    assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: cannot be written"):
        export(pd.DataFrame({"sample_id": [], "path": []}), tmp_path / "file")

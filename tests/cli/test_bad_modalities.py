"""Pictures, notes and series that are wrong, as a newcomer meets them: a stated rule each, and a line that names file and row."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import call

CONFIG = """
modalities:
  ehr: {kind: timeseries, encoder: lstm, hours: 48}
  image: {kind: image, encoder: cnn, size: 32}
  note: {kind: text, encoder: bag}
"""
SERIES = "hours,variable,value\n1,hr,80\n2,hr,90\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three patients; the second row of the manifest (row 3 of the file) is the one that a test spoils."""
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(grey).save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.csv").write_text(SERIES)
        (tmp_path / f"{name}.txt").write_text(f"patient {name} breathes calmly")
    rows = [f"{name},{name},train,{i % 2},{name}.csv,{name}.jpg,{name}.txt" for i, name in enumerate(("a", "b", "c"))]
    (tmp_path / "manifest.csv").write_text("\n".join(["sample_id,subject_id,split,label,ehr,image,note", *rows]) + "\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return call(capsys, "data", "check", folder / "manifest.csv", "--config", folder / "config.yaml")


def _png(width: int, height: int) -> bytes:
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def test_all_good(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(folder, capsys)
    assert (code, err) == (0, "")
    assert "modality image: 3 of 3 rows" in out


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("b.jpg", "cut", "cannot be read as a picture"),
        ("b.jpg", b"", "cannot be read as a picture"),
        ("b.jpg", _png(1, 1), "the picture has 1 x 1 pixels, expected at least 16"),
        ("b.jpg", _png(20_000, 15_000), "expected at most 100 million"),
        ("b.csv", b"hours,variable,value\n1,hr,high\n", "column 'value': found 'high', expected a finite number"),
        ("b.csv", "hours,variable,value\n1,Müdigkeit,3\n".encode("latin-1"), "not UTF-8 text"),
        ("b.txt", "Müde, schläft".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_refused(folder: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes | str, says: str) -> None:
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    code, _, err = check(folder, capsys)
    assert code == 1
    assert err.count("\n") == 1, err
    for part in (says, file, "row 3", "sample_id b"):
        assert part in err


EMPTY = "1 notes are empty and count as missing, first b.txt"
LONG = "1 notes longer than 100,000 characters are read to that length, first b.txt"
ORDER = "hours out of order in 1 samples, put in order; first b.csv"
WINDOW = "1 measurements outside 0 to 48 hours are left out, first b.csv"


@pytest.mark.parametrize(
    ("file", "content", "says", "left"),
    [
        ("b.txt", "", EMPTY, "modality note: 2 of 3 rows"),
        ("b.txt", " \n\t [** ... **] ", EMPTY, "modality note: 2 of 3 rows"),
        ("b.txt", "word " * 200_000, LONG, "modality note: 3 of 3"),
        ("b.csv", "hours,variable,value\n2,hr,80\n1,hr,90\n", ORDER, "modality ehr: 3 of 3"),
        ("b.csv", "hours,variable,value\n2,hr,80\n49,hr,90\n", WINDOW, "ehr: 3 of 3"),
        ("b.csv", "hours,variable,value\n-2,hr,80\n", WINDOW, "modality ehr: 2 of 3"),
    ],
)
def test_taken_with_a_word(folder: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, says: str, left: str) -> None:
    (folder / file).write_text(content)
    code, out, err = check(folder, capsys)
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if says in line)
    assert "row 3" in line
    assert "sample_id b" in line
    assert left in out


def test_the_order_of_hours_does_not_matter(folder: Path) -> None:
    """What is put in order is what an ordered file would have given."""
    from cm2pyro.config import Config
    from cm2pyro.data.manifest import read_manifest
    from cm2pyro.data.prepared import Preparation

    config = Config.from_file(folder / "config.yaml")
    views = {"ehr": ("binned", "measured"), "image": ("pixels",), "note": ("tokens",)}
    rows = np.arange(3)
    before = Preparation.from_config(config, views).fit(read_manifest(folder / "manifest.csv"), rows)
    (folder / "b.csv").write_text("hours,variable,value\n2,hr,90\n1,hr,80\n")
    after = Preparation.from_config(config, views).fit(read_manifest(folder / "manifest.csv"), rows)
    assert after.inputs["ehr"]["binned"].equal(before.inputs["ehr"]["binned"])  # type: ignore[union-attr, arg-type]

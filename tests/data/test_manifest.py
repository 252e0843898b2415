"""The manifest: what is accepted is read as it stands, what is wrong is refused in one line."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cm2pyro.data.manifest import Manifest, inside, read_manifest
from cm2pyro.data.table import read_table
from cm2pyro.errors import DataError
from tests.refusals import refusal


def written(folder: Path, content: str | bytes, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def attempt(path: Path) -> tuple[Manifest | None, str]:
    """The manifest, or the refusal; any other error is a failure of the test."""
    try:
        return read_manifest(path), ""
    except DataError as error:
        return None, str(error)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_cells_stay_the_text_that_they_are(tmp_path: Path) -> None:
    note = "first line\nsecond, with a comma and a ''quote''"
    path = written(tmp_path, f'sample_id,heart rate,note\n001,NA,"{note}"\n1,,null\n1.0,nan,"say ""no"""\n')
    manifest = read_manifest(path)
    assert manifest.ids == ["001", "1", "1.0"]
    assert manifest.frame["heart rate"].tolist() == ["NA", "", "nan"]
    assert manifest.frame["note"].tolist() == [note, "null", 'say "no"']
    assert manifest.root == tmp_path
    assert manifest.name == str(path)
    assert len(manifest) == 3


def test_bom_crlf_blank_lines_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    plain = read_manifest(written(tmp_path, "sample_id,split\na,train\nb,val\n")).frame
    variant = read_manifest(written(tmp_path, b"\xef\xbb\xbf\r\nsample_id,split\r\n\r\na,train\r\n  \r\nb,val", "other.csv")).frame
    assert variant.to_dict("list") == plain.to_dict("list")
    # Rows count as a spreadsheet shows them, blank ones too.
    assert plain.index.tolist() == [2, 3]
    assert variant.index.tolist() == [4, 6]


def test_a_note_longer_than_the_csv_module_allows_is_read_and_its_limit_is_left_alone(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    note = "word " * 60_000
    assert read_manifest(written(tmp_path, f"sample_id,note\na,{note}\n")).frame["note"][2] == note
    assert csv.field_size_limit() == before


def test_data_frames_are_read_like_files() -> None:
    frame = pd.DataFrame({"sample_id": [3, 4], "vector": [np.array([1, 0.5], dtype="float32"), [np.float64(2), 1]], "note": [None, "NA"]})
    manifest = read_manifest(frame.set_index("sample_id"))
    assert manifest.ids == ["3", "4"]
    assert manifest.frame["vector"].tolist() == ["[1.0, 0.5]", "[2.0, 1.0]"]
    assert manifest.frame["note"].tolist() == ["", "NA"]
    assert manifest.root == Path.cwd()
    assert frame.columns.tolist() == ["sample_id", "vector", "note"]


def test_rows_subjects_and_take_keep_the_row_of_the_file(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, "sample_id,subject_id,split\na,s1,train\nb,s2,val\nc,s1,train\n"))
    assert manifest.subjects == ["s1", "s2", "s1"]
    assert manifest.rows("train") == [0, 2]
    assert manifest.rows("test") == []
    taken = manifest.take([2, 1])
    assert taken.ids == ["c", "b"]
    assert taken.rows("val") == [1]
    assert taken.where(0) == f"{manifest.name}, row 4 (sample_id c)" == manifest.where(2)
    alone = read_manifest(written(tmp_path, "sample_id\na\nb\n"))
    assert alone.subjects == ["a", "b"]
    assert alone.rows("train") == []


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ["empty", "expected a header"]),
        ("\n\n", ["empty", "expected a header"]),
        ("sample_id,split\n", ["no rows", "expected one row a sample"]),
        ("sample,split\na,train\n", ["'sample_id'", "did you mean 'sample'", "known: sample, split"]),
        ('sample_id\n\n a\n\n b\na\n""\n', ["row 7", "sample_id is empty", "its own"]),
        ("sample_id,x\n,1\n", ["row 2", "sample_id is empty"]),
        ("sample_id\na\n\nb\na\n", ["row 5", "sample_id a", "already in row 2", "its own"]),
        ("sample_id,split\na,train\nb,dev\n", ["row 3", "sample_id b", "'dev'", "train, val, test"]),
        ("sample_id,split\na,\n", ["row 2", "split is ''", "train, val, test"]),
        ("sample_id,subject_id\na,s\nb, \n", ["row 3", "subject_id is empty", "expected the subject"]),
        ("sample_id,subject_id,split\na,s,train\nb,t,val\nc,s,test\n", ["row 4", "'s'", "train and test", "assign splits by subject"]),
        ("sample_id,subject_id,split\na,s ,train\nb,s,val\n", ["row 3", "train and val"]),
        ("sample_id,x,x\na,1,2\n", ["'x' stands twice", "rename"]),
        ("x,sample_id,x\n1,a,2\n", ["'x' stands twice"]),
        (",sample_id\n0,a\n", ["column 1 has no name", "row index"]),
        ("sample_id,x,\na,1,\n", ["column 3 has no name"]),
        ("sample_id,x\na,1\nb,2,3\n", ["line 3", "3 fields", "expected 2"]),
        # pandas would take the ids of this one for row labels.
        ("sample_id,x\na,1,2\nb,3,4\n", ["line 2", "3 fields", "expected 2"]),
        ("sample_id,x,y\na,1,2\nb,3\n", ["line 3", "2 fields", "expected 3"]),
        ('sample_id,x\na,"1\n2"\nb\n', ["line 4", "1 fields"]),
        ('sample_id,x\na,"never closed\nb,2\n', ["line 2", "quotes"]),
        ('sample_id,x\na,"closed"badly\n', ["line 2", "quotes"]),
        ("sample_id,x\na,1\nb,\0\n", ["line 3", "NUL", "UTF-8"]),
        ("sample_id,x\na,1\nb,é\n".encode("latin-1"), ["line 3", "not UTF-8", "save it as UTF-8"]),
        ("sample_id,x\na,1\n".encode("utf-16"), ["line 1", "UTF-16 text, not UTF-8", "save it as UTF-8"]),
        (bytes(range(256)), ["line 2", "not UTF-8"]),
    ],
)
def test_refused_in_one_line_that_names_the_file_and_the_row(tmp_path: Path, content: str | bytes, says: list[str]) -> None:
    path = written(tmp_path, content)
    refusal(lambda: read_manifest(path), str(path), *says)


def test_refused_content_cannot_break_the_line(tmp_path: Path) -> None:
    path = written(tmp_path, 'sample_id,split\n"a\nb\x1b[2J","x\ny"\n')
    refusal(lambda: read_manifest(path), "split is 'x y'", "sample_id a b?[2J")


def test_refused_files(tmp_path: Path) -> None:
    refusal(lambda: read_manifest(tmp_path / "none.csv"), "none.csv", "No such file", "name a CSV or Parquet file")
    for name in ("folder", "folder.parquet"):
        (tmp_path / name).mkdir()
        refusal(lambda name=name: read_manifest(tmp_path / name), name, "directory")
    refusal(lambda: read_manifest(written(tmp_path, b"", "e.parquet")), "e.parquet", "expected a Parquet file")
    refusal(lambda: read_manifest(written(tmp_path, "sample_id\na\n", "t.parquet")), "t.parquet", "expected a Parquet file")
    pd.DataFrame({"sample_id": ["a"]}).to_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    refusal(lambda: read_manifest(written(tmp_path, whole[: len(whole) // 2], "half.parquet")), "half.parquet", "expected a Parquet file")
    refusal(lambda: read_manifest(written(tmp_path, whole, "parquet.csv")), "parquet.csv", "not UTF-8", "save it as UTF-8")
    pq.write_table(pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["sample_id", "x", "x"]), tmp_path / "twice.parquet")
    refusal(lambda: read_manifest(tmp_path / "twice.parquet"), "'x' stands twice")
    pq.write_table(pa.table({"sample_id": pa.array([b"\xff"])}), tmp_path / "bytes.parquet")
    refusal(lambda: read_manifest(tmp_path / "bytes.parquet"), "bytes.parquet", "utf-8")
    pd.DataFrame({"sample_id": pd.Series([], dtype=str)}).to_parquet(tmp_path / "none.parquet")
    refusal(lambda: read_manifest(tmp_path / "none.parquet"), "no rows")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "x", "secret.csv")

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, whom no file mode stops.
    monkeypatch.setattr(Path, "open", forbidden)
    monkeypatch.setattr("cm2pyro.files.os.open", forbidden)
    refusal(lambda: inside(tmp_path, "secret.csv", "m.csv, row 2"), "m.csv, row 2", "secret.csv", "Permission denied", "permissions")
    refusal(lambda: read_table(tmp_path / "secret.csv"), "secret.csv", "Permission denied")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.DataFrame(), ["'sample_id' is missing"]),
        (pd.DataFrame({"sample_id": []}), ["no rows"]),
        (pd.DataFrame([["a", 1]], columns=["sample_id", 0]), ["column 2 is named 0", "expected text"]),
        (pd.DataFrame([["a", "b"]], columns=["sample_id", "sample_id"]), ["'sample_id' stands twice"]),
        (pd.DataFrame({"sample_id": ["a", None]}), ["row 3", "sample_id is empty"]),
        (pd.DataFrame({"sample_id": [1, "1"]}), ["sample_id 1", "already in row 2"]),
        (pd.DataFrame({"sample_id": [b"\xff"]}), ["UTF-8"]),
        (pd.DataFrame({"sample_id": [f"{i}" for i in range(2)], "split": pd.Categorical(["train", "Train"])}), ["row 3", "'Train'"]),
    ],
)
def test_refused_data_frames(frame: pd.DataFrame, says: list[str]) -> None:
    refusal(lambda: read_manifest(frame), "the data frame", *says)


def test_a_long_list_of_columns_is_not_shown_whole(tmp_path: Path) -> None:
    path = written(tmp_path, ",".join(f"column_{i:03}" for i in range(500)) + "\n" + ",".join("x" * 500) + "\n")
    refusal(lambda: read_manifest(path), "and 470 more")


# --- paths -----------------------------------------------------------------------------------------------------------


def manifest_of(root: Path, cell: str) -> Manifest:
    return Manifest(pd.DataFrame({"sample_id": ["a"], "x": [cell]}, index=[2]), "m.csv", root)


def test_a_path_stays_inside_the_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside.csv"
    (root / "sub").mkdir(parents=True)
    outside.write_text("x")
    within = written(root, "x", "within.csv")
    (root / "link.csv").symlink_to(within)
    (root / "out.csv").symlink_to(outside)
    (root / "out").symlink_to(tmp_path)
    (root / "broken.csv").symlink_to(root / "nothing")
    (root / "loop.csv").symlink_to(root / "loop.csv")
    (tmp_path / "alias").symlink_to(root)
    for cell in ("within.csv", "./within.csv", "sub/../within.csv", "link.csv"):
        assert manifest_of(root, cell).file(0, "x") == within.resolve()
        assert manifest_of(tmp_path / "alias", cell).file(0, "x") == within.resolve()
    for cell in ("../outside.csv", "sub/../../outside.csv", str(outside), str(within), "out.csv", "out/outside.csv", "/etc/passwd"):
        refusal(
            lambda c=cell: manifest_of(root, c).file(0, "x"),
            "m.csv, row 2 (sample_id a), column 'x'",
            cell[:60],
            "leaves the manifest's folder",
        )
    for cell in ("sub", "absent.csv", "broken.csv", "", "."):
        refusal(lambda c=cell: manifest_of(root, c).file(0, "x"), f"'{cell}'", "not a file", "correct the path")
    for cell in ("loop.csv", "nul\0byte", "a" * 5000):
        refusal(lambda c=cell: manifest_of(root, c).file(0, "x"), "row 2", "correct the path")
    refusal(lambda: manifest_of(root, "a note\nthat stands\nwhere a path should").file(0, "x"), "a note that stands")


# --- anything at all -------------------------------------------------------------------------------------------------

_csv = st.lists(
    st.lists(st.sampled_from(["", "a", "1", "sample_id", "split", "train", "subject_id", '"', '"x', "é", "\0", " "]), max_size=4),
    max_size=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.encode),
        _csv.map(lambda rows: "\n".join(",".join(row) for row in rows).encode()),
        _csv.map(lambda rows: "\r\n".join(["sample_id,split", *(",".join(row) for row in rows)]).encode()),
    ),
    st.sampled_from(["m.csv", "m.parquet"]),
)
def test_any_bytes_are_read_or_refused(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), content, name)
        manifest, message = attempt(path)
        if manifest is None:
            assert str(path) in message
            assert len(message.splitlines()) == 1
        else:
            assert len(set(manifest.ids)) == len(manifest) > 0
            assert all(isinstance(cell, str) for column in manifest.frame for cell in manifest.frame[column])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_parquet_file_is_read_or_refused(data: st.DataObject) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"sample_id": ["a", "b"], "x": [1.5, 2.5]}), sink)
    damaged = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), bytes(damaged), "m.parquet")
        manifest, message = attempt(path)
        assert manifest is not None or len(message.splitlines()) == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_pandas_writes_comes_back(notes: list[str], newline: str) -> None:
    frame = pd.DataFrame({"sample_id": [f"{i:03}" for i in range(len(notes))], "note": notes})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.csv"
        frame.to_csv(path, index=False, lineterminator=newline, quoting=1)
        read = read_manifest(path)
    assert read.ids == frame["sample_id"].tolist()
    assert read.frame["note"].tolist() == notes

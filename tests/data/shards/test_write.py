"""Shards hold what the manifest, its tables and its files hold, and refuse what its reader refuses."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm2pyro.data import parquet
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.shards.index import FILES, INDEX, Shards, _unpack, is_shards
from cm2pyro.data.shards.write import write_shards
from cm2pyro.errors import ConfigError, DataError
from tests.data.shards.cases import TABLES
from tests.refusals import refusal

Make = Callable[[int], Shards]


@pytest.mark.parametrize("rows", [1000, 32, 7])
def test_rows_keep_their_order_within_a_split(shard: Make, folder: Path, rows: int) -> None:
    made, whole = shard(rows), read_manifest(folder / "manifest.csv")
    for split in ("train", "val", "test"):
        frames = []
        for one in made.of(split):
            with made.manifest(one) as manifest:
                frames.append(manifest.frame)
                assert len(manifest) <= rows
        expected = whole.take(whole.rows(split)).frame.reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), expected)
        assert made.rows(split) == len(expected)
    assert made.index.rows == len(whole)
    assert made.index.subjects == len(set(whole.subjects))


def test_every_line_of_a_table_lies_with_its_sample(shard: Make, folder: Path) -> None:
    made = shard(7)
    table = pd.read_parquet(folder / "series.parquet")
    parts = []
    for one in made.index.shards:
        with made.manifest(one) as manifest:
            part = pd.read_parquet(manifest.table("series.parquet", "series"))
            assert set(part["sample_id"]) <= set(manifest.ids)
            parts.append(part)
    known = table[table["sample_id"] != "elsewhere"]
    columns = list(table.columns)
    found = pd.concat(parts).sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(found, known.sort_values(columns, ignore_index=True))


def test_lines_of_other_samples_are_said(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    write_shards(folder / "manifest.csv", tmp_path / "out", [*TABLES, "absent.parquet"], None, 50, say=said.append)
    lost = int((pd.read_parquet(folder / "series.parquet")["sample_id"] == "elsewhere").sum())
    assert lost > 0
    assert f"{lost} lines" in said[0]
    assert "absent.parquet is not beside" in said[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("split\ntrain\n", "sample_id"),
        ("sample_id,split\na,train\na,val\n", "row 3: sample_id stands already in row 2"),
        ("sample_id,split\na,train\n ,val\n", "row 3: sample_id is empty"),
        ("sample_id,split\na,train\nb,dev\n", "row 3: split is none"),
        ("sample_id,subject_id,split\na,p,train\nb,p ,val\n", "rows 2 and 3: one subject in two splits"),
        ("sample_id,subject_id,split\na,p,train\nb,,val\n", "row 3: subject_id is empty"),
        ("sample_id,split\na,train,secret\n", "line 2: 3 fields, expected 2"),
        ("sample_id,split\n", "no rows"),
        ("", "the file is empty"),
        ("sample_id,sample_id\na,b\n", "stands twice"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_refused_and_nothing_is_left(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=words) as refusal:
        write_shards(tmp_path / "m.csv", tmp_path / "out", [], None, 10)
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv"]


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "m.csv").write_text("sample_id,note\na,../secret.txt\n")
    with pytest.raises(DataError, match="leaves the manifest's folder"):
        write_shards(tmp_path / "data" / "m.csv", tmp_path / "out", [], None, 10)


def test_only_shards_are_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    for overwrite in (False, True):
        with pytest.raises(ConfigError):
            write_shards(folder / "manifest.csv", out, [], None, 10, overwrite)
    assert (out / "mine.txt").read_text() == "keep"
    assert not is_shards(out)


# --- damage -------------------------------------------------------------------------------------------------------------


def test_a_changed_byte_a_cut_file_and_a_lost_file_are_named(shard: Make) -> None:
    for damage, words in (("change", "was changed"), ("cut", "bytes, expected"), ("lose", "No such file")):
        made = shard(50)
        victim = made.folder / made.of("train")[1].name / "manifest.parquet"
        data = victim.read_bytes()
        if damage == "lose":
            victim.unlink()
        else:
            victim.write_bytes(data[:-1] if damage == "cut" else data[:100] + bytes([data[100] ^ 1]) + data[101:])
        with pytest.raises(DataError, match=words) as refusal:
            made.verify()
        assert str(victim) in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../etc"),
        ("name", "/etc"),
        ("rows", 0),
        ("rows", "many"),
        ("split", None),
        ("files", {"../x": {"bytes": 1, "sha256": ""}}),
    ],
)
def test_an_index_that_names_what_it_may_not_is_refused(shard: Make, key: str, value: object) -> None:
    made = shard(50)
    raw = json.loads((made.folder / INDEX).read_text())
    raw["shards"][0][key] = value
    (made.folder / INDEX).write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"shards\.0"):
        Shards.open(made.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', "[" * 100_000])
def test_a_broken_index_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError) as refusal:
        Shards.open(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_packed_file_cannot_leave_the_shard(shard: Make) -> None:
    made = shard(1000)
    one = next(s for s in made.index.shards if FILES in s.files)
    path = made.folder / one.name / FILES
    with made.manifest(one) as manifest:
        cell = next(cell for cell in manifest.frame["film"] if cell)
    # Somebody who can rewrite the shard can rewrite its checksums too.
    rows = pq.read_table(made.folder / one.name / "manifest.parquet").to_pydict()
    rows["film"] = ["../escaped.png" if c == cell else c for c in rows["film"]]
    pq.write_table(pa.table(rows), made.folder / one.name / "manifest.parquet")
    packed = pq.read_table(path).to_pydict()
    pq.write_table(pa.table({"path": ["../escaped.png"], "content": pa.array(packed["content"][:1], pa.large_binary())}), path)
    made._verified.update(str(file) for file in path.parent.iterdir())
    sizes = {file.name: one.files[file.name].model_copy(update={"bytes": file.stat().st_size}) for file in path.parent.iterdir()}
    with pytest.raises(DataError, match="leaves the shard"), made.manifest(one.model_copy(update={"files": sizes})):
        pass


def test_files_that_would_unfold_beyond_all_measure_are_refused(shard: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shard(1000)
    one = next(s for s in made.index.shards if FILES in s.files)
    path = made.folder / one.name
    reads = {"manifest.parquet": lambda: made.frame(one, ["note"]), FILES: lambda: _unpack(path / FILES, set(), tmp_path)}
    monkeypatch.setattr(parquet, "_BYTES_EACH", 0)
    for name, read in reads.items():
        read()
        with monkeypatch.context() as context:
            context.setattr(parquet, "_BYTES", (path / name).stat().st_size // 4)
            refusal(read, f"{name}: holds", "expected at most")


def test_a_column_that_the_index_tells_of_has_to_be_there(shard: Make) -> None:
    made = shard(1000)
    one = made.index.shards[0]
    claimed = Shards(made.folder, made.index.model_copy(update={"columns": [*made.index.columns, "diagnosis"]}))
    refusal(
        lambda: claimed.frame(one, ["sample_id", "diagnosis"]), "manifest.parquet: column 'diagnosis' is missing", "make the shards again"
    )
    assert list(made.frame(one, ["sample_id", "diagnosis"])) == ["sample_id"]


def test_a_full_disk_where_files_are_unpacked_is_no_fault_of_the_shards(shard: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shard(1000)
    one = next(s for s in made.index.shards if FILES in s.files)

    def full(path: Path, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"No space left on device.*TMPDIR") as refusal, made.manifest(one):
        pass
    assert "Parquet" not in str(refusal.value).replace("files.parquet", "")

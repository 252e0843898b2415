"""Parquet files, whole and some rows at a time: what would unfold beyond all measure is refused before it does."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm2pyro.data import parquet
from cm2pyro.data.parquet import read_batches, read_parquet
from cm2pyro.errors import DataError

ROWS = 300
NAMES = ["id", "word", "long", "code", "picture", "list", "number"]


def saved(folder: Path, **changes: pa.Array) -> Path:
    """Columns of every sort, with gaps; in the file a repeated word takes no room."""
    columns = {
        "id": pa.array([f"s{i}" for i in range(ROWS)]),
        "word": pa.array(["fever", None, ""] * (ROWS // 3)),
        "long": pa.array(["x" * 50] * ROWS, pa.large_string()),
        "code": pa.array([7, 8, None] * (ROWS // 3)).dictionary_encode(),
        "picture": pa.array([b"\x00\xff", None, b""] * (ROWS // 3), pa.large_binary()),
        "list": pa.array([[1, 2], None, []] * (ROWS // 3)),
        "number": pa.array([0.5, None, 2.0] * (ROWS // 3)),
    }
    pq.write_table(pa.table(columns | changes), folder / "t.parquet", row_group_size=120)
    return folder / "t.parquet"


def whole(path: Path) -> pa.Table:
    with path.open("rb") as opened:
        return read_parquet(opened, "t.parquet")


def parts(path: Path, names: list[str] = NAMES) -> list[pa.Table]:
    with path.open("rb") as opened:
        return list(read_batches(opened, "t.parquet", 50, names))


@pytest.mark.slow
def test_parts_are_the_whole_in_its_own_types(tmp_path: Path) -> None:
    path = saved(tmp_path)
    expected = pq.read_table(path)
    assert pa.concat_tables(parts(path)).to_pydict() == whole(path).to_pydict() == expected.to_pydict()
    assert all(part.schema.types == expected.schema.types and len(part) <= 50 for part in parts(path))
    some = parts(path, ["number", "word"])
    assert some[0].column_names == ["number", "word"]


@pytest.mark.parametrize("read", [whole, parts])
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"_VALUES": 2199, "_VALUES_EACH": 0}, "holds 2,200 values"),  # 300 a column, of the lists 400
        ({"_BYTES": 10_000, "_BYTES_EACH": 0}, "bytes of text"),
        ({"_BYTES": 1000, "_BYTES_EACH": 0}, "bytes once unpacked"),
    ],
)
def test_more_than_the_limits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], limits: dict[str, int], says: str
) -> None:
    path = saved(tmp_path)
    read(path)
    for name, limit in limits.items():
        monkeypatch.setattr(parquet, name, limit)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith("t.parquet: holds ")
    assert says in str(caught.value)


def test_repeated_bytes_count_as_often_as_they_stand_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, picture=pa.array([b"p" * 1000] * ROWS, pa.large_binary()))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet, "_BYTES", 100_000)
    monkeypatch.setattr(parquet, "_BYTES_EACH", 0)
    with pytest.raises(DataError, match=r"holds 150,000 bytes of text"):
        parts(path, ["picture"])

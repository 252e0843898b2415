"""A CSV in blocks is the CSV read whole: the same cells, or the same refusal."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.data import csv_file
from cm2pyro.data.csv_file import read_blocks, read_columns
from cm2pyro.errors import DataError

PIECES = ["a", "é", "1", ",", ",", "\n", "\n", "\r\n", "\r", '"', '""', '"x"', " ", "\0", "\ufeff", "NA", "\ud800", "#", "\\", "\u2028"]


def whole(path: Path) -> dict[str, list[str]] | str:
    try:
        return read_columns(path, "t.csv")[0]
    except DataError as error:
        return str(error)


def blocks(path: Path) -> dict[str, list[str]] | str:
    try:
        with path.open("rb") as opened:
            parts = list(read_blocks(opened, "t.csv"))
    except DataError as error:
        return str(error)
    assert not any(parts[0].values()), "the first block has no rows"
    return {name: [cell for part in parts for cell in part[name]] for name in parts[0]}


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_blocks_are_the_whole(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "t.csv"
    path.write_bytes(("id,note\nx,y\n" + "".join(pieces)).encode("utf-8", "surrogatepass"))
    once, again = whole(path), blocks(path)
    if isinstance(once, str) and isinstance(again, str):  # of two faults each reader may find another first
        assert once.startswith("t.csv, line")
        assert again.startswith("t.csv, line")
    else:
        assert again == once


def test_blocks_end_at_rows_and_at_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{'x' * 40}\n" for i in range(100)))

    def sizes() -> list[int]:
        with (tmp_path / "t.csv").open("rb") as opened:
            return [len(block["a"]) for block in read_blocks(opened, "t.csv")]

    assert sizes() == [0, 100]
    monkeypatch.setattr(csv_file, "_BLOCK_ROWS", 30)
    assert sizes() == [0, 30, 30, 30, 10]
    monkeypatch.setattr(csv_file, "_BLOCK", 400)
    assert max(sizes()) <= 11
    assert sum(sizes()) == 100


def test_what_would_swallow_the_rest_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_LONGEST", 50)
    for text, words in (('a,b\n1,"' + "x\n" * 60, "field larger"), ("a,b\n1," + "x" * 60 + "\n", "50 characters")):
        (tmp_path / "t.csv").write_text(text)
        assert words in str(blocks(tmp_path / "t.csv"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("read", [whole, blocks])
def test_utf_16_is_named(tmp_path: Path, read: Callable[[Path], object], encoding: str) -> None:
    """As spreadsheets write "Unicode text"; without the mark at its start nothing tells it from a damaged file."""
    (tmp_path / "t.csv").write_bytes(("" if encoding == "utf-16" else "\ufeff").encode(encoding) + "a,b\n1,é\n".encode(encoding))
    assert str(read(tmp_path / "t.csv")).startswith("t.csv, line 1: UTF-16 text, not UTF-8; expected a CSV; save it as UTF-8")
    (tmp_path / "t.csv").write_bytes("a,b\n1,2\n".encode("utf-16-le"))
    assert "NUL" in str(read(tmp_path / "t.csv"))

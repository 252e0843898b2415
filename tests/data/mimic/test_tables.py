"""The streamed tables: blocks, rows of the file, headers, cells."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from cm2pyro.data.mimic import tables
from cm2pyro.data.mimic.tables import Table, find_table, look_for_table, numbers, timestamps
from cm2pyro.errors import DataError


def made(folder: Path, text: str, name: str = "T.csv", columns: tuple[str, ...] = ("a", "b")) -> Table:
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return find_table(folder, "t", columns)


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "T.csv.gz"])
def test_rows_are_those_of_the_file_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tables, "_BLOCK", 4096)
    table = made(tmp_path, "x,B,A\n" + "".join(f'9,"b,{i}\nmore",{i}\n' for i in range(5000)), name)
    assert len(list(table.batches(["a"]))) > 3, "several blocks"
    frame = table.frame(["a", "b"])
    assert frame.a.tolist() == [str(i) for i in range(5000)]
    assert frame.b.tolist() == [f"b,{i}\nmore" for i in range(5000)]
    assert frame.index.tolist() == list(range(2, 5002))
    some = table.frame(["a", "b"], of=("a", ["4711", "17", "x"]))
    assert some.index.tolist() == [19, 4713]


def test_cells_stay_as_they_are(tmp_path: Path) -> None:
    frame = made(tmp_path, 'A,B\n007,None\nNA,""\n,nan\n').frame(["a", "b"])
    assert frame.a.tolist() == ["007", "NA", ""]
    assert frame.b.tolist() == ["None", "", "nan"]


def test_a_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    assert made(tmp_path, "\ufeffA,B\n").frame(["a", "b"]).shape == (0, 2)


def test_a_cell_is_named_as_the_file_spells_it(tmp_path: Path) -> None:
    table = made(tmp_path, "A,b\n1,2\n")
    assert table.where(1234, "a") == f"{tmp_path / 'T.csv'}, row 1,234, column A"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A,C\n", "column B is missing"),
        ("A,B,a\n", "column a stands twice"),
        ("\n", "is empty"),
    ],
)
def test_bad_headers_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        made(tmp_path, text)


def test_an_optional_table_may_be_absent(tmp_path: Path) -> None:
    assert look_for_table(tmp_path, "t", None) is None
    with pytest.raises(DataError, match=r"has no t\.csv or t\.csv\.gz; expected"):
        find_table(tmp_path, "t", None)


def place(i: int) -> str:
    return f"cell {i}"


def test_times() -> None:
    cells = np.array(["2150-03-01 07:30:00", "2150-03-01", "1850-01-01 00:00:00"], dtype=object)
    assert timestamps(cells, place).astype(str).tolist() == ["2150-03-01T07:30:00", "2150-03-01T00:00:00", "1850-01-01T00:00:00"]
    gap = np.array(["", "2150-03-01"], dtype=object)
    assert np.isnat(timestamps(gap, place, empty=True)).tolist() == [True, False]
    for cell in ("", "1 March", "2150-02-30", "2150-03-01 25:00:00", "03/01/2150"):
        with pytest.raises(DataError, match=f"cell 1: found the time '{cell}', expected one such as 2150-03-01 07:30:00"):
            timestamps(np.array(["2150-03-01", cell], dtype=object), place)


def test_numbers() -> None:
    assert numbers(np.array(["1", "-2.5", "1e3", ".5"], dtype=object), place).tolist() == [1, -2.5, 1000, 0.5]
    assert np.isnan(numbers(np.array(["", "3"], dtype=object), place)).tolist() == [True, False]
    for cell in ("fast", "nan", "inf", "1,5", "-"):
        with pytest.raises(DataError, match=f"cell 2: found '{cell}', expected a finite number"):
            numbers(np.array(["1", "", cell], dtype=object), place)

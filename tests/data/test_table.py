"""Tables: cells of a Parquet file as text or as numbers, and what counts as a number."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.table import parse_numbers, read_table


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2]), ["1", "2"]),
        (pa.array([2**53 + 1, None]), [str(2**53 + 1), ""]),
        (pa.array([1.0, 2.5]), ["1", "2.5"]),
        (pa.array([1.0, 3.0], pa.float32()), ["1", "3"]),
        (pa.array([float("nan"), None], pa.float64()), ["", ""]),
        (pa.array(["001", None]), ["001", ""]),
        (pa.array(["001", "NA"]).dictionary_encode(), ["001", "NA"]),
        (pa.array([b"001", b"\xc3\xa9"]), ["001", "é"]),
        (pa.array([[0.5, -2.0], None]), ["[0.5, -2.0]", ""]),
        (pa.array([[0.5, 1.0], [1.0, 2.0]], pa.list_(pa.float32())), ["[0.5, 1.0]", "[1.0, 2.0]"]),
        (pa.array([True, False]), ["True", "False"]),
    ],
)
def test_parquet_columns_become_text(tmp_path: Path, column: pa.Array, expected: list[str]) -> None:
    pq.write_table(pa.table({"sample_id": pa.array([7, 8]), "x": column}), tmp_path / "manifest.parquet")
    manifest = read_manifest(tmp_path / "manifest.parquet")
    assert manifest.ids == ["7", "8"]
    assert manifest.frame["x"].tolist() == expected


def test_parquet_with_the_ids_as_its_index_and_in_a_folder_that_looks_like_a_partition(tmp_path: Path) -> None:
    folder = tmp_path / "split=test"
    folder.mkdir()
    pd.DataFrame({"x": ["a"]}, index=pd.Index(["001"], name="sample_id")).to_parquet(folder / "m.parquet")
    frame = read_manifest(folder / "m.parquet").frame
    assert sorted(frame.columns) == ["sample_id", "x"]
    pd.DataFrame({"sample_id": ["a", "b"]}, index=[5, 9]).to_parquet(folder / "n.parquet")
    assert read_manifest(folder / "n.parquet").frame.columns.tolist() == ["sample_id"]


def test_table_keeps_numbers_when_asked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"sample_id": [1, 2], "i": pd.array([2, None], dtype="Int64"), "b": [True, False], "t": ["1", None]})
    frame["self"] = np.array([0.25, 4], dtype="float32")
    frame.to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", numbers=True)
    assert read["sample_id"].tolist() == ["1", "2"]
    assert read["t"].tolist() == ["1", ""]
    np.testing.assert_array_equal(read["i"].to_numpy(), [2, np.nan])
    assert read[["b", "self"]].dtypes.tolist() == [np.float64, np.float64]
    assert read["self"].tolist() == [0.25, 4]
    assert read_table(tmp_path / "t.parquet")["self"].tolist() == ["0.25", "4"]


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_of_text() -> None:
    cells = pd.Series(["1", " -2.5 ", "1e3", "", "  ", "nan", "NaN", "NA", "inf", "-Infinity", "1_0", "0x1F", "True", "1,5", "1e999"])
    values, wrong = parse_numbers(cells)
    np.testing.assert_array_equal(values[:7], [1, -2.5, 1000, np.nan, np.nan, np.nan, np.nan])
    assert wrong.tolist() == list(range(7, len(cells)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.floats(width=64).map(repr), st.integers().map(str), st.text(max_size=5))))
def test_numbers_agree_with_python(cells: list[str]) -> None:
    values, wrong = parse_numbers(pd.Series(cells, dtype=object))
    for i, cell in enumerate(cells):
        try:
            expected = float(cell)
        except ValueError:
            expected = np.nan
        if i in wrong:
            # Python also reads 1_000 and digits of other scripts.
            assert not np.isfinite(expected) or not cell.strip().isascii() or "_" in cell
        elif cell.strip().lower() in ("", "nan"):
            assert np.isnan(values[i])
        else:
            np.testing.assert_allclose(values[i], expected, rtol=4e-16, atol=5e-324)

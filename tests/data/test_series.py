"""Time series: long and wide, files and tables, give the same events; what is wrong is refused with file and line."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.config import Modality
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.series import Events, read_series
from cm2pyro.errors import DataError
from tests.refusals import refusal

FILES = Modality(kind="timeseries", encoder="lstm")
TABLE = Modality(kind="timeseries", encoder="lstm", table="t.csv")
PARQUET = Modality(kind="timeseries", encoder="lstm", table="t.parquet")


def manifest_with(folder: Path, cells: dict[str, str], **files: str | bytes) -> Manifest:
    """A manifest with a column `x`; files `t_csv="…"` are written as t.csv."""
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    lines = ["sample_id,x", *(f"{sample},{cell}" for sample, cell in cells.items())]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return read_manifest(folder / "m.csv")


def listed(events: Events) -> list[tuple[int, str, float, float]]:
    columns = (events.samples.tolist(), [events.names[v] for v in events.variables], events.hours.tolist(), events.values.tolist())
    return list(zip(*columns, strict=True))


EXPECTED = [(0, "HR", 0.0, 80.0), (0, "HR", 2.0, 90.0), (0, "Temp", 2.0, 36.5), (1, "Temp", 1.0, 38.0)]


def test_long_and_wide_files_and_tables_give_the_same_events(tmp_path: Path) -> None:
    files = manifest_with(
        tmp_path,
        {"a": "long.csv", "b": "wide.csv", "c": ""},
        long_csv="hours,variable,value,unit\n2,HR,90,bpm\n0,HR,80,bpm\n2,Temp,36.5,C\n1,Temp,,C\n",
        wide_csv="Hours,HR,Temp\n1,nan,38\n\n3,,\n",
    )
    assert listed(read_series(files, "x", FILES)) == EXPECTED
    long = "sample_id,hours,variable,value\nother,1,HR,55\na,2,HR,90\nb,1,Temp,38\na,0,HR,80\na,2,Temp,36.5\na,1,Temp,\n"
    wide = "sample_id,hours,HR,Temp\na,0,80,\nb,1,,38\na,2,90,36.5\nother,1,1,1\n"
    for content in (long, wide):
        (tmp_path / "t.csv").write_text(content)
        pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
        for modality in (TABLE, PARQUET):
            events = read_series(files, "x", modality)
            assert listed(events) == EXPECTED
            assert events.observed.tolist() == [True, True, False]
            assert events.rows == 3


def test_parquet_files_a_sample_and_variables_that_are_numbers(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "a.parquet", "b": "b.csv"}, b_csv="hours,variable,value\n1,220045,7\n")
    frame = pd.DataFrame({"hours": [1, 2], "variable": [220045, 220050], "value": [1.0, None]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert listed(read_series(manifest, "x", FILES)) == [(0, "220045", 1.0, 1.0), (1, "220045", 1.0, 7.0)]
    frame.assign(sample_id="a").to_parquet(tmp_path / "t.parquet")
    assert read_series(manifest, "x", PARQUET).names == ("220045",)


def test_the_window_is_closed_and_what_lies_outside_is_dropped(tmp_path: Path) -> None:
    content = "hours,variable,value\n" + "".join(f"{h},v,{i}\n" for i, h in enumerate(["-0.01", "0", "24", "48", "48.01", "1e9"]))
    manifest = manifest_with(tmp_path, {"a": "a.csv"}, a_csv=content)
    assert read_series(manifest, "x", FILES).values.tolist() == [1, 2, 3]
    day = Modality(kind="timeseries", encoder="lstm", hours=24, column="x")
    assert read_series(manifest, "other", day).values.tolist() == [1, 2]


def test_variables_that_only_occur_outside_the_window_are_not_there(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "a.csv"}, a_csv="hours,variable,value\n1,v,1\n50,late,1\n2,empty,\n")
    assert read_series(manifest, "x", FILES).names == ("v",)


@pytest.mark.parametrize("content", ["hours,variable,value\n", "hours,HR\n", "hours,variable,value\n1,HR,\n", "hours,HR\n99,1\n"])
def test_a_series_without_measurements_is_a_missing_one(tmp_path: Path, content: str) -> None:
    manifest = manifest_with(tmp_path, {"a": "a.csv", "b": "b.csv"}, a_csv=content, b_csv="hours,HR\n1,70\n")
    events = read_series(manifest, "x", FILES)
    assert events.observed.tolist() == [False, True]
    assert listed(events) == [(1, "HR", 1.0, 70.0)]
    alone = read_series(manifest.take([0]), "x", FILES)
    assert alone.observed.tolist() == [False]
    assert alone.names == ()


def test_no_column_and_no_cell_is_missing(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "", "b": ""})
    for name in ("x", "absent"):
        assert read_series(manifest, name, FILES).observed.tolist() == [False, False]
    (tmp_path / "t.csv").write_text("sample_id,hours,variable,value\n")
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    for modality in (TABLE, PARQUET):
        assert read_series(manifest, "x", modality).observed.tolist() == [False, False]


def test_repeated_measurements_keep_the_order_of_the_file(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "a.csv"}, a_csv="hours,variable,value\n3,v,9\n1,v,5\n1,v,3\n1,v,4\n")
    assert read_series(manifest, "x", FILES).values.tolist() == [5, 3, 4, 9]


def test_files_with_different_headers_keep_their_rows(tmp_path: Path) -> None:
    manifest = manifest_with(
        tmp_path,
        {"a": "a.csv", "b": "b.csv", "c": "a.csv", "d": "d.csv"},
        a_csv="hours,HR,Temp\n1,70,37\n",
        b_csv="Temp,hours,HR\n38,1,80\n",
        d_csv="hours,HR,Temp\n1,,39\n",
    )
    expected = [(0, "HR", 1, 70), (0, "Temp", 1, 37), (1, "HR", 1, 80), (1, "Temp", 1, 38), (2, "HR", 1, 70), (2, "Temp", 1, 37)]
    assert listed(read_series(manifest, "x", FILES)) == [*expected, (3, "Temp", 1, 39)]


def test_select_renumbers_and_drops() -> None:
    events = Events(np.array([0, 0, 1]), np.array([0, 1, 2]), np.arange(3.0), np.array([5.0, 6, 7]), ("a", "b", "c"), 3)
    chosen = events.select(("c", "new", "a"))
    assert listed(chosen) == [(0, "a", 0.0, 5.0), (1, "c", 2.0, 7.0)]
    assert chosen.names == ("c", "new", "a")
    assert events.select(("b",)).observed.tolist() == [True, False, False]
    none = Events(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), (), 2)
    assert none.select(("a",)).observed.tolist() == [False, False]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("hours,variable,value\n1,HR,70\n\n2,HR,high\n", ["line 4", "'value'", "'high'", "finite number", "leave it empty"]),
        ("hours,HR\n1,70\n2,NA\n", ["line 3", "'HR'", "'NA'"]),
        ("hours,HR\n1,inf\n", ["line 2", "'HR'", "'inf'"]),
        ("hours,HR\n1,1e999\n", ["line 2", "'1e999'"]),
        ("hours,HR\nsoon,70\n", ["line 2", "'hours'", "'soon'"]),
        ("hours,HR\n1,70\n,70\n", ["line 3", "'hours'", "empty"]),
        ("hours,HR\nnan,70\n", ["line 2", "'hours'", "empty"]),
        ("hours,HR\n-inf,70\n", ["line 2", "'hours'", "'-inf'"]),
        # Outside the window, but still not a number.
        ("hours,HR\n99,x\n", ["line 2", "'x'"]),
        ("hours,variable,value\n1,,70\n", ["line 2", "variable is empty"]),
        ("time,HR\n1,70\n", ["'hours' is missing", "long", "wide", "time, HR"]),
        ("hours\n1\n", ["only hours"]),
        ("hours,Hours,HR\n1,1,70\n", ["'hours' and 'Hours'", "rename"]),
        ("hours,HR,HR\n1,1,70\n", ["'HR' stands twice"]),
        ("hours,HR\n1,70,80\n", ["line 2", "3 fields", "expected 2"]),
        ("hours,variable,value\n1,HR,70\n2,HR\n", ["line 3", "2 fields", "expected 3"]),
        (",hours,HR\n0,1,70\n", ["column 1 has no name"]),
        ("", ["empty", "expected a header"]),
    ],
)
def test_refused_with_file_and_line(tmp_path: Path, content: str, says: list[str]) -> None:
    good = "hours,HR\n1,70\n2,80\n3,90\n"
    files = manifest_with(tmp_path, {"good": "good.csv", "bad": "bad.csv", "last": "good.csv"}, good_csv=good, bad_csv=content)
    refusal(lambda: read_series(files, "x", FILES), "bad.csv", "row 3 (sample_id bad)", *says)
    if not content:
        return
    # The same in a table, with ids in front.
    lines = content.splitlines()
    table = [f"sample_id,{lines[0]}", *(line and f"bad,{line}" for line in lines[1:])]
    (tmp_path / "t.csv").write_text("\n".join(table) + "\n")
    refusal(lambda: read_series(files, "x", TABLE), "t.csv", *(part for part in says if part.startswith("line ")))


def test_the_line_of_a_table_is_that_of_the_file(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": ""}, t_csv="sample_id,hours,HR\nother,1,x\nother,2,1\n\na,1,70\na,2,y\n")
    refusal(lambda: read_series(manifest, "x", TABLE), "t.csv", "line 6", "'y'")
    frame = pd.DataFrame({"sample_id": ["other", "a", "a"], "hours": [1.0, 2.0, np.nan], "HR": [np.inf, 1.0, 1.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    refusal(lambda: read_series(manifest, "x", PARQUET), "t.parquet", "line 4", "'hours'")
    frame.assign(hours=1.0, HR=[1.0, 1.0, -np.inf]).to_parquet(tmp_path / "t.parquet")
    refusal(lambda: read_series(manifest, "x", PARQUET), "t.parquet", "line 4", "'HR'", "'-inf'")


def test_refused_tables(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "a.csv"}, t_csv="id,hours,HR\na,1,70\n")
    refusal(lambda: read_series(manifest, "x", TABLE), "t.csv", "modality x", "'sample_id' is missing")
    (tmp_path / "t.csv").unlink()
    refusal(lambda: read_series(manifest, "x", TABLE), "modality x, table", "'t.csv'", "not there")
    (tmp_path / "t.csv").mkdir()
    refusal(lambda: read_series(manifest, "x", TABLE), "'t.csv'", "not a file")
    refusal(lambda: read_series(manifest, "x", Modality(kind="timeseries", encoder="e", table="../t.csv")), "leaves the manifest's folder")
    refusal(lambda: read_series(manifest, "x", FILES), "row 2 (sample_id a), column 'x'", "'a.csv'", "not there")


# --- anything at all -------------------------------------------------------------------------------------------------

_cells = st.sampled_from(["", "1", "2.5", "-3", "x", "inf", "nan", "a", "b", '"', "hours", "value", "é", "1e5", " 7 "])
_lines = st.lists(st.lists(_cells, max_size=5).map(",".join), max_size=6)
_headers = st.sampled_from(
    ["hours,variable,value", "hours,HR", "Hours,HR,Temp", "sample_id,hours,HR", "sample_id,hours,variable,value", ""]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.tuples(_headers, _lines).map(lambda two: "\n".join([two[0], *two[1]]).encode())))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_with(Path(folder), {"a": "t.csv", "b": ""}, t_csv=content)
        for modality in (FILES, TABLE):
            events, message = None, ""
            try:
                events = read_series(manifest, "x", modality)
            except DataError as error:
                message = str(error)
            if events is None:
                assert "t.csv" in message
                assert len(message.splitlines()) == 1
            else:
                assert np.isfinite(events.values).all()
                assert ((events.hours >= 0) & (events.hours <= 48)).all()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("uvw"), st.integers(0, 480).map(lambda i: i / 10), st.floats(-1e6, 1e6)),
        max_size=12,
    )
)
def test_csv_and_parquet_tables_agree(events: list[tuple[int, str, float, float]]) -> None:
    frame = pd.DataFrame(events, columns=["sample_id", "variable", "hours", "value"])
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_with(Path(folder), {"0": "", "1": "", "2": ""})
        frame.to_csv(Path(folder) / "t.csv", index=False)
        frame.astype({"sample_id": "int64", "value": "float64", "hours": "float64"}).to_parquet(Path(folder) / "t.parquet")
        text, binary = read_series(manifest, "x", TABLE), read_series(manifest, "x", PARQUET)
    expected = sorted(events, key=lambda event: event[:3])
    assert [(s, v, h) for s, v, h, _ in listed(binary)] == [(s, v, h) for s, v, h, _ in expected]
    np.testing.assert_array_equal(binary.values, [value for *_, value in expected])
    np.testing.assert_allclose(text.values, binary.values, rtol=4e-16)
    assert (text.samples.tolist(), text.names) == (binary.samples.tolist(), binary.names)


# --- what is left out or put in order is said ------------------------------------------------------------------------

LONG_TABLE = "sample_id,hours,variable,value\nb,5,HR,1\na,3,HR,2\na,1,HR,3\nb,60,HR,4\na,-1,Temp,5\nother,99,HR,6\n"


def test_a_table_out_of_order_and_beyond_the_window_is_said_with_its_line(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "", "b": ""}, t_csv=LONG_TABLE)
    events = read_series(manifest, "ehr", TABLE)
    assert listed(events) == [(0, "HR", 1.0, 3.0), (0, "HR", 3.0, 2.0), (1, "HR", 5.0, 1.0)]
    assert events.remarks == (
        "modality ehr: 2 measurements outside 0 to 48 hours are left out, first t.csv (modality ehr), line 5",
        "modality ehr: hours out of order in 1 samples, put in order; first t.csv (modality ehr), line 4",
    )


@pytest.mark.parametrize(
    "text",
    ["hours,variable,value\n3,HR,2\n1,HR,3\n\n49,Temp,5\n", "hours,HR,Temp\n3,2,\n1,3,\n\n49,,5\n", "Hours,Temp,HR\n3,,2\n1,,3\n\n49,5,\n"],
)
def test_a_file_out_of_order_and_beyond_the_window_is_said_with_its_line(tmp_path: Path, text: str) -> None:
    header = text.splitlines()[0]
    good = f"{header}\n1,{'HR,3' if 'value' in header else '2,'}\n"
    manifest = manifest_with(tmp_path, {"a": "ok.csv", "b": "", "c": "wrong.csv"}, ok_csv=good, wrong_csv=text)
    events = read_series(manifest, "x", FILES)
    outside, disorder = events.remarks
    for said, line in ((outside, 5), (disorder, 3)):
        for part in ("modality x", "wrong.csv", "row 4 (sample_id c)", f"line {line}"):
            assert part in said
    assert "1 measurements outside 0 to 48 hours" in outside
    assert "1 samples" in disorder


def test_of_a_wide_table_the_first_line_is_named_not_the_first_column(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": ""}, t_csv="sample_id,hours,HR,Temp\na,1,1,1\na,50,,2\na,51,3,\n")
    (said,) = read_series(manifest, "ehr", TABLE).remarks
    assert said.endswith("2 measurements outside 0 to 48 hours are left out, first t.csv (modality ehr), line 3")


def test_both_ends_of_the_window_belong_to_it_and_order_within_an_hour_is_no_disorder(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": ""}, t_csv="sample_id,hours,variable,value\na,0,HR,1\na,48,HR,2\na,48,Temp,3\na,48,HR,4\n")
    events = read_series(manifest, "ehr", TABLE)
    assert events.remarks == ()
    assert listed(events) == [(0, "HR", 0.0, 1.0), (0, "HR", 48.0, 2.0), (0, "HR", 48.0, 4.0), (0, "Temp", 48.0, 3.0)]


def test_everything_beyond_the_window_leaves_the_sample_missing(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, {"a": "", "b": ""}, t_csv="sample_id,hours,variable,value\na,50,HR,1\nb,5,HR,1\n")
    assert read_series(manifest, "ehr", TABLE).observed.tolist() == [False, True]

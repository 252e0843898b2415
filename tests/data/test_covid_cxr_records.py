"""The metadata of the collection of X-rays: findings, values, and every row or file that is refused."""

from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data.covid_cxr_records import NUMBERS, label_of
from cm2pyro.errors import DataError
from tests.data.covid_collection import COLUMNS, ROWS, changed, manifest_of, refused, run, write_rows


def test_static_values(collection: Path) -> None:
    out, summary = run(collection)
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    assert list(static.index) == list(manifest_of(out).index)
    assert list(static.columns) == [*NUMBERS, "sex", "view"]
    present = {(name, column): value for column in static for name, value in static[column].dropna().items() if column != "view"}
    assert present == {
        ("a.jpg", "age"): 54,
        ("b.jpg", "age"): 54,
        ("a.jpg", "sex"): "M",
        ("b.jpg", "sex"): "M",
        ("a.jpg", "offset"): -3,
        ("c.png", "temperature"): 38.5,
        ("e.jpg", "pO2_saturation"): 96,
        ("f.jpg", "leukocyte_count"): 2.85,
        ("f.jpg", "neutrophil_count"): 0,
    }
    assert static.view["c.png"] == "AP Supine"
    # 340 and 105 are pressures; so is the 40 of the hospital that reported 340; of the nameless place of 105 nothing else is known.
    assert summary.values_dropped == {
        "not_a_number": {"age": 1},
        "other_unit": {"pO2_saturation": 2},
        "impossible": {"age": 1, "temperature": 1, "pO2_saturation": 1, "sex": 1},
    }
    assert summary.first_text == "age 'old' in row 6"
    assert summary.recorded["temperature"] == {"0": 0, "1": 1}


def test_the_original_header_ends_in_a_comma(collection: Path) -> None:
    write_rows(collection, [cells | {"": ""} for cells in ROWS], [*COLUMNS, ""])
    path = collection / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run(collection)[1].images == 8


@pytest.mark.parametrize(
    ("finding", "label"),
    [
        ("COVID-19", 1),
        ("covid-19 , ARDS", 1),
        ("Pneumonia/Viral/COVID-19", 1),
        ("Pneumonia/Viral/SARS", 0),
        ("No Finding", 0),
        ("todo", None),
        ("Unknown", None),
        ("unknown, ", None),
        ("", None),
        ("Unknown, ARDS", 0),
    ],
)
def test_label_of_a_finding(finding: str, label: int | None) -> None:
    assert label_of(finding) == label


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (changed(filename="../metadata.csv"), ("row 2", "'../metadata.csv'", "plain file name")),
        (changed(filename="/etc/passwd"), ("row 2", "plain file name")),
        (changed(filename="..\\a.jpg"), ("row 2", "plain file name")),
        (changed(filename=".."), ("row 2", "plain file name")),
        (changed(filename=""), ("row 2", "plain file name")),
        (changed(filename="a\n.jpg"), ("row 2", "'a .jpg'")),
        (changed(filename="a" * 300 + ".jpg"), ("row 2", "cannot be read")),
        (changed(filename="f.jpg"), ("row 7", "'f.jpg' stands already in row 2")),
        (changed(filename="lost.jpg"), ("row 14", "'lost.jpg' stands already in row 2")),
        (changed(patientid=" "), ("row 2", "patientid is empty")),
        ([], ("none of 0 rows is a sample",)),
        (ROWS[6:13], ("none of 7 rows is a sample", "no finding yet 3", "row 7, images/gone.jpg")),
    ],
)
def test_rows_that_are_refused(collection: Path, rows: list[dict[str, str]], says: tuple[str, ...]) -> None:
    write_rows(collection, rows)
    refused(collection, DataError, "metadata.csv", *says)


@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in ("survival", "date", "folder")])
def test_a_missing_column_is_named(collection: Path, column: str) -> None:
    write_rows(collection, ROWS, [name for name in COLUMNS if name != column])
    refused(collection, DataError, "metadata.csv", f"no column '{column}'")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", ("row 1", "no column 'patientid'")),
        (",".join([*COLUMNS, "age"]).encode() + b"\n", ("column 'age' stands twice",)),
        (",".join(COLUMNS).encode() + b"\n1,2\n", ("row 2", "2 fields, expected 22")),
        (",".join(COLUMNS).encode() + b"\n" + b"1," * 30 + b"\n", ("row 2", "31 fields")),
        (",".join(COLUMNS).encode() + b'\n"open,1\n', ("is no CSV text",)),
        (",".join(COLUMNS).encode() + "\n1,café\n".encode("latin-1"), ("line 2", "not UTF-8")),
    ],
)
def test_metadata_that_cannot_be_read(collection: Path, data: bytes, says: tuple[str, ...]) -> None:
    (collection / "metadata.csv").write_bytes(data)
    refused(collection, DataError, "metadata.csv", *says)


def test_a_link_may_not_lead_out_of_the_collection(collection: Path) -> None:
    secret = collection.parent / "secret"
    secret.write_text("secret")
    (collection / "images" / "a.jpg").unlink()
    (collection / "images" / "a.jpg").symlink_to(secret)
    refused(collection, DataError, "row 2", "link that leaves")

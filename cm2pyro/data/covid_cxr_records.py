"""The COVID-19 Image Data Collection as it comes: `metadata.csv`, what a finding means, and what values are possible."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cm2pyro.data.table import parse_numbers
from cm2pyro.errors import DataError
from cm2pyro.registry import nearest, one_line

__all__ = ["NUMBERS", "RANGES", "SAME_PERSON", "clean_static", "image_path", "label_of", "read_metadata", "reason_to_drop", "static_table"]

# Lowest and highest value that a living person can show, both included. Wide on purpose: what is merely extreme stays.
RANGES: dict[str, tuple[float, float]] = {
    "age": (0, 120),  # years
    "temperature": (25, 45),  # Celsius
    "pO2_saturation": (10, 100),  # %
    "leukocyte_count": (0, 1000),  # 10^3/uL, here and below
    "neutrophil_count": (0, 1000),
    "lymphocyte_count": (0, 1000),
    "offset": (-365, 730),  # days from the first symptom or from admission, whichever the source tells, to the image
}
NUMBERS = tuple(RANGES)

# patientid -> patientid of the same person. One case was published at two places and entered twice: the images of 97 and of 178 are
# the same but for their compression, and so is the text. As two subjects they could stand in train and in test.
SAME_PERSON = {"178": "97"}

_FRONTAL = ("pa", "ap", "ap supine", "ap erect")
_NO_FINDING_YET = {"", "todo", "unknown"}
_COLUMNS = (
    "patientid",
    "sex",
    "finding",
    "view",
    "modality",
    "location",
    "filename",
    "doi",
    "url",
    "license",
    "clinical_notes",
    "other_notes",
)


def read_metadata(path: Path) -> pd.DataFrame:
    """The columns that are used, as text without spaces at the ends; the index is the row in the file, the header being row 1.

    The original file ends its header in a comma, so a column without a name is passed over, and is no reason to refuse.

    Raises:
        DataError: not readable, not UTF-8, no CSV, a column is missing or stands twice, a row that is wider or narrower than the header.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: is not there; name the folder of the collection, which holds metadata.csv and images/") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: is not UTF-8 text; save it as UTF-8, or download it again") from error
    limit = csv.field_size_limit(max(len(text), 1))  # the module's own limit is shorter than a long note
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: is no CSV text ({error}); save it as CSV, or download it again") from error
    finally:
        csv.field_size_limit(limit)
    header = [name.strip() for name in records[0]] if records else []
    for column in (*_COLUMNS, *NUMBERS):
        if column not in header:
            raise DataError(f"{path}, row 1: has no column '{column}'; {nearest(column, filter(None, header))}; download it again")
        if header.count(column) > 1:
            raise DataError(f"{path}, row 1: column '{column}' stands twice, expected once; rename one")
    rows = {row: record for row, record in enumerate(records[1:], start=2) if any(record)}
    for row, record in rows.items():
        if len(record) != len(header):
            raise DataError(f"{path}, row {row}: {len(record)} fields, expected {len(header)} as in the header; mend the row")
    cells = {name: [record[header.index(name)].strip() for record in rows.values()] for name in (*_COLUMNS, *NUMBERS)}
    return pd.DataFrame(cells, index=list(rows), dtype=object)


def label_of(finding: str) -> int | None:
    """1 for COVID-19, 0 for any other finding (also "No Finding"), None where nobody has said.

    A finding is one name, several with commas ("COVID-19, ARDS") or a path ("Pneumonia/Viral/COVID-19").
    """
    names = {name.strip().casefold() for name in re.split("[,/]", finding)}
    if names <= _NO_FINDING_YET:
        return None
    return int("covid-19" in names)


def reason_to_drop(row: pd.Series) -> str | None:
    """Why a row of the metadata is no sample; None if it is one."""
    if label_of(row["finding"]) is None:
        return "no_finding_yet"
    if row["modality"].casefold() != "x-ray":
        return "no_xray"
    return None if row["view"].casefold() in _FRONTAL else "not_frontal"


def image_path(folder: Path, filename: str, where: str) -> Path | None:
    """The image of a row in `folder/images`, or None if it is not there.

    Raises:
        DataError: the name is no plain file name, or a link leads out of `folder`.
    """
    shown = one_line(filename, 60)
    if not filename or not filename.isprintable() or filename in (".", "..") or re.search(r"[/\\]", filename):
        raise DataError(f"{where}: filename '{shown}' is no plain file name, expected one in images/; correct it")
    path = folder / "images" / filename
    try:
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{where}: image '{shown}' is a link that leaves {folder}; expected a file in images/; copy it there")
    except OSError as error:
        raise DataError(f"{where}: image '{shown}' cannot be read ({error.strerror}); correct the name or its permissions") from error
    return path


def clean_static(rows: pd.DataFrame, everywhere: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, int]], str]:
    """Numbers, sex and view of the samples; what is missing stays missing.

    Args:
        rows: the samples. everywhere: all rows of the metadata, which show what unit a hospital uses.

    Returns:
        a row for each of `rows`: `NUMBERS` as float64, `sex` (F, M) and `view` as text;
        dropped values, reason -> column -> count;
        the first value that was no number, with its row ('' if there is none).
    """
    dropped: dict[str, dict[str, int]] = {"not_a_number": {}, "other_unit": {}, "impossible": {}}
    first, columns = "", {}
    # A saturation above 100 is a partial pressure in mmHg. Its hospital reports nothing else, so the 40s and 90s of that hospital are
    # pressures too, and no range could tell.
    saturation, _ = parse_numbers(everywhere["pO2_saturation"])
    pressures = set(everywhere["location"][saturation > RANGES["pO2_saturation"][1]]) - {""}
    for name, (low, high) in RANGES.items():
        values, wrong = parse_numbers(rows[name])
        if len(wrong) and not first:
            first = f"{name} '{one_line(rows[name].iloc[wrong[0]], 30)}' in row {rows.index[wrong[0]]}"
        values = values.copy()
        values[wrong] = np.nan
        pressure = ~np.isnan(values) & (name == "pO2_saturation") & rows["location"].isin(pressures).to_numpy()
        impossible = ~pressure & ((values < low) | (values > high))
        for reason, mask in (("other_unit", pressure), ("impossible", impossible)):
            values[mask] = np.nan
            dropped[reason][name] = int(mask.sum())
        dropped["not_a_number"][name] = len(wrong)
        columns[name] = values
    sex = rows["sex"].str.upper()
    dropped["impossible"]["sex"] = int((~sex.isin(["F", "M", ""])).sum())
    static = pd.DataFrame(columns, index=rows.index)
    static["sex"] = sex.where(sex.isin(["F", "M"]))
    static["view"] = rows["view"]
    return static, {reason: {name: n for name, n in counts.items() if n} for reason, counts in dropped.items()}, first


def static_table(ids: list[str], static: pd.DataFrame) -> pa.Table:
    """`clean_static` as it is written, with the type of every column stated, so that an empty one has one too."""
    columns = {"sample_id": pa.array(ids, pa.string())} | {name: pa.array(static[name], pa.float64(), from_pandas=True) for name in NUMBERS}
    return pa.table(columns | {name: pa.array(static[name].to_numpy(), pa.string(), from_pandas=True) for name in ("sex", "view")})

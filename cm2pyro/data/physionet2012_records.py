"""Records of the PhysioNet/CinC Challenge 2012 as they come: reading, and what values are possible."""

import csv
import gzip
import io
import lzma
import tarfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cm2pyro.data.archive import members
from cm2pyro.errors import DataError
from cm2pyro.files import read_bytes
from cm2pyro.registry import one_line

__all__ = ["CLOCK", "CODE", "NAMES", "RANGES", "WHOLE", "Rows", "read_outcomes", "read_records"]

# Lowest and highest value that a living adult can show, both included. Wide on purpose: what is merely extreme stays, and nothing is
# repaired (a pH of 735 is perhaps 7.35, one of 94 is not). A 0 stays where it can be true (no breath, no urine).
RANGES: dict[str, tuple[float, float]] = {
    "Age": (1, 120),  # years
    "Gender": (0, 1),
    "Height": (100, 250),  # cm; 13 and 431 are unit errors
    "Weight": (20, 300),  # kg
    "ICUType": (1, 4),
    "HR": (10, 300),  # beats/min; lone zeros between normal rates are a disconnected sensor
    "RespRate": (0, 120),  # breaths/min; 0 is apnoea
    "Temp": (25, 45),  # Celsius; -17.8 is 0 Fahrenheit
    "SysABP": (20, 350),  # mmHg; 0 is a disconnected or closed arterial line, here and below
    "DiasABP": (5, 250),
    "MAP": (10, 300),
    "NISysABP": (20, 350),
    "NIDiasABP": (5, 250),
    "NIMAP": (10, 300),
    "GCS": (3, 15),
    "Urine": (0, 15000),  # mL; irrigation makes single entries of many litres
    "Albumin": (0.1, 10),  # g/dL
    "ALP": (1, 10000),  # IU/L
    "ALT": (1, 50000),  # IU/L
    "AST": (1, 50000),  # IU/L
    "Bilirubin": (0.01, 100),  # mg/dL
    "BUN": (0.5, 400),  # mg/dL
    "Cholesterol": (5, 2000),  # mg/dL
    "Creatinine": (0.01, 50),  # mg/dL
    "Glucose": (5, 3000),  # mg/dL
    "HCO3": (1, 80),  # mmol/L
    "HCT": (3, 80),  # %
    "K": (1, 15),  # mmol/L; above is a haemolysed sample
    "Mg": (0.1, 20),  # mmol/L as the challenge says, mg/dL as the values say
    "Na": (80, 220),  # mmol/L
    "Platelets": (1, 5000),  # cells/nL
    "TroponinI": (0, 1000),  # ug/L
    "TroponinT": (0, 1000),  # ug/L
    "WBC": (0.01, 1000),  # cells/nL
    "pH": (6.5, 8.0),
    "PaO2": (10, 800),  # mmHg
    "PaCO2": (5, 250),  # mmHg
    "FiO2": (0.2, 1.0),  # fraction; room air is 0.21
    "SaO2": (10, 100),  # %
    "Lactate": (0.05, 50),  # mmol/L
    "MechVent": (0, 1),
}
WHOLE = ("Gender", "ICUType", "GCS", "MechVent")  # codes and scores, where a fraction has no meaning
NAMES = sorted(RANGES)
CODE = {name: code for code, name in enumerate(NAMES)}
CLOCK = {f"{hour:02d}:{minute:02d}": 60 * hour + minute for hour in range(100) for minute in range(60)}
_HEADER = "Time,Parameter,Value"
_MOST_OUTCOMES = 100_000_000  # bytes
_LARGEST = 10_000_000  # bytes; a record has about 10 kB, so more is not a record and may be a bomb


@dataclass
class Rows:
    """Rows of known variables, column by column; `stay` indexes `ids`, `variable` indexes `NAMES`, `minute` counts from admission."""

    ids: list[str] = field(default_factory=list)
    stay: "array[int]" = field(default_factory=lambda: array("q"))
    minute: "array[int]" = field(default_factory=lambda: array("q"))
    variable: "array[int]" = field(default_factory=lambda: array("q"))
    value: "array[float]" = field(default_factory=lambda: array("d"))
    empty: int = 0
    unknown: int = 0


def read_records(records: Path) -> Rows:
    """Read every `<RecordID>.txt`; raises DataError as `prepare` says."""
    rows = Rows()
    seen: dict[str, str] = {}
    for place, sample, data in _record_files(records):
        if sample in seen:
            raise DataError(f"{place}: record {sample} is also {seen[sample]}; give one file a stay")
        seen[sample] = place
        _read_record(place, sample, data, rows)
    if not seen:
        raise DataError(
            f"{records}: found no record, expected files such as 132539.txt; name the set-a.tar.gz of the challenge or its folder"
        )
    return rows


def _record_files(records: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (place for messages, RecordID, content). Nothing is unpacked to disk, so an archive cannot write anywhere."""
    try:
        if records.is_dir():
            for path in sorted([*records.glob("*.txt"), *records.glob("*/*.txt")]):
                if _is_record(path.stem) and path.is_file():
                    if not path.resolve().is_relative_to(records.resolve()):
                        raise DataError(f"{path}: is a link that leaves {records}, expected a record; copy the file there")
                    _check_size(str(path), path.stat().st_size)
                    yield str(path), path.stem, path.read_bytes()
            return
        for member, content in members(records):
            name = PurePosixPath(member.name)
            if name.suffix == ".txt" and _is_record(name.stem):
                place = f"{records}: {one_line(member.name, 100)}"
                if not member.isreg():
                    raise DataError(f"{place}: is a link or a device, expected a file; pack the records themselves")
                _check_size(place, member.size)
                yield place, name.stem, content()
    except FileNotFoundError:
        raise DataError(f"{records}: does not exist; name a .tar.gz archive of records or their folder") from None
    except (tarfile.TarError, EOFError, OverflowError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{records}: is no complete tar archive; name set-a.tar.gz or its folder, or download it again") from error
    except OSError as error:
        raise DataError(f"{records}: cannot be read ({error.strerror or error}); check the file and its permissions") from error


def _is_record(stem: str) -> bool:
    return stem.isascii() and stem.isdigit()


def _check_size(place: str, size: int) -> None:
    if size > _LARGEST:
        raise DataError(f"{place}: has {size:,} bytes, expected at most {_LARGEST:,}; this is no challenge record, remove it")


def _read_record(place: str, sample: str, data: bytes, rows: Rows) -> None:
    """Append one file to `rows`; raises DataError if it is malformed or its RecordID is not `sample`."""
    try:
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is not UTF-8 text (byte {error.start}); download the record again") from error
    if lines[0].strip() != _HEADER:
        raise DataError(f"{place}, line 1: found {lines[0][:60]!r}, expected {_HEADER}; download the record again")
    before, stay, found = len(rows.value), len(rows.ids), None
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        try:
            time, name, text = line.split(",")
            minute = CLOCK[time]
            if not name.strip():  # its value is never used, so it may be anything
                rows.empty += 1
                continue
            value = float(text)
            if "_" in text or not abs(value) < 1e9:  # what float() takes and no record holds: 1_000, nan, inf
                raise ValueError(text)
        except (ValueError, KeyError):
            raise _line_error(place, number, line) from None
        code = CODE.get(name)
        if code is not None:
            rows.minute.append(minute)
            rows.variable.append(code)
            rows.value.append(value)
        elif name == "RecordID":
            found = text.strip()
            if found != sample:
                raise DataError(
                    f"{place}, line {number}: found RecordID {found[:30]!r}, expected {sample}; give the file its own name back"
                )
        else:
            rows.unknown += 1
    if found is None:
        raise DataError(f"{place}: has no RecordID row, expected 00:00,RecordID,{sample}; download the record again")
    rows.ids.append(sample)
    rows.stay.extend([stay] * (len(rows.value) - before))


def _line_error(place: str, number: int, line: str) -> DataError:
    """Say what is wrong with a line that does not parse."""
    fields = line.split(",")
    if len(fields) != 3:
        found, expected = f"{len(fields)} fields in {line[:60]!r}", f"3 ({_HEADER})"
    elif fields[0] not in CLOCK:
        found, expected = f"the time {fields[0][:30]!r}", "HH:MM such as 07:30"
    else:
        found, expected = f"the value {fields[2][:30]!r}", "a finite number"
    return DataError(f"{place}, line {number}: found {found}, expected {expected}; mend the line or download the record again")


def read_outcomes(path: Path) -> dict[str, int]:
    """RecordID -> in-hospital death, 0 or 1; raises DataError if the file cannot be read or holds anything else."""
    labels: dict[str, int] = {}
    try:
        with io.StringIO(read_bytes(path, _MOST_OUTCOMES).decode("utf-8-sig"), newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            header = list(reader.fieldnames or ())
            for column in ("RecordID", "In-hospital_death"):
                if header.count(column) != 1:
                    found = f"column {column} stands twice" if column in header else f"has no column {column}"
                    raise DataError(f"{path}, line 1: {found}; name the Outcomes-a.txt that belongs to the records")
            for row in reader:
                if None in row:
                    raise DataError(f"{path}, line {reader.line_num}: more fields than the header's {len(header)}; mend the line")
                sample, label = row["RecordID"], row["In-hospital_death"]
                if label not in ("0", "1"):
                    raise DataError(
                        f"{path}, line {reader.line_num}: found In-hospital_death {str(label)[:30]!r}, expected 0 or 1; mend the line"
                    )
                if not sample or sample in labels:
                    raise DataError(
                        f"{path}, line {reader.line_num}: RecordID {str(sample)[:30]!r} is empty or repeated; keep one line a stay"
                    )
                labels[sample] = int(label)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name the Outcomes-a.txt that belongs to the records") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV text; name the Outcomes-a.txt that belongs to the records") from error
    return labels

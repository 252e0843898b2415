"""PhysioNet/CinC Challenge 2012: records of ICU stays into a manifest and four tables.

A record is one text file a stay, `Time,Parameter,Value`, 48 hours of irregular measurements; -1 means not recorded.
"""

import csv
import json
import lzma
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import check_out_folder, fresh_folder

__all__ = ["MODALITIES", "RANGES", "PreparedSummary", "prepare"]

_VITALS = "HR RespRate Temp NISysABP NIDiasABP NIMAP SysABP DiasABP MAP GCS Urine Weight"
_LABS = "Albumin ALP ALT AST Bilirubin BUN Cholesterol Creatinine Glucose HCO3 HCT K Mg Na Platelets TroponinI TroponinT WBC"
_GASES = "pH PaO2 PaCO2 FiO2 SaO2 Lactate MechVent"
MODALITIES: dict[str, tuple[str, ...]] = {name: tuple(v.split()) for name, v in [("vitals", _VITALS), ("labs", _LABS), ("gases", _GASES)]}
STATIC = ("Age", "Gender", "Height", "Weight", "ICUType")
ICU_TYPES = {1: "coronary", 2: "cardiac_surgery", 3: "medical", 4: "surgical"}

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
_WHOLE = ("Gender", "ICUType", "GCS", "MechVent")  # codes and scores, where a fraction has no meaning
_NAMES = sorted(RANGES)
_CODE = {name: code for code, name in enumerate(_NAMES)}
_CLOCK = {f"{hour:02d}:{minute:02d}": 60 * hour + minute for hour in range(100) for minute in range(60)}
_HEADER = "Time,Parameter,Value"
_LARGEST = 10_000_000  # bytes; a record has about 10 kB, so more is not a record and may be a bomb


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` wrote; counts are stays, except in `dropped` (values, by reason) and `impossible` (values, by variable)."""

    out: Path
    stays: int
    deaths: int | None
    splits: dict[str, int]
    coverage: dict[str, int]
    dropped: dict[str, int]
    impossible: dict[str, int]

    def lines(self) -> list[str]:
        """The summary as plain lines for a person."""
        deaths = "no outcomes given" if self.deaths is None else f"{self.deaths:,} deaths"
        return [
            f"wrote {self.out}: manifest.csv, static.parquet, {', '.join(f'{m}.parquet' for m in MODALITIES)}, prepared.json",
            f"stays: {self.stays:,}, {deaths}; " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()),
            "stays with data: " + ", ".join(f"{name} {count:,} ({count / self.stays:.1%})" for name, count in self.coverage.items()),
            "dropped values: " + ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in self.dropped.items()),
        ]


@dataclass
class _Rows:
    """Rows of known variables, column by column; `stay` indexes `ids`, `variable` indexes `_NAMES`, `minute` counts from admission."""

    ids: list[str] = field(default_factory=list)
    stay: array = field(default_factory=lambda: array("q"))
    minute: array = field(default_factory=lambda: array("q"))
    variable: array = field(default_factory=lambda: array("q"))
    value: array = field(default_factory=lambda: array("d"))
    empty: int = 0
    unknown: int = 0


def prepare(
    records: str | Path, outcomes: str | Path | None, out: str | Path, splits: Mapping[str, float], seed: int, overwrite: bool
) -> PreparedSummary:
    """Write `manifest.csv`, `vitals|labs|gases.parquet`, `static.parquet` and `prepared.json` into the folder `out`.

    Args:
        records: a tar archive, compressed or not, or a folder, with a `<RecordID>.txt` a stay (in a folder at most one level down).
        outcomes: CSV with the columns `RecordID` and `In-hospital_death`; None leaves the label out.
        out: the folder to make.
        splits: split name -> fraction of the stays. The challenge gives no patient ids, so a stay is its own subject.
        seed: seeds the splits.
        overwrite: replace a folder that holds an earlier `manifest.csv`.

    Raises:
        ConfigError: the splits, the seed or `out` cannot be used.
        DataError: a file cannot be read or is malformed, or records and outcomes do not belong together.
    """
    records, out = Path(records), Path(out)
    outcomes = None if outcomes is None else Path(outcomes)
    splits = check_fractions(splits)
    check_out_folder(out, overwrite, "manifest.csv")
    for source in filter(None, (records, outcomes)):
        if source.resolve().is_relative_to(out.resolve()):  # --overwrite would delete it
            raise ConfigError(f"{out}: holds the input {source}; name another output folder")

    labels = None if outcomes is None else _read_outcomes(outcomes)
    rows = _read_records(records)
    ids = sorted(rows.ids)
    if outcomes is not None and labels is not None:
        _check_match(records, set(ids), outcomes, set(labels))
    split_of = assign_splits(ids, splits, seed)
    series, static, dropped, impossible = _clean(rows, ids)

    manifest = pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": [split_of[i] for i in ids]})
    if labels is not None:
        manifest["label"] = [labels[i] for i in ids]
    tables = {name: _long_table(series[series.variable.isin([_CODE[v] for v in names])], ids) for name, names in MODALITIES.items()}
    summary = PreparedSummary(
        out=out,
        stays=len(ids),
        deaths=None if labels is None else sum(labels.values()),
        splits={name: int((manifest.split == name).sum()) for name in splits},
        coverage={"static": int(static[list(STATIC)].notna().any(axis=1).sum())}
        | {name: len(table["sample_id"].unique()) for name, table in tables.items()},
        dropped=dropped,
        impossible=impossible,
    )
    with fresh_folder(out, overwrite, "manifest.csv") as folder:
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet")
        pq.write_table(pa.Table.from_pandas(static, preserve_index=False), folder / "static.parquet")
        content = {"source": "physionet2012", "fractions": splits, "seed": seed} | asdict(summary)
        del content["out"]  # a folder can be moved
        (folder / "prepared.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        manifest.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    return summary


def _clean(rows: _Rows, ids: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int], dict[str, int]]:
    """Drop what is missing or impossible, average repeats, separate the static values.

    Returns:
        series: `stay` (index into `ids`), `minute`, `variable` (index into `_NAMES`), `value`; sorted by these, no repeats.
        static: a row for each of `ids`, columns `sample_id` and `STATIC`.
        Counts of dropped values by reason, and of the impossible ones by variable.
    """
    rank = {sample: position for position, sample in enumerate(ids)}
    stay = np.array([rank[sample] for sample in rows.ids], dtype=np.int64)[np.asarray(rows.stay, dtype=np.int64)]
    minute, variable, value = np.asarray(rows.minute), np.asarray(rows.variable), np.asarray(rows.value)
    low, high = np.array([RANGES[name] for name in _NAMES]).T
    missing = value == -1
    odd = np.isin(variable, [_CODE[name] for name in _WHOLE]) & (value != np.rint(value))
    impossible = ~missing & ((value < low[variable]) | (value > high[variable]) | odd)
    keep = ~missing & ~impossible
    counts = np.bincount(variable[impossible], minlength=len(_NAMES))

    # Repeats of (stay, time, variable) are averaged: nothing in the record says which of them is right.
    key = ((stay * len(_CLOCK) + minute) * len(_NAMES) + variable)[keep]
    unique, inverse, repeats = np.unique(key, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, weights=value[keep], minlength=len(unique)) / repeats
    moment, variable = np.divmod(unique, len(_NAMES))
    stay, minute = np.divmod(moment, len(_CLOCK))
    merged = pd.DataFrame({"stay": stay, "minute": minute, "variable": variable, "value": mean})

    # Only the weight at 00:00 is static. Where it is missing, a later one does not stand in: a prediction made before that hour would
    # look into the future, and after a day of fluids it is another quantity. Later weights are a vitals variable.
    descriptor = merged.variable.isin([_CODE[name] for name in STATIC if name != "Weight"])
    is_static = descriptor | ((merged.variable == _CODE["Weight"]) & (merged.minute == 0))
    wide = merged[is_static].drop_duplicates(["stay", "variable"]).pivot(index="stay", columns="variable", values="value")
    wide = wide.reindex(index=range(len(ids)), columns=[_CODE[name] for name in STATIC]).set_axis(list(STATIC), axis=1)
    static = wide.astype("float64").astype({"ICUType": object})
    static["ICUType"] = wide["ICUType"].map(ICU_TYPES).astype("string")
    static.insert(0, "sample_id", ids)

    dropped = {
        "not_recorded": int(missing.sum()),
        "impossible": int(impossible.sum()),
        "duplicate": int(keep.sum()) - len(unique),
        "empty_parameter": rows.empty,
        "unknown_parameter": rows.unknown,
    }
    return merged[~is_static], static, dropped, {name: int(n) for name, n in zip(_NAMES, counts, strict=True) if n}


def _long_table(series: pd.DataFrame, ids: list[str]) -> pa.Table:
    """The rows as `sample_id, hours, variable, value`; they come sorted, because stays and variables are numbered alphabetically."""
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()).take(pa.array(series.stay.to_numpy())),
            "hours": pa.array(series.minute.to_numpy() / 60),
            "variable": pa.array(_NAMES, pa.string()).take(pa.array(series.variable.to_numpy())),
            "value": pa.array(series.value.to_numpy()),
        }
    )


def _read_records(records: Path) -> _Rows:
    """Read every `<RecordID>.txt`; raises DataError as `prepare` says."""
    rows = _Rows()
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
                    _check_size(str(path), path.stat().st_size)
                    yield str(path), path.stem, path.read_bytes()
            return
        with tarfile.open(records) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isreg() and name.suffix == ".txt" and _is_record(name.stem):
                    shown = member.name if member.name.isprintable() else name.name  # a refusal is one line
                    _check_size(place := f"{records}: {shown}", member.size)
                    stream = archive.extractfile(member)
                    yield place, name.stem, b"" if stream is None else stream.read()
    except FileNotFoundError:
        raise DataError(f"{records}: does not exist; name a .tar.gz archive of records or their folder") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{records}: is no complete tar archive; name set-a.tar.gz or its folder, or download it again") from error
    except OSError as error:
        raise DataError(f"{records}: cannot be read ({error.strerror or error}); check the file and its permissions") from error


def _is_record(stem: str) -> bool:
    return stem.isascii() and stem.isdigit()


def _check_size(place: str, size: int) -> None:
    if size > _LARGEST:
        raise DataError(f"{place}: has {size:,} bytes, expected at most {_LARGEST:,}; this is no challenge record, remove it")


def _read_record(place: str, sample: str, data: bytes, rows: _Rows) -> None:
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
            minute = _CLOCK[time]
            if not name.strip():  # its value is never used, so it may be anything
                rows.empty += 1
                continue
            value = float(text)
            if "_" in text or not abs(value) < 1e9:  # what float() takes and no record holds: 1_000, nan, inf
                raise ValueError(text)
        except (ValueError, KeyError):
            raise _line_error(place, number, line) from None
        code = _CODE.get(name)
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
    elif fields[0] not in _CLOCK:
        found, expected = f"the time {fields[0][:30]!r}", "HH:MM such as 07:30"
    else:
        found, expected = f"the value {fields[2][:30]!r}", "a finite number"
    return DataError(f"{place}, line {number}: found {found}, expected {expected}; mend the line or download the record again")


def _read_outcomes(path: Path) -> dict[str, int]:
    """RecordID -> in-hospital death, 0 or 1; raises DataError if the file cannot be read or holds anything else."""
    labels: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            for column in ("RecordID", "In-hospital_death"):
                if column not in (reader.fieldnames or ()):
                    raise DataError(f"{path}, line 1: has no column {column}; name the Outcomes-a.txt that belongs to the records")
            for row in reader:
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


def _check_match(records: Path, stays: set[str], outcomes: Path, labelled: set[str]) -> None:
    """Refuse records and outcomes that differ in their ids: in the challenge they never do, so two sets were mixed up."""
    unlabelled, absent = sorted(stays - labelled), sorted(labelled - stays)
    if unlabelled or absent:
        parts = [f"{len(unlabelled):,} of {len(stays):,} records have no outcome (such as {unlabelled[0]})"] if unlabelled else []
        parts += [f"{len(absent):,} of {len(labelled):,} outcomes have no record (such as {absent[0][:30]!r})"] if absent else []
        raise DataError(f"{outcomes}: {', '.join(parts)}; name the outcomes that belong to {records}")

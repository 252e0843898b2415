"""PhysioNet/CinC Challenge 2012: records of ICU stays into a manifest and four tables.

A record is one text file a stay, `Time,Parameter,Value`, 48 hours of irregular measurements; -1 means not recorded.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.physionet2012_records import CLOCK, CODE, NAMES, RANGES, WHOLE, Rows, read_outcomes, read_records
from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import DataError
from cm2pyro.files import check_out_folder, fresh_folder

__all__ = ["MODALITIES", "RANGES", "PreparedSummary", "prepare"]

_VITALS = "HR RespRate Temp NISysABP NIDiasABP NIMAP SysABP DiasABP MAP GCS Urine Weight"
_LABS = "Albumin ALP ALT AST Bilirubin BUN Cholesterol Creatinine Glucose HCO3 HCT K Mg Na Platelets TroponinI TroponinT WBC"
_GASES = "pH PaO2 PaCO2 FiO2 SaO2 Lactate MechVent"
MODALITIES: dict[str, tuple[str, ...]] = {name: tuple(v.split()) for name, v in [("vitals", _VITALS), ("labs", _LABS), ("gases", _GASES)]}
STATIC = ("Age", "Gender", "Height", "Weight", "ICUType")
ICU_TYPES = {1: "coronary", 2: "cardiac_surgery", 3: "medical", 4: "surgical"}


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
    check_out_folder(out, overwrite, "manifest.csv", filter(None, (records, outcomes)))
    labels = None if outcomes is None else read_outcomes(outcomes)
    rows = read_records(records)
    ids = sorted(rows.ids)
    if outcomes is not None and labels is not None:
        _check_match(records, set(ids), outcomes, set(labels))
    split_of = assign_splits(ids, splits, seed)
    series, static, dropped, impossible = _clean(rows, ids)

    manifest = pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": [split_of[i] for i in ids]})
    if labels is not None:
        manifest["label"] = [labels[i] for i in ids]
    tables = {name: _long_table(series[series.variable.isin([CODE[v] for v in names])], ids) for name, names in MODALITIES.items()}
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


def _clean(rows: Rows, ids: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int], dict[str, int]]:
    """Drop what is missing or impossible, average repeats, separate the static values.

    Returns:
        series: `stay` (index into `ids`), `minute`, `variable` (index into `NAMES`), `value`; sorted by these, no repeats.
        static: a row for each of `ids`, columns `sample_id` and `STATIC`.
        Counts of dropped values by reason, and of the impossible ones by variable.
    """
    rank = {sample: position for position, sample in enumerate(ids)}
    stay = np.array([rank[sample] for sample in rows.ids], dtype=np.int64)[np.asarray(rows.stay, dtype=np.int64)]
    minute, variable, value = np.asarray(rows.minute), np.asarray(rows.variable), np.asarray(rows.value)
    low, high = np.array([RANGES[name] for name in NAMES]).T
    missing = value == -1
    odd = np.isin(variable, [CODE[name] for name in WHOLE]) & (value != np.rint(value))
    impossible = ~missing & ((value < low[variable]) | (value > high[variable]) | odd)
    keep = ~missing & ~impossible
    counts = np.bincount(variable[impossible], minlength=len(NAMES))

    # Repeats of (stay, time, variable) are averaged: nothing in the record says which of them is right.
    key = ((stay * len(CLOCK) + minute) * len(NAMES) + variable)[keep]
    unique, inverse, repeats = np.unique(key, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, weights=value[keep], minlength=len(unique)) / repeats
    moment, variable = np.divmod(unique, len(NAMES))
    stay, minute = np.divmod(moment, len(CLOCK))
    merged = pd.DataFrame({"stay": stay, "minute": minute, "variable": variable, "value": mean})

    # Only the weight at 00:00 is static. Where it is missing, a later one does not stand in: a prediction made before that hour would
    # look into the future, and after a day of fluids it is another quantity. Later weights are a vitals variable.
    descriptor = merged.variable.isin([CODE[name] for name in STATIC if name != "Weight"])
    is_static = descriptor | ((merged.variable == CODE["Weight"]) & (merged.minute == 0))
    wide = merged[is_static].drop_duplicates(["stay", "variable"]).pivot(index="stay", columns="variable", values="value")
    wide = wide.reindex(index=range(len(ids)), columns=[CODE[name] for name in STATIC]).set_axis(list(STATIC), axis=1)
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
    return merged[~is_static], static, dropped, {name: int(n) for name, n in zip(NAMES, counts, strict=True) if n}


def _long_table(series: pd.DataFrame, ids: list[str]) -> pa.Table:
    """The rows as `sample_id, hours, variable, value`; they come sorted, because stays and variables are numbered alphabetically."""
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()).take(pa.array(series.stay.to_numpy())),
            "hours": pa.array(series.minute.to_numpy() / 60),
            "variable": pa.array(NAMES, pa.string()).take(pa.array(series.variable.to_numpy())),
            "value": pa.array(series.value.to_numpy()),
        }
    )


def _check_match(records: Path, stays: set[str], outcomes: Path, labelled: set[str]) -> None:
    """Refuse records and outcomes that differ in their ids: in the challenge they never do, so two sets were mixed up."""
    unlabelled, absent = sorted(stays - labelled), sorted(labelled - stays)
    if unlabelled or absent:
        parts = [f"{len(unlabelled):,} of {len(stays):,} records have no outcome (such as {unlabelled[0]})"] if unlabelled else []
        parts += [f"{len(absent):,} of {len(labelled):,} outcomes have no record (such as {absent[0][:30]!r})"] if absent else []
        raise DataError(f"{outcomes}: {', '.join(parts)}; name the outcomes that belong to {records}")

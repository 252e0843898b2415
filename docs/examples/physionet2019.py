"""PhysioNet/CinC Challenge 2019: hourly records of ICU stays, and whether the patient turns septic after the window.

A record is one text file a stay, `p000001.psv`: a row an hour, columns divided by `|`, NaN where nothing was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import DataError
from cm2pyro.files import check_out_folder, fresh_folder

__all__ = ["Prepared", "prepare"]

STATIC = ["Age", "Gender", "HospAdmTime"]
OTHER = ["ICULOS", "SepsisLabel", "Unit1", "Unit2"]  # the hour in the unit, the label, and the unit, recorded in some stays alone


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote, and how many stays it left out."""

    out: Path
    stays: int
    septic: int
    short: int
    early: int

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"wrote {self.out}: manifest.csv, series.parquet, static.parquet",
            f"stays: {self.stays:,}, of which {self.septic:,} turn septic after the window",
            f"left out: {self.short:,} shorter than the window, {self.early:,} septic inside it",
        ]


def prepare(*, records: Path, out: Path, splits: Mapping[str, float], seed: int, overwrite: bool, hours: int = 12) -> Prepared:
    """Write `manifest.csv`, `series.parquet` and `static.parquet` into the folder `out`.

    A sample is a stay of more than `hours` hours in which nobody is septic before their end; its label says whether the patient
    is later. Nothing of what came after the window is written.

    Raises:
        ConfigError: the splits or `out` cannot be used. DataError: a record cannot be read; no stay is left.
    """
    splits = check_fractions(splits)
    check_out_folder(out, overwrite, "manifest.csv", [records])
    paths = sorted(records.glob("*.psv"))
    if not paths:
        raise DataError(f"{records}: holds no .psv file; name the folder of the challenge's records")

    labels: dict[str, int] = {}
    series, static, short, early = [], [], 0, 0
    for path in paths:
        stay = _read(path)
        window = stay[stay["ICULOS"] <= hours]
        if stay["ICULOS"].max() <= hours:
            short += 1
        elif window["SepsisLabel"].any():
            early += 1
        else:
            labels[path.stem] = int(stay["SepsisLabel"].any())
            static.append(window[STATIC].iloc[:1].assign(sample_id=path.stem))
            long = window.drop(columns=[*STATIC, "SepsisLabel"]).rename(columns={"ICULOS": "hours"})
            series.append(long.melt("hours").dropna().assign(sample_id=path.stem))
    if not labels:
        left_out = f"{short} too short, {early} septic early"
        raise DataError(f"{records}: none of the {len(paths)} stays is left ({left_out}); expected some; name other records")

    split_of = assign_splits(labels, splits, seed)  # the challenge names no patients, so a stay is its own subject
    rows = [{"sample_id": stay, "subject_id": stay, "split": split_of[stay], "label": label} for stay, label in labels.items()]
    with fresh_folder(out, overwrite, "manifest.csv") as folder:  # appears whole, or not at all
        pd.concat(series).to_parquet(folder / "series.parquet", index=False)
        pd.concat(static).to_parquet(folder / "static.parquet", index=False)
        pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return Prepared(out, len(labels), sum(labels.values()), short, early)


def _read(path: Path) -> pd.DataFrame:
    try:
        stay = pd.read_csv(path, sep="|", dtype="float64")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); expected numbers or NaN, divided by |") from error
    for column in [*STATIC, *OTHER]:
        if column not in stay:
            raise DataError(f"{path}: column '{column}' is missing; expected a record of the challenge; restore the file")
    return stay.drop(columns=["Unit1", "Unit2"])

"""Which stays are samples: the cohort of mimic3-benchmarks for both databases, every exclusion counted in its order."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cm2pyro.data.mimic.tables import Table, timestamps
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

__all__ = ["ADMISSIONS", "OLDEST", "Cohort", "Step", "age_from_birth", "assemble", "exclude", "named", "read_keyed"]

OLDEST = 90.0  # both databases hide ages above 89: MIMIC-III shows about 300, MIMIC-IV 91; all become this one number
ADULT = 18.0
_YEAR = 365.2425 * 24 * 3600  # seconds


def named(columns: str) -> dict[str, str]:
    """Columns that keep their names, separated by spaces, as `read_keyed` takes them."""
    return {name: name for name in columns.split()}


ADMISSIONS = named("subject_id hadm_id admittime dischtime deathtime admission_type admission_location hospital_expire_flag")


@dataclass(frozen=True)
class Step:
    """One exclusion. `reason`; `removed`: stays; `stays`, `admissions`, `patients`: those left."""

    reason: str
    removed: int
    stays: int
    admissions: int
    patients: int

    def line(self) -> str:
        """The exclusion in one line for a person."""
        left = f"{self.stays:,} stays of {self.admissions:,} admissions, {self.patients:,} patients"
        return f"{self.reason}: {left}" if self.reason == "in the tables" else f"{self.reason}: -{self.removed:,}, left {left}"


@dataclass
class Cohort:
    """Stays and how they were chosen.

    Attributes:
        stays: one row a stay, index its row in the file: sample_id, subject_id, hadm_id (text), intime, outtime, admittime, dischtime,
            deathtime, dod (datetime64[s], NaT where missing), age (years), gender and what `assemble` was given besides.
        steps: the exclusions in order. notes: lines for a person.
    """

    stays: pd.DataFrame
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keep(self, wanted: Any, reason: str) -> None:
        """Exclude the stays where `wanted` is false."""
        before = len(self.stays)
        self.stays = self.stays[np.asarray(wanted, dtype=bool)]
        self.steps.append(_step(self.stays, reason, before - len(self.stays)))


def _step(stays: pd.DataFrame, reason: str, removed: int) -> Step:
    admissions = int((stays.hadm_id[stays.hadm_id != ""]).nunique())
    return Step(reason, removed, len(stays), admissions, int(stays.subject_id.nunique()))


def read_keyed(table: Table, columns: dict[str, str], key: str, times: tuple[str, ...] = (), gaps: tuple[str, ...] = ()) -> pd.DataFrame:
    """A small table with one row a `key`.

    Args:
        columns: column of the file, in lower case -> name here. key: of the names here; may not be empty or repeated.
        times: names that hold times. gaps: those of them that may be empty.

    Raises:
        DataError: the table cannot be read, a key is empty or repeated, a time is none.
    """
    frame = table.frame(list(columns)).rename(columns=columns)
    original = {name: column for column, name in columns.items()}
    lines = frame.index.to_numpy()
    for wrong, what in ((frame[key] == "", "is empty"), (frame[key].duplicated(), "stands twice")):
        for i in np.flatnonzero(wrong.to_numpy(dtype=bool))[:1]:
            where = table.where(lines[i], original[key])
            raise DataError(f"{where}: '{one_line(frame[key].iloc[i], 40)}' {what}; expected every id once; download the table again")
    for name in times:

        def place(i: int, name: str = name) -> str:
            return table.where(lines[i], original[name])

        frame[name] = timestamps(frame[name].to_numpy(), place, empty=name in gaps)
    return frame


def assemble(stays: pd.DataFrame, admissions: pd.DataFrame, patients: pd.DataFrame, where: Table) -> Cohort:
    """Join the three tables; stays that have no admission of the same patient, or no patient, are excluded and the first is named.

    Args:
        stays: index the row in the file `where`; sample_id, subject_id, hadm_id, intime, outtime, and more.
        admissions: hadm_id, subject_id, admittime, dischtime, deathtime, and more. patients: subject_id, gender, dod, and more.
    """
    cohort = Cohort(stays)
    cohort.steps.append(_step(stays, "in the tables", 0))
    admitted = pd.MultiIndex.from_frame(admissions[["subject_id", "hadm_id"]])
    of_admission = pd.MultiIndex.from_frame(stays[["subject_id", "hadm_id"]]).isin(admitted)
    for known, what, column, lacks in (
        (of_admission, "an admission", "hadm_id", "which no admission of its patient has"),
        (stays.subject_id.isin(patients.subject_id).to_numpy(), "a patient", "subject_id", "which no patient has"),
    ):
        for i in np.flatnonzero(~known)[:1]:
            row = stays.iloc[i]
            cohort.notes.append(
                f"{where.where(stays.index[i], column)}: stay {one_line(row.sample_id, 40)} names '{one_line(row[column], 40)}', {lacks}; "
                f"excluded, like {int((~known).sum()) - 1:,} more"
            )
        cohort.keep(cohort.stays.index.isin(stays.index[known]), f"without {what}")
    joined = cohort.stays.merge(admissions.drop(columns="subject_id"), on="hadm_id", how="left", validate="many_to_one")
    joined = joined.merge(patients, on="subject_id", how="left", validate="many_to_one")
    cohort.stays = joined.set_index(cohort.stays.index)
    return cohort


def exclude(cohort: Cohort, hours: float, units: tuple[tuple[str, str], ...]) -> None:
    """Apply the rules of mimic3-benchmarks in its order, all but the one that needs the events.

    Args:
        hours: a stay must be at least that long. units: pairs of columns that differ when a stay was transferred.
    """
    same = np.ones(len(cohort.stays), dtype=bool)
    for first, last in units:
        same &= (cohort.stays[first] == cohort.stays[last]).to_numpy(dtype=bool)
    cohort.keep(same, "transferred between units or wards")
    # Counted after the transfers, as in mimic3-benchmarks: of an admission with two stays, one of them transferred, the other is kept.
    cohort.keep(~cohort.stays.hadm_id.duplicated(keep=False), "several stays in one admission")
    cohort.keep(cohort.stays.age >= ADULT, f"younger than {ADULT:.0f} or of unknown age")
    cohort.keep(cohort.stays.outtime.notna(), "without an end")
    length = (cohort.stays.outtime - cohort.stays.intime).dt.total_seconds() / 3600
    cohort.keep(length >= hours, f"shorter than {hours:g} h")


def age_from_birth(birth: pd.Series, at: pd.Series) -> pd.Series:
    """Years between two times in seconds resolution, at most `OLDEST`; NaN where one is missing."""
    years = (at.to_numpy("datetime64[s]") - birth.to_numpy("datetime64[s]")) / np.timedelta64(1, "s") / _YEAR
    return pd.Series(np.where(years > 89, OLDEST, years), at.index)

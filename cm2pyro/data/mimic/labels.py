"""Labels of a stay from the admissions.

In-hospital death is that of mimic3-benchmarks: the patient's date of death or the admission's time of death lies between admission and
discharge, ends included. It differs from HOSPITAL_EXPIRE_FLAG for a few stays; they are counted.

Readmission within 30 days: the patient died in this admission, or another admission of the same patient to the hospital, planned or not,
begins between this discharge and 30 days later, ends included. A return to intensive care within the same admission does not occur: the
cohort has one stay an admission. Death at home within the 30 days is not a readmission. The admissions of all patients count, also those
that have no stay in the cohort.
"""

import numpy as np
import pandas as pd

__all__ = ["READMISSION_DAYS", "mortality", "readmission"]

READMISSION_DAYS = 30


def mortality(stays: pd.DataFrame) -> pd.Series:
    """Whether the patient died in the admission. stays: admittime, dischtime, deathtime, dod (datetimes, NaT where missing)."""
    dead = pd.Series(False, stays.index)
    for column in ("dod", "deathtime"):
        dead |= (stays[column] >= stays.admittime) & (stays[column] <= stays.dischtime)
    return dead


def readmission(stays: pd.DataFrame, admissions: pd.DataFrame, died: pd.Series) -> pd.Series:
    """Whether the stay counts as followed by a readmission, see the module.

    Args:
        stays: subject_id, hadm_id, dischtime. admissions: subject_id, hadm_id, admittime; every admission there is.
        died: of every stay, whether the patient died in the admission.
    """
    left = stays[["subject_id", "hadm_id", "dischtime"]].assign(place=np.arange(len(stays)))
    pairs = left.merge(admissions[["subject_id", "hadm_id", "admittime"]], on="subject_id", suffixes=("", "_next"))
    later = pairs[pairs.hadm_id != pairs.hadm_id_next]
    gap = later.admittime - later.dischtime
    soon = later.place[(gap >= pd.Timedelta(0)) & (gap <= pd.Timedelta(days=READMISSION_DAYS))]
    again = np.zeros(len(stays), dtype=bool)
    again[soon.to_numpy()] = True
    return died | again

"""Death and readmission at the edges of their rules."""

import pandas as pd
import pytest

from cm2pyro.data.mimic.labels import mortality, readmission


def stay(**times: str | None) -> pd.DataFrame:
    given: dict[str, str | None] = {
        "admittime": "2150-01-01 08:00:00",
        "dischtime": "2150-01-10 12:00:00",
        "deathtime": None,
        "dod": None,
    }
    cells = {name: [pd.Timestamp(text) if text else pd.NaT] for name, text in (given | times).items()}
    return pd.DataFrame({"subject_id": ["1"], "hadm_id": ["11"]} | cells)


@pytest.mark.parametrize(
    ("column", "time", "dead"),
    [
        ("deathtime", "2150-01-01 08:00:00", True),
        ("deathtime", "2150-01-10 12:00:00", True),
        ("deathtime", "2150-01-10 12:00:01", False),
        ("deathtime", "2150-01-01 07:59:59", False),
        ("dod", "2150-01-10 00:00:00", True),  # the day of the discharge: a date has no time, and the benchmark counts it
        ("dod", "2150-01-01 00:00:00", False),  # the day of the admission: the time of death has to tell
        ("dod", "2150-01-11 00:00:00", False),
        ("dod", None, False),
    ],
)
def test_death_in_the_admission(column: str, time: str | None, dead: bool) -> None:
    assert mortality(stay(**{column: time})).tolist() == [dead]


@pytest.mark.parametrize(
    ("subject", "admission", "time", "again"),
    [
        ("1", "12", "2150-01-10 12:00:00", True),  # the minute of the discharge
        ("1", "12", "2150-02-09 12:00:00", True),  # 30 days
        ("1", "12", "2150-02-09 12:00:01", False),
        ("1", "12", "2150-01-10 11:59:59", False),  # began before the discharge
        ("1", "12", "2149-12-20 12:00:00", False),
        ("2", "12", "2150-01-20 12:00:00", False),  # another patient
        ("1", "11", "2150-01-10 12:00:00", False),  # the admission itself, of no length
    ],
)
def test_readmission(subject: str, admission: str, time: str, again: bool) -> None:
    admissions = pd.DataFrame({"subject_id": [subject], "hadm_id": [admission], "admittime": [pd.Timestamp(time)]})
    assert readmission(stay(), admissions, pd.Series([False])).tolist() == [again]
    assert readmission(stay(), admissions, pd.Series([True])).tolist() == [True], "death in the admission counts"

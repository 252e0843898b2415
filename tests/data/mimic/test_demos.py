"""The open demos: counts, labels and values recomputed from the whole tables by another route, with the rules written down anew."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cm2pyro.data.mimic import mimic3, mimic4
from cm2pyro.data.mimic.summary import Summary

pytestmark = [pytest.mark.real, pytest.mark.slow]
SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}
# A few variables whose rule is short: items in order of preference, range, unit.
SIMPLE = {
    "heart_rate": ([220045, 211], 10, 300),
    "mean_blood_pressure": ([220052, 52, 225312, 6702, 224322, 224, 220181, 456, 3312, 443, 3314, 3320, 3316, 3322], 10, 300),
    "respiratory_rate": ([220210, 618, 3603, 224690, 615, 224689, 614, 224422, 651], 0, 120),
}


class Demo:
    """A prepared demo, and its raw tables, read whole by pandas, columns in lower case."""

    def __init__(self, name: str, out: Path) -> None:
        self.folder = Path(os.environ["CM2_DATA"]) / f"{name}_demo"
        self.stay = "icustay_id" if name == "mimic3" else "stay_id"
        module: Any = {"mimic3": mimic3, "mimic4": mimic4}[name]
        self.summary: Summary = module.prepare(records=self.folder, out=out, splits=SPLITS, seed=0, overwrite=False)
        self.out = out
        self.manifest = pd.read_csv(out / "manifest.csv").set_index("sample_id")
        self.vitals = pd.read_parquet(out / "vitals.parquet").astype({"sample_id": "int64"})

    def table(self, name: str) -> pd.DataFrame:
        path = next(path for path in self.folder.rglob("*.csv.gz") if path.name.lower() == f"{name}.csv.gz")
        frame = pd.read_csv(path, low_memory=False)
        frame.columns = frame.columns.str.lower()
        for column in ("intime", "outtime", "admittime", "dischtime", "deathtime", "charttime", "dod"):
            if column in frame:
                frame[column] = pd.to_datetime(frame[column])
        return frame


@pytest.fixture(scope="module", params=["mimic3", "mimic4"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    if "CM2_DATA" not in os.environ:
        pytest.skip("CM2_DATA is not set")
    return Demo(request.param, tmp_path_factory.mktemp(request.param) / "out")


def test_the_cohort_agrees_with_another_route(demo: Demo) -> None:
    stays, admissions, patients = demo.table("icustays"), demo.table("admissions"), demo.table("patients")
    frame = stays.merge(admissions, on=["subject_id", "hadm_id"], suffixes=("", "_adm")).merge(patients, on="subject_id")
    sizes = [len(stays), len(frame)]
    frame = frame[frame.first_careunit == frame.last_careunit]
    if "first_wardid" in frame:
        frame = frame[frame.first_wardid == frame.last_wardid]
    sizes.append(len(frame))
    per_admission = frame.groupby("hadm_id")[demo.stay].size()
    frame = frame[frame.hadm_id.map(per_admission) == 1]
    sizes.append(len(frame))
    if "dob" in frame:
        birthday = frame.dob.str[:10]
        age = frame.intime.dt.year - birthday.str[:4].astype(int) - (frame.intime.dt.strftime("%m-%d") < birthday.str[5:])
    else:
        age = frame.anchor_age + frame.intime.dt.year - frame.anchor_year
    frame = frame[age >= 18]
    sizes.append(len(frame))
    frame = frame[frame.los * 24 >= 48]  # the tables' own length, rounded there
    sizes.append(len(frame))
    steps = {step.reason: step for step in demo.summary.steps}
    found = [steps[name].stays for name in ("in the tables", "without a patient", "transferred between units or wards")]
    found += [steps[name].stays for name in ("several stays in one admission", "younger than 18 or of unknown age", "shorter than 48 h")]
    assert found == sizes
    assert set(demo.manifest.index) == set(frame[demo.stay]), "in the demos every such stay has an event"
    assert steps["shorter than 48 h"].patients == frame.subject_id.nunique()
    assert steps["shorter than 48 h"].admissions == frame.hadm_id.nunique()
    written = pd.read_parquet(demo.out / "static.parquet").astype({"sample_id": "int64"}).set_index("sample_id").age
    years = age[frame.index].clip(upper=90).set_axis(frame[demo.stay])
    # Whole years are the floor of the age, and what is hidden becomes 90.
    assert (np.floor(written.reindex(years.index)) - years).abs().max() <= 1
    assert written.max() <= 90


def test_the_known_counts(demo: Demo) -> None:
    known = {"icustay_id": (136, 57, 47, 17, 23), "stay_id": (140, 54, 47, 9, 19)}[demo.stay]
    labels = demo.summary.labels
    first, last = demo.summary.steps[0], demo.summary.steps[-1]
    assert (first.stays, last.stays, last.patients, labels["label_mortality"], labels["label_readmission"]) == known
    assert "\n".join(demo.summary.lines()).count("left") == len(demo.summary.steps) - 1


def test_labels_agree_with_another_route(demo: Demo) -> None:
    stays, admissions = demo.table("icustays").set_index(demo.stay), demo.table("admissions").set_index("hadm_id")
    row: Any
    sample: Any
    for sample, row in demo.manifest.iterrows():
        admission = admissions.loc[stays.at[sample, "hadm_id"]]
        # In the demos the hospital's own flag agrees with the dates for every stay of the cohort.
        died = bool(admission.hospital_expire_flag)
        assert row.label_mortality == died
        mine = admissions[(admissions.subject_id == admission.subject_id) & (admissions.admittime > admission.admittime)]
        days = (mine.admittime - admission.dischtime).dt.total_seconds() / 86400
        assert row.label_readmission == (died or bool(((days >= 0) & (days <= 30)).any()))


def test_values_agree_with_another_route(demo: Demo) -> None:
    stays = demo.table("icustays").set_index(demo.stay).loc[demo.manifest.index]
    charts = demo.table("chartevents")
    for variable, (items, low, high) in SIMPLE.items():
        rows = charts[charts.itemid.isin(items) & charts.valuenum.between(low, high)]
        if "error" in rows:
            rows = rows[rows.error != 1]
        # No row of the demos lacks its stay within a window of the cohort, see below.
        rows = rows[rows[demo.stay].isin(stays.index)]
        hours = (rows.charttime - rows[demo.stay].map(stays.intime)).dt.total_seconds() / 3600
        rows = rows.assign(hours=hours, rank=rows.itemid.map(items.index))[hours.between(0, 48)]
        rows = rows[rows["rank"] == rows.groupby([demo.stay, "hours"])["rank"].transform("min")]
        wanted = rows.groupby([demo.stay, "hours"]).valuenum.mean()
        found = demo.vitals[demo.vitals.variable == variable].set_index(["sample_id", "hours"]).value.sort_index()
        assert len(found) == len(wanted) > 1000
        np.testing.assert_allclose(found.index.get_level_values(0), wanted.index.get_level_values(0))
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        assert demo.summary.counts.kept[variable] == len(wanted)
    assert demo.summary.counts.assigned["chartevents"] == 0


def test_glucose_of_the_laboratory_agrees_with_another_route(demo: Demo) -> None:
    """Laboratory rows name no stay: they are given to it by patient and time, admission or not."""
    stays = demo.table("icustays").set_index(demo.stay).loc[demo.manifest.index].reset_index()
    rows = demo.table("labevents")
    rows = rows[(rows.itemid == 50931) & rows.valuenum.between(5, 3000)].merge(stays, on="subject_id", suffixes=("", "_stay"))
    hours = (rows.charttime - rows.intime).dt.total_seconds() / 3600
    rows = rows.assign(hours=hours)[hours.between(0, 48) & (rows.charttime <= rows.outtime)]
    rows = rows[rows.hadm_id.isna() | (rows.hadm_id == rows.hadm_id_stay)]
    wanted = rows.groupby([demo.stay, "hours"]).valuenum.mean()
    found = demo.vitals[demo.vitals.variable == "glucose"].set_index(["sample_id", "hours"]).value
    assert len(wanted) > 150
    # The first preference of all, so nothing beside it counts.
    np.testing.assert_allclose(found.reindex(wanted.index), wanted, rtol=1e-9)


def test_what_is_dropped_agrees_with_another_route(demo: Demo) -> None:
    counts = demo.summary.counts
    assert sum(counts.read.values()) == sum(counts.dropped.values()) + sum(counts.kept.values())
    assert sum(counts.kept.values()) == len(demo.vitals)
    from cm2pyro.data.mimic.variables import ITEMS

    stays = demo.table("icustays").set_index(demo.stay).loc[demo.manifest.index]
    charts, labs = demo.table("chartevents"), demo.table("labevents")
    charts, labs = (rows[rows.subject_id.isin(stays.subject_id) & rows.itemid.isin(list(ITEMS))] for rows in (charts, labs))
    assert counts.read == {"chartevents": len(charts), "labevents": len(labs)}
    errors = int((charts.error == 1).sum()) if "error" in charts else 0
    assert counts.dropped["error_flag"] == errors
    # "None" is an answer of the coma scale, which pandas takes for a gap; it has a number beside it.
    charts = charts[charts.error != 1] if "error" in charts else charts
    assert counts.dropped["no_value"] == sum(int((rows.value.isna() & rows.valuenum.isna()).sum()) for rows in (charts, labs))


def test_tables_are_sorted_and_plausible(demo: Demo) -> None:
    from cm2pyro.data.mimic.variables import CATEGORIES, RANGES

    vitals = demo.vitals
    assert not vitals.isna().any().any()
    assert vitals.equals(vitals.sort_values(["sample_id", "hours", "variable"], ignore_index=True))
    assert not vitals.duplicated(["sample_id", "hours", "variable"]).any()
    assert vitals.hours.between(0, 48).all()
    for name, values in vitals.groupby("variable").value:
        variable = str(name)
        low, high = RANGES.get(variable) or (0, len(CATEGORIES[variable]) - 1)
        assert values.between(low, high).all()
    content = json.loads((demo.out / "prepared.json").read_text())
    assert content["stays"] == len(demo.manifest)
    assert demo.manifest.groupby("subject_id").split.nunique().eq(1).all()

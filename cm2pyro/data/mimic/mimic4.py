"""MIMIC-IV: the official tables into a manifest, series, labels and, where they are named, radiographs and radiology reports.

Read are patients, admissions, labevents and diagnoses_icd of `hosp`, icustays and chartevents of `icu`; the files may also lie
together, or in `core` as in v1.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from cm2pyro.data.mimic.build import Request, Tables, build
from cm2pyro.data.mimic.cohort import ADMISSIONS, OLDEST, assemble, exclude, named, read_keyed
from cm2pyro.data.mimic.events import EVENT_COLUMNS, EventTable
from cm2pyro.data.mimic.linked import Link, radiographs, radiology_reports
from cm2pyro.data.mimic.summary import Summary
from cm2pyro.data.mimic.tables import Table, find_table, numbers
from cm2pyro.data.mimic.variables import ITEMS, LABS

__all__ = ["prepare"]

# Column of the file, in lower case -> name here.
_STAYS = named("subject_id hadm_id intime outtime first_careunit last_careunit") | {"stay_id": "sample_id"}
_PATIENTS = named("subject_id gender anchor_age anchor_year dod")


def prepare(
    records: str | Path,
    out: str | Path,
    splits: Mapping[str, float],
    seed: int,
    overwrite: bool,
    hours: float = 48.0,
    pairs: str = "partial",
    cxr: str | Path | None = None,
    notes: str | Path | None = None,
) -> Summary:
    """Write `manifest.csv`, `vitals.parquet`, `static.parquet`, `prepared.json` and what is linked into `out`.

    Args:
        records: the folder with `hosp` and `icu`, tables `.csv` or `.csv.gz`, headers in either case.
        splits: split name -> fraction of the patients. seed: seeds the splits. overwrite: replace a folder that holds a `manifest.csv`.
        hours: the window from the start of the stay, and the length that a stay must have.
        pairs: `partial` keeps every stay, `matched` those that have a radiograph and a note too, where these are asked for.
        cxr: the folder of MIMIC-CXR-JPG; adds the column `image`. notes: the folder of MIMIC-IV-Note; adds `notes.parquet`.

    Raises:
        ConfigError: the splits, the seed, an option or `out` cannot be used.
        DataError: a table is missing, cut off or malformed, or no stay is left.
    """
    request = Request("mimic4", Path(records), Path(out), splits, seed, overwrite, hours, pairs)
    cxr, notes = (None if path is None else Path(path) for path in (cxr, notes))
    request.check(cxr, notes)
    folder = request.records

    def table(name: str, columns: Mapping[str, str] | tuple[str, ...]) -> Table:
        return find_table(folder, name, list(columns), within=("hosp", "icu", "core"))

    of_patients, of_admissions, of_stays = table("patients", _PATIENTS), table("admissions", ADMISSIONS), table("icustays", _STAYS)
    charts = table("chartevents", (*EVENT_COLUMNS, "stay_id", "hadm_id"))
    labs = table("labevents", (*EVENT_COLUMNS, "hadm_id"))
    of_diagnoses = table("diagnoses_icd", ("hadm_id", "icd_code", "icd_version"))

    patients = read_keyed(of_patients, _PATIENTS, "subject_id", ("dod",), gaps=("dod",))
    for name in ("anchor_age", "anchor_year"):
        patients[name] = numbers(patients[name].to_numpy(), partial(_place, of_patients, patients.index, name))
    admissions = read_keyed(of_admissions, ADMISSIONS, "hadm_id", ("admittime", "dischtime", "deathtime"), gaps=("deathtime",))
    stays = read_keyed(of_stays, _STAYS, "sample_id", ("intime", "outtime"), gaps=("outtime",))
    cohort = assemble(stays, admissions, patients, of_stays)
    # The anchor gives the age in one (shifted) year; the birthday is not known.
    age = cohort.stays.anchor_age + cohort.stays.intime.dt.year - cohort.stays.anchor_year
    cohort.stays["age"] = age.where(~((age > 89) | (cohort.stays.anchor_age > 89)), OLDEST)
    exclude(cohort, hours, (("first_careunit", "last_careunit"),))
    chart_items = tuple(item for item in ITEMS if item >= 220_000)
    events = [
        EventTable(charts, "chartevents", chart_items, stay="stay_id", hadm="hadm_id"),
        EventTable(labs, "labevents", tuple(LABS), hadm="hadm_id"),
    ]
    links: list[Link] = []
    if cxr is not None:
        links.append(partial(radiographs, cxr, hours))
    if notes is not None:
        links.append(partial(radiology_reports, notes, hours))
    read = [of_patients, of_admissions, of_stays, charts, labs, of_diagnoses]
    return build(
        request,
        Tables(
            cohort,
            admissions,
            of_diagnoses.frame(["hadm_id", "icd_code", "icd_version"], of=("hadm_id", cohort.stays.hadm_id)),
            events,
            links,
            [found.path.name for found in read],
        ),
    )


def _place(table: Table, lines: pd.Index, column: str, i: int) -> str:
    return table.where(lines[i], column)

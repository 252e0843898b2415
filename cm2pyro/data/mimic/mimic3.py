"""MIMIC-III (v1.4): the official tables into a manifest, series, labels and, where NOTEEVENTS is there, notes.

Read are PATIENTS, ADMISSIONS, ICUSTAYS, CHARTEVENTS, LABEVENTS and DIAGNOSES_ICD; none of the 17 variables is in OUTPUTEVENTS.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cm2pyro.data.mimic.benchmarks_folder import FolderSummary, is_benchmarks_folder, prepare_folder
from cm2pyro.data.mimic.build import Request, Tables, build
from cm2pyro.data.mimic.cohort import ADMISSIONS, age_from_birth, assemble, exclude, named, read_keyed
from cm2pyro.data.mimic.events import EVENT_COLUMNS, EventTable
from cm2pyro.data.mimic.linked import Link, ward_notes
from cm2pyro.data.mimic.summary import Summary
from cm2pyro.data.mimic.tables import Table, find_table, look_for_table
from cm2pyro.data.mimic.variables import ITEMS, LABS
from cm2pyro.errors import ConfigError

__all__ = ["prepare"]

# Column of the file, in lower case -> name here.
_STAYS = named("subject_id hadm_id intime outtime first_careunit last_careunit first_wardid last_wardid") | {"icustay_id": "sample_id"}
_PATIENTS = named("subject_id gender dob dod")


def prepare(
    records: str | Path,
    out: str | Path,
    splits: Mapping[str, float],
    seed: int,
    overwrite: bool,
    hours: float = 48.0,
    pairs: str = "partial",
) -> Summary | FolderSummary:
    """Write `manifest.csv`, `vitals.parquet`, `static.parquet`, `prepared.json` and, if there is NOTEEVENTS, `notes.parquet` into `out`.

    Args:
        records: the folder with the tables, `.csv` or `.csv.gz`, headers in either case; or a task folder that mimic3-benchmarks has
            prepared, see `prepare_folder`, which then does all.
        splits: split name -> fraction of the patients. seed: seeds the splits. overwrite: replace a folder that holds a `manifest.csv`.
        hours: the window from the start of the stay, and the length that a stay must have.
        pairs: `partial` keeps every stay, `matched` those that have a note too, where there are notes.

    Raises:
        ConfigError: the splits, the seed, an option or `out` cannot be used.
        DataError: a table is missing, cut off or malformed, or no stay is left.
    """
    request = Request("mimic3", Path(records), Path(out), splits, seed, overwrite, hours, pairs)
    request.check()
    if is_benchmarks_folder(request.records):
        if hours != 48 or pairs != "partial":
            raise ConfigError(f"{records}: is a task folder of mimic3-benchmarks, which has its window; leave --hours and --pairs out")
        return prepare_folder(request.records, request.out, splits, seed, overwrite)
    folder = request.records

    def table(name: str, columns: Mapping[str, str] | tuple[str, ...]) -> Table:
        return find_table(folder, name, list(columns))

    of_patients, of_admissions, of_stays = table("patients", _PATIENTS), table("admissions", ADMISSIONS), table("icustays", _STAYS)
    charts = table("chartevents", (*EVENT_COLUMNS, "icustay_id", "hadm_id", "error"))
    labs = table("labevents", (*EVENT_COLUMNS, "hadm_id"))
    of_diagnoses = table("diagnoses_icd", ("hadm_id", "icd9_code"))
    of_notes = look_for_table(folder, "noteevents", None)

    patients = read_keyed(of_patients, _PATIENTS, "subject_id", ("dob", "dod"), gaps=("dob", "dod"))
    admissions = read_keyed(of_admissions, ADMISSIONS, "hadm_id", ("admittime", "dischtime", "deathtime"), gaps=("deathtime",))
    stays = read_keyed(of_stays, _STAYS, "sample_id", ("intime", "outtime"), gaps=("outtime",))
    cohort = assemble(stays, admissions, patients, of_stays)
    cohort.stays["age"] = age_from_birth(cohort.stays.dob, cohort.stays.intime)
    exclude(cohort, hours, (("first_careunit", "last_careunit"), ("first_wardid", "last_wardid")))
    diagnoses = of_diagnoses.frame(["hadm_id", "icd9_code"], of=("hadm_id", cohort.stays.hadm_id))
    diagnoses = diagnoses.rename(columns={"icd9_code": "icd_code"}).assign(icd_version="9")
    chart_items = tuple(item for item in ITEMS if item not in LABS)
    events = [
        EventTable(charts, "chartevents", chart_items, stay="icustay_id", hadm="hadm_id", error="error"),
        EventTable(labs, "labevents", tuple(LABS), hadm="hadm_id"),
    ]
    links: list[Link] = []
    if of_notes is not None:
        links.append(partial(ward_notes, of_notes.path, hours))
    read = [of_patients, of_admissions, of_stays, charts, labs, of_diagnoses, *filter(None, [of_notes])]
    return build(
        request,
        Tables(cohort, admissions, diagnoses, events, links, [found.path.name for found in read]),
    )

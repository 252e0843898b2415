"""From a cohort and its tables to the output folder; what both databases share."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.mimic.cohort import OLDEST, Cohort
from cm2pyro.data.mimic.events import EARLY, EventTable, stream
from cm2pyro.data.mimic.labels import READMISSION_DAYS, mortality, readmission
from cm2pyro.data.mimic.linked import Link, phenotype_labels
from cm2pyro.data.mimic.phenotypes import unknown_codes
from cm2pyro.data.mimic.spool import Spool, Stays
from cm2pyro.data.mimic.summary import Summary
from cm2pyro.data.mimic.values import Counts
from cm2pyro.data.mimic.variables import CATEGORIES, RANGES, VARIABLES
from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import check_out_folder, fresh_folder

__all__ = ["STATIC", "Request", "Tables", "build"]

STATIC = ("age", "gender", "admission_type", "admission_location", "first_careunit")
RULES = {
    "cohort": "mimic3-benchmarks: adults, one stay an admission, no transfer, at least `hours` long, an event in the window",
    "age": f"years at the start of the stay; above 89, which both databases hide, {OLDEST:g}",
    "mortality": "date or time of death between admission and discharge, ends included",
    "readmission": f"death in the admission, or another admission of the patient 0 to {READMISSION_DAYS} days after discharge",
    "phenotypes": "diagnoses of the admission, coded after discharge",
    "window": "0 to `hours` after the start of the stay, ends included",
    "before the stay": f"height and weight up to {EARLY // 3600} h before it, in a row that names the stay, count at hour 0",
    "rows without a stay": "given to the patient's stay that goes on at that time, if the admission is the same or not named",
    "repeats": "of several values at the same second the preferred item's count; numbers are averaged, of categories the smallest code",
    "categories": "integer codes: places in the lists under `categories`, by the text, else by the number",
    "gcs_total": "only as charted (CareVue); MetaVision and MIMIC-IV chart the parts alone",
}


@dataclass(frozen=True)
class Request:
    """What the command line says, the same for both databases. Checked by `check`."""

    source: str
    records: Path
    out: Path
    splits: Mapping[str, float]
    seed: int
    overwrite: bool
    hours: float
    pairs: str

    def check(self, *inputs: Path | None) -> None:
        """Raises ConfigError before anything is read: splits, hours, pairs, or an output folder that would delete an input."""
        check_fractions(self.splits)
        if self.seed < 0:
            raise ConfigError(f"seed: found {self.seed}, expected a whole number of at least 0")
        if not (math.isfinite(self.hours) and 0 < self.hours <= 24 * 365):
            raise ConfigError(f"--hours: found {self.hours:g}, expected the length of the window, above 0; write for example --hours 48")
        if self.pairs not in ("matched", "partial"):
            raise ConfigError(f"--pairs: found '{self.pairs}', expected matched or partial")
        check_out_folder(self.out, self.overwrite, "manifest.csv", filter(None, (self.records, *inputs)))


@dataclass(frozen=True)
class Tables:
    """What a database gives.

    Attributes:
        cohort: after `exclude`; its stays have the columns of `STATIC` too. admissions: all of them: subject_id, hadm_id,
            admittime, hospital_expire_flag ('1' or '0', the database's own word on death in the admission).
        diagnoses: of the admissions of the cohort: hadm_id, icd_code, icd_version.
        events: the tables with measurements. links: other modalities. sources: the files that were read.
    """

    cohort: Cohort
    admissions: pd.DataFrame
    diagnoses: pd.DataFrame
    events: list[EventTable]
    links: list[Link] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def build(request: Request, tables: Tables) -> Summary:
    """Stream the events, link the modalities, and write the folder; it appears whole or not at all.

    Raises:
        DataError: a table is malformed, or no stay is left.
    """
    cohort, hours, counts = tables.cohort, request.hours, Counts()
    cohort.stays = cohort.stays.sort_values("sample_id")
    _check_left(request, cohort)
    with fresh_folder(request.out, request.overwrite, "manifest.csv") as folder:
        events = folder / "events"
        events.mkdir()
        index = Stays(cohort.stays, hours)
        spool = Spool(events, len(index.ids))
        for table in tables.events:
            stream(table, index, spool, counts)
        cohort.keep(spool.values > 0, f"without an event within {hours:g} h")
        _check_left(request, cohort)

        linked = [link(cohort.stays[["sample_id", "subject_id", "hadm_id", "intime", "outtime"]]) for link in tables.links]
        if request.pairs == "matched":
            for modality in linked:
                cohort.keep(cohort.stays.sample_id.isin(modality.frame.sample_id), f"without {modality.name} (--pairs matched)")
            _check_left(request, cohort)
        stays = cohort.stays
        coverage = spool.write(folder / "vitals.parquet", index.ids, set(stays.sample_id), counts)
        events.rmdir()

        manifest, disagree = _manifest(request, tables)
        for modality in linked:
            column = modality.write(modality.frame[modality.frame.sample_id.isin(stays.sample_id)], folder)
            if column is not None:
                manifest[modality.name] = manifest.sample_id.map(column).fillna("")
        _write_static(stays, folder / "static.parquet")
        summary = Summary(
            out=request.out,
            source=request.source,
            hours=hours,
            pairs=request.pairs,
            splits={name: int((manifest.split == name).sum()) for name in request.splits},
            patients=int(stays.subject_id.nunique()),
            steps=cohort.steps,
            notes=cohort.notes,
            labels={str(c): int(manifest[c].sum()) for c in manifest if str(c).startswith("label_")},
            flags_differ=disagree,
            unknown_codes=unknown_codes(tables.diagnoses[tables.diagnoses.hadm_id.isin(stays.hadm_id)]),
            counts=counts,
            coverage=coverage,
            modalities={modality.name: modality.report(stays.sample_id) for modality in linked},
            files=[modality.file for modality in linked],
        )
        content = {"fractions": dict(request.splits), "seed": request.seed, "tables": tables.sources} | summary.content()
        content |= {"rules": RULES, "variables": list(VARIABLES), "ranges": RANGES, "categories": CATEGORIES}
        (folder / "prepared.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        manifest.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    return summary


def _write_static(stays: pd.DataFrame, path: Path) -> None:
    columns = {"sample_id": pa.array(stays.sample_id, pa.string()), "age": pa.array(stays.age.to_numpy(np.float64))}
    columns |= {name: pa.array(stays[name].replace({"": None}), pa.string()) for name in STATIC if name != "age"}
    pq.write_table(pa.table(columns), path)


def _check_left(request: Request, cohort: Cohort) -> None:
    if cohort.stays.empty:
        steps = ", ".join(f"{step.removed:,} {step.reason}" for step in cohort.steps if step.removed)
        raise DataError(
            f"{request.records}: no stay is left of {cohort.steps[0].stays:,} (excluded: {steps or 'none'}); "
            "expected at least one; check the tables and the options"
        )


def _manifest(request: Request, tables: Tables) -> tuple[pd.DataFrame, int]:
    """The manifest, and for how many stays the database's own flag of death says otherwise."""
    stays = tables.cohort.stays
    split_of = assign_splits(stays.subject_id, request.splits, request.seed)
    died = mortality(stays)
    again = readmission(stays, tables.admissions, died)
    columns: dict[str, Any] = {
        "sample_id": stays.sample_id,
        "subject_id": stays.subject_id,
        "split": stays.subject_id.map(split_of),
        "label_mortality": died.astype(np.int64),
        "label_readmission": again.astype(np.int64),
    }
    columns |= phenotype_labels(tables.diagnoses, stays)
    flags = stays.hadm_id.map(tables.admissions.set_index("hadm_id").hospital_expire_flag)
    return pd.DataFrame(columns), int(((flags == "1") != died).sum())

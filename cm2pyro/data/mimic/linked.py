"""Modalities beside the series: each finds which stays have it, and writes what belongs to the stays that are left in the end."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Link", "Linked", "phenotype_labels", "radiographs", "radiology_reports", "ward_notes"]


@dataclass(frozen=True)
class Linked:
    """A modality of the stays.

    Attributes:
        name: of the modality, and of its column in the manifest. file: what `write` makes in the folder. counts: for the summary.
        frame: `sample_id` and what else it takes to write the modality.
        write: from the rows of `frame` that are left and the folder to sample_id -> cell of the manifest, or to None where the modality
            lives in a table of its own.
    """

    name: str
    file: str
    counts: dict[str, int]
    frame: pd.DataFrame
    write: Callable[[pd.DataFrame, Path], dict[str, str] | None]

    def report(self, samples: Iterable[str]) -> dict[str, int]:
        """Counts, first the stays of the manifest that have it."""
        return {"stays": len(set(self.frame.sample_id).intersection(samples))} | self.counts


# From the stays, sample_id, subject_id, hadm_id, intime and outtime, to a modality of theirs.
Link = Callable[[pd.DataFrame], Linked]


def ward_notes(path: Path, hours: float, stays: pd.DataFrame) -> Linked:
    """Notes of MIMIC-III from the file NOTEEVENTS."""
    from cm2pyro.data.mimic.notes import mimic3_notes

    frame, counts = mimic3_notes(stays, path, hours)
    return Linked("note", "notes.parquet", counts, frame, _write_notes)


def radiology_reports(folder: Path, hours: float, stays: pd.DataFrame) -> Linked:
    """Radiology reports of MIMIC-IV-Note."""
    from cm2pyro.data.mimic.notes import mimic4_notes

    frame, counts = mimic4_notes(stays, folder, hours)
    return Linked("note", "notes.parquet", counts, frame, _write_notes)


def _write_notes(frame: pd.DataFrame, folder: Path) -> None:
    columns = {
        "sample_id": pa.array(frame.sample_id.tolist(), pa.string()),
        "hours": pa.array(frame.hours.to_numpy(np.float64)),
        "text": pa.array(frame.text.tolist(), pa.string()),
        "category": pa.array(frame.category.tolist(), pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "notes.parquet")


def radiographs(folder: Path, hours: float, stays: pd.DataFrame) -> Linked:
    """The last frontal radiograph of each stay from MIMIC-CXR-JPG; written as grey pictures."""
    from cm2pyro.data.mimic.cxr import export, link

    frame, counts = link(stays, folder, hours)
    return Linked("image", "images", counts, frame, export)


def phenotype_labels(diagnoses: pd.DataFrame, stays: pd.DataFrame) -> dict[str, Any]:
    """label_<phenotype> -> 0 or 1 of every stay; diagnoses: hadm_id, icd_code, icd_version. An admission without diagnoses has none."""
    from cm2pyro.data.mimic.phenotypes import phenotypes

    found = phenotypes(diagnoses)
    table = found.reindex(stays.hadm_id, fill_value=False)
    return {f"label_{name}": np.asarray(table[name], dtype=np.int64) for name in found.columns}

"""Modalities beside the series: each says which stays have it, and writes its own files."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Linked", "mimic3_notes", "mimic4_notes", "phenotype_labels", "radiographs"]


@dataclass(frozen=True)
class Linked:
    """A modality of the stays.

    Attributes:
        name: of the modality, and of its column in the manifest. samples: ids that have it. counts: for the summary.
        file: what was written into the folder. column: sample_id -> cell of the manifest, or None where a table holds the modality.
    """

    name: str
    samples: set[str]
    file: str
    counts: dict[str, int] = field(default_factory=dict)
    column: dict[str, str] | None = None

    def report(self, samples: Iterable[str]) -> dict[str, int]:
        """Counts, first the stays of the manifest that have it."""
        return {"stays": len(self.samples.intersection(samples))} | self.counts


def mimic3_notes(path: Path, hours: float, stays: pd.DataFrame, folder: Path) -> Linked:
    """Notes of NOTEEVENTS, the file `path`, into `folder`/notes.parquet. stays: sample_id, subject_id, hadm_id, intime, outtime."""
    from cm2pyro.data.mimic import notes

    return _notes(*notes.mimic3_notes(stays, path, hours), folder)


def mimic4_notes(source: Path, hours: float, stays: pd.DataFrame, folder: Path) -> Linked:
    """Radiology reports of MIMIC-IV-Note, in the folder `source`, into `folder`/notes.parquet."""
    from cm2pyro.data.mimic import notes

    return _notes(*notes.mimic4_notes(stays, source, hours), folder)


def _notes(frame: pd.DataFrame, counts: dict[str, int], folder: Path) -> Linked:
    columns = {
        "sample_id": pa.array(frame.sample_id.tolist(), pa.string()),
        "hours": pa.array(frame.hours.to_numpy(np.float64)),
        "text": pa.array(frame.text.tolist(), pa.string()),
        "category": pa.array(frame.category.tolist(), pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "notes.parquet")
    return Linked("note", set(frame.sample_id), "notes.parquet", counts)


def radiographs(source: Path, hours: float, stays: pd.DataFrame, folder: Path) -> Linked:
    """The last frontal radiograph of each stay from MIMIC-CXR-JPG, in the folder `source`, as grey pictures in `folder`/images."""
    from cm2pyro.data.mimic import cxr

    found, counts = cxr.link(stays, source, hours)
    column = cxr.export(found, folder)
    return Linked("image", set(column), "images", counts, dict(column))


def phenotype_labels(diagnoses: pd.DataFrame, stays: pd.DataFrame) -> dict[str, Any]:
    """label_<phenotype> -> 0 or 1 of every stay; diagnoses: hadm_id, icd_code, icd_version. An admission without diagnoses has none."""
    from cm2pyro.data.mimic.phenotypes import phenotypes

    found = phenotypes(diagnoses[diagnoses.hadm_id.isin(stays.hadm_id)])
    table = found.reindex(stays.hadm_id, fill_value=False)
    return {f"label_{name}": np.asarray(table[name], dtype=np.int64) for name in found.columns}

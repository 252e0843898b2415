"""COVID-19 Image Data Collection: chest X-rays, clinical notes and bedside values into a manifest, images and a table.

The task is COVID-19 (1) against other findings (0). It is small, comes from case reports, and both what was written and what was
measured differ between the two groups: a demonstration, no evidence that any of it tells one disease from another.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cm2pyro.data.covid_cxr_blanking import NAMES, TOKEN
from cm2pyro.data.covid_cxr_blanking import blank as blank_names
from cm2pyro.data.covid_cxr_records import (
    NUMBERS,
    RANGES,
    SAME_PERSON,
    clean_static,
    image_path,
    label_of,
    read_metadata,
    reason_to_drop,
    static_table,
)
from cm2pyro.data.formulas import inert
from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import DataError
from cm2pyro.files import check_out_folder, fresh_folder
from cm2pyro.registry import one_line

__all__ = ["PreparedSummary", "prepare"]

_CREDIT = "COVID-19 Image Data Collection (Cohen et al., 2020; metadata CC BY-NC-SA 4.0)"


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` wrote. Counts are images, of both labels as {"0": …, "1": …} where a label is told, except where stated.

    Attributes:
        rows: of metadata.csv. dropped: of these, by reason. first_missing: the first whose image is not there, '' if there is none.
        patients: persons. mixed_patients: those with both labels. splits: images by split and label.
        coverage: images with an image, a note, any static value. recorded: with a value, by static column.
        values_dropped: values, reason -> column. first_text: the first value that was no number, '' if there is none.
        blanked: notes in which a name was blanked; None if notes were left as they are. licences: by licence, '' where none is stated.
    """

    out: Path
    rows: int
    dropped: dict[str, int]
    first_missing: str
    images: int
    patients: int
    mixed_patients: int
    labels: dict[str, int]
    splits: dict[str, dict[str, int]]
    coverage: dict[str, dict[str, int]]
    recorded: dict[str, dict[str, int]]
    values_dropped: dict[str, dict[str, int]]
    first_text: str
    blanked: dict[str, int] | None
    licences: dict[str, int]

    def lines(self) -> list[str]:
        """The summary as plain lines for a person."""
        dropped = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in self.dropped.items())
        values = [
            f"{column} {count:,} ({reason.replace('_', ' ')})" for reason, n in self.values_dropped.items() for column, count in n.items()
        ]
        lines = [
            f"wrote {self.out}: manifest.csv, images/, static.parquet, licences.csv, prepared.json",
            f"rows: {self.rows:,}; dropped: {dropped}" + (f" (first: {self.first_missing})" if self.first_missing else ""),
            f"images: {self.images:,} of {self.patients:,} patients ({self.mixed_patients} with both labels); "
            f"COVID-19 {self.labels['1']:,}, other findings {self.labels['0']:,}",
            "splits (COVID-19 / other): " + ", ".join(f"{name} {n['1']:,} / {n['0']:,}" for name, n in self.splits.items()),
            "with data (COVID-19 / other): " + ", ".join(f"{name} {n['1']:,} / {n['0']:,}" for name, n in self.coverage.items()),
            "dropped values: "
            + (", ".join(values) or "none")
            + (f"; first that is no number: {self.first_text}" if self.first_text else ""),
            "notes: names of diseases and tests are left in, and tell the label"
            if self.blanked is None
            else f"notes with a name blanked (COVID-19 / other): {self.blanked['1']:,} / {self.blanked['0']:,}",
            "licences: " + ", ".join(f"{licence or 'none stated'} {count:,}" for licence, count in self.licences.items()),
            "images are copied as they are; one that is broken is refused when it is read",
        ]
        lone = [column for column, n in self.recorded.items() if (n["0"] == 0) != (n["1"] == 0)]
        if lone:
            lines.append(f"recorded for one label alone, so that its mere presence tells it: {', '.join(lone)}")
        lines += [
            f"split {name} has one label alone; choose other --splits or another --seed"
            for name, n in self.splits.items()
            if 0 in n.values()
        ]
        return lines


def prepare(
    *, records: str | Path, out: str | Path, splits: Mapping[str, float], seed: int, overwrite: bool, blank: bool = True
) -> PreparedSummary:
    """Write `manifest.csv`, `images/`, `static.parquet`, `licences.csv` and `prepared.json` into the folder `out`.

    A sample is a frontal X-ray that has a finding and whose image is there; its id is the name of the image file. The note is the
    column clinical_notes; other_notes hold credits, which go to licences.csv.

    Args:
        records: the folder of the collection: `metadata.csv` and `images/`.
        out: the folder to make.
        splits: split name -> fraction of the patients; all images of a patient go to one split.
        seed: seeds the splits.
        overwrite: replace a folder that holds an earlier `manifest.csv`.
        blank: replace names of diseases and tests in the notes; see `covid_cxr_blanking`.

    Raises:
        ConfigError: the splits, the seed or `out` cannot be used.
        DataError: a file cannot be read or is malformed, a file name stands twice or is no plain one, no row is a sample.
    """
    records, out = Path(records), Path(out)
    splits = check_fractions(splits)
    check_out_folder(out, overwrite, "manifest.csv", (records, records / "images"))
    if not records.is_dir():
        raise DataError(f"{records}: is no folder; name the folder of the collection, which holds metadata.csv and images/")

    metadata = read_metadata(records / "metadata.csv")
    samples, paths, dropped, first_missing = _samples(records, metadata)
    manifest, blanked = _manifest(samples, splits, seed, blank)
    static, values_dropped, first_text = clean_static(samples, metadata)
    label = manifest["label"]
    by_subject = label.groupby(manifest["subject_id"]).nunique()
    filled = static.notna().reset_index(drop=True)
    summary = PreparedSummary(
        out=out,
        rows=len(metadata),
        dropped=dropped,
        first_missing=first_missing,
        images=len(manifest),
        patients=len(by_subject),
        mixed_patients=int((by_subject > 1).sum()),
        labels=_by_label(label),
        splits={name: _by_label(label[manifest["split"] == name]) for name in splits},
        coverage={
            "image": _by_label(label),
            "note": _by_label(label[manifest["note"] != ""]),
            "static": _by_label(label[filled.any(axis=1)]),
        },
        recorded={name: _by_label(label[filled[name]]) for name in (*NUMBERS, "sex", "view")},
        values_dropped=values_dropped,
        first_text=first_text,
        blanked=_by_label(label[blanked]) if blank else None,
        licences=dict(sorted(Counter(samples["license"].tolist()).items())),
    )
    with fresh_folder(out, overwrite, "manifest.csv") as folder:
        _copy(paths, folder / "images")
        pq.write_table(static_table(manifest["sample_id"].tolist(), static), folder / "static.parquet")
        _licences(samples).map(inert).to_csv(folder / "licences.csv", index=False, lineterminator="\n")
        rules = {"token": TOKEN, "names": NAMES} if blank else None
        content = {"source": "covid-cxr", "fractions": splits, "seed": seed} | asdict(summary)
        content |= {"ranges": {name: RANGES[name] for name in NUMBERS}, "same_person": SAME_PERSON, "blanking": rules}
        del content["out"]  # a folder can be moved
        (folder / "prepared.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        manifest.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    return summary


def _samples(folder: Path, metadata: pd.DataFrame) -> tuple[pd.DataFrame, list[Path], dict[str, int], str]:
    """Rows that are samples, sorted by file name; their images; dropped rows by reason; the first row whose image is not there."""
    file = folder / "metadata.csv"
    dropped = dict.fromkeys(("no_finding_yet", "no_xray", "not_frontal", "no_image_file"), 0)
    seen: dict[str, int] = {}
    found: dict[int, Path] = {}
    first = ""
    for row, (_, cells) in zip(metadata.index.tolist(), metadata.iterrows(), strict=True):
        reason = reason_to_drop(cells)
        if reason is None:
            name, where = cells["filename"], f"{file}, row {row}"
            path = image_path(folder, name, where)
            if name in seen:
                raise DataError(f"{where}: filename '{one_line(name, 60)}' stands already in row {seen[name]}; keep one row an image")
            if not cells["patientid"]:
                raise DataError(f"{where}: patientid is empty, and the splits are by patient; fill it")
            seen[name] = row
            if path is not None:
                found[row] = path
                continue
            reason = "no_image_file"
            first = first or f"row {row}, images/{one_line(name, 60)}"
        dropped[reason] += 1
    if not found:
        counts = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in dropped.items())
        at = f"; the first image that is not there: {first}" if first else ""
        raise DataError(
            f"{file}: none of {len(metadata):,} rows is a sample ({counts}{at}); name the folder that holds metadata.csv and images/"
        )
    samples = metadata.loc[list(found)].sort_values("filename")
    return samples, [found[row] for row in samples.index], dropped, first


def _manifest(samples: pd.DataFrame, splits: Mapping[str, float], seed: int, blank: bool) -> tuple[pd.DataFrame, list[bool]]:
    """The rows of manifest.csv, and in which of their notes a name was blanked."""
    ids = samples["filename"].tolist()
    subjects = [SAME_PERSON.get(patient, patient) for patient in samples["patientid"]]
    split_of = assign_splits(subjects, splits, seed)
    notes = [blank_names(note) if blank else (note, 0) for note in samples["clinical_notes"]]
    columns = {
        "sample_id": ids,
        "subject_id": subjects,
        "split": [split_of[subject] for subject in subjects],
        "label": [str(label_of(finding)) for finding in samples["finding"]],
        "image": [f"images/{name}" for name in ids],
        "note": [inert(note) for note, _ in notes],
    }
    return pd.DataFrame(columns), [count > 0 for _, count in notes]


def _by_label(labels: pd.Series) -> dict[str, int]:
    return {value: int((labels == value).sum()) for value in ("0", "1")}


def _copy(paths: list[Path], folder: Path) -> None:
    folder.mkdir()
    for path in paths:
        try:
            shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise DataError(f"{path}: cannot be copied ({error.strerror}); check its permissions and the space on the disk") from error


def _licences(samples: pd.DataFrame) -> pd.DataFrame:
    """What has to stand beside an image wherever it is shown; `credit` is as the collection words it."""
    names = samples["filename"]
    columns = {"sample_id": names, "file": "images/" + names, "licence": samples["license"], "doi": samples["doi"], "url": samples["url"]}
    return pd.DataFrame(columns | {"credit": samples["other_notes"], "source": _CREDIT})

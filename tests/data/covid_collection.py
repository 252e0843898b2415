"""A small collection of X-rays with each oddity of the real one."""

import csv
from pathlib import Path

import pandas as pd

from cm2pyro.data.covid_cxr import PreparedSummary, prepare
from cm2pyro.errors import CM2Error
from tests import refusals

_BEFORE = (
    "patientid offset sex age finding survival temperature pO2_saturation leukocyte_count neutrophil_count lymphocyte_count view modality"
)
COLUMNS = [*_BEFORE.split(), "date", "location", "folder", "filename", "doi", "url", "license", "clinical_notes", "other_notes"]
USUAL = {"modality": "X-ray", "view": "PA", "folder": "images", "license": "CC BY 4.0"}


def row(patient: str, filename: str, finding: str, **cells: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | USUAL | {"patientid": patient, "filename": filename, "finding": finding} | cells


ROWS = [
    row(
        "1",
        "a.jpg",
        "COVID-19",
        age="54",
        sex="M",
        offset="-3",
        location="Here",
        clinical_notes=" COVID-19 positive. Fever. ",
        doi="10.1/x",
    ),
    row("1", "b.jpg", "No Finding", age="54", sex="m", clinical_notes="Normal.", other_notes="Credit to A, B"),
    row("2", "c.png", "COVID-19, ARDS", view="AP Supine", location="Press", pO2_saturation="340", temperature="38.5"),
    row("2", "d.jpg", "Pneumonia/Viral/COVID-19", view="AP Erect", location="Press", pO2_saturation="40", temperature="385"),
    row("3", "e.jpg", "Pneumonia/Bacterial/E.Coli", location="Here", pO2_saturation="96", age="old", sex="X", license=""),
    row("3", "f.jpg", "Pneumocystis", pO2_saturation="105", leukocyte_count="2.85", neutrophil_count="0.0", age="130"),
    row("4", "g.jpg", "todo", clinical_notes="COVID-19"),
    row("4", "h.jpg", "Unknown"),
    row("5", "i.jpg", ""),
    row("5", "j.jpg", "COVID-19", modality="CT", view="Axial"),
    row("5", "k.jpg", "COVID-19", view="L"),
    row("6", "gone.jpg", "Legionella"),
    row("6", "lost.jpg", "Legionella"),
    row("97", "m.jpg", "COVID-19", clinical_notes='Two lines,\nand "quotes".'),
    row("178", "n.jpg", "COVID-19", clinical_notes="Influenza tests were negative"),
]
ABSENT = ("gone.jpg", "lost.jpg")
SPLITS = {"train": 0.5, "test": 0.5}


def write_rows(folder: Path, rows: list[dict[str, str]], columns: list[str] = COLUMNS) -> None:
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def run(collection: Path, **changes: object) -> tuple[Path, PreparedSummary]:
    arguments: dict = {"records": collection, "out": collection.parent / "out", "splits": SPLITS, "seed": 0, "overwrite": False} | changes
    return arguments["out"], prepare(**arguments)


def refused(collection: Path, kind: type[CM2Error], *says: str, **changes: object) -> None:
    with refusals.refused(kind, *says):
        run(collection, **changes)
    refusals.nothing_left(collection.parent / "out")


def manifest_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id")


def changed(**cells: str) -> list[dict[str, str]]:
    return [ROWS[0] | cells, *ROWS[1:]]

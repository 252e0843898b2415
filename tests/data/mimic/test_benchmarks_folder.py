"""Task folders of mimic3-benchmarks become a manifest and a table: values, codes, splits, and every refusal."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.mimic import benchmarks_folder
from cm2pyro.data.mimic.benchmarks_folder import FolderSummary, is_benchmarks_folder, prepare_folder
from cm2pyro.data.mimic.phenotypes import PHENOTYPES, TITLES
from cm2pyro.errors import CM2Error, ConfigError, DataError
from tests import refusals

HEADER = (
    "Hours,Capillary refill rate,Diastolic blood pressure,Fraction inspired oxygen,Glascow coma scale eye opening,"
    "Glascow coma scale motor response,Glascow coma scale total,Glascow coma scale verbal response,Glucose,Heart Rate,Height,"
    "Mean blood pressure,Oxygen saturation,Respiratory rate,Systolic blood pressure,Temperature,Weight,pH"
)
NAMES = (
    *("hours", "capillary_refill_rate", "diastolic_blood_pressure", "fraction_inspired_oxygen", "gcs_eye"),
    *("gcs_motor", "gcs_total", "gcs_verbal", "glucose", "heart_rate", "height"),
    *("mean_blood_pressure", "oxygen_saturation", "respiratory_rate", "systolic_blood_pressure", "temperature", "weight", "ph"),
)
SPLITS = {"train": 0.75, "val": 0.25}


def episode(*rows: dict[str, object]) -> str:
    """An episode's CSV; a row is named by our variables."""
    assert all(set(row) <= set(NAMES) for row in rows)
    return "\n".join([HEADER, *(",".join(str(row.get(name, "")) for name in NAMES) for row in rows), ""])


PLAIN = episode({"hours": 1.5, "heart_rate": 80})


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "task" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "task"


def mortality(train: dict[str, int], test: dict[str, int], body: str = PLAIN) -> dict[str, str]:
    """Files of an in-hospital-mortality folder: sample -> label."""
    files = {}
    for part, labels in (("train", train), ("test", test)):
        files[f"{part}/listfile.csv"] = "stay,y_true\n" + "".join(f"{s}_timeseries.csv,{y}\n" for s, y in labels.items())
        files |= {f"{part}/{sample}_timeseries.csv": body for sample in labels}
    return files


SMALL = mortality({"10_episode1": 1, "10_episode2": 0, "11_episode1": 0, "12_episode1": 0, "13_episode1": 1}, {"20_episode1": 1})


def run(root: Path, files: dict[str, str], **changes: object) -> tuple[pd.DataFrame, pd.DataFrame, FolderSummary]:
    arguments: dict = {"out": root / "out", "splits": SPLITS, "seed": 0, "overwrite": False} | changes
    summary = prepare_folder(write(root, files), **arguments)
    return read_manifest(root / "out" / "manifest.csv").frame, pd.read_parquet(root / "out" / "vitals.parquet"), summary


def refused(root: Path, files: dict[str, str], kind: type[CM2Error], *says: str, **changes: object) -> None:
    with refusals.refused(kind, *says):
        run(root, files, **changes)
    refusals.nothing_left(root / "out")


def test_the_manifest_keeps_the_folders_own_test_split(tmp_path: Path) -> None:
    manifest, vitals, summary = run(tmp_path, SMALL)
    assert list(manifest.columns) == ["sample_id", "subject_id", "split", "label_mortality"]
    assert manifest.sample_id.tolist() == ["10_episode1", "10_episode2", "11_episode1", "12_episode1", "13_episode1", "20_episode1"]
    assert manifest.subject_id.tolist() == ["10", "10", "11", "12", "13", "20"]
    assert manifest.label_mortality.tolist() == ["1", "0", "0", "0", "1", "1"]
    splits = dict(zip(manifest.sample_id, manifest.split, strict=True))
    assert splits["20_episode1"] == "test"
    assert manifest[manifest.split != "test"].groupby("split").subject_id.nunique().to_dict() == {"train": 3, "val": 1}
    assert list(vitals.itertuples(index=False, name=None)) == [(s, 1.5, "heart_rate", 80.0) for s in manifest.sample_id]
    assert (summary.episodes, summary.patients, summary.labels, summary.empty) == (6, 5, {"label_mortality": 3}, 0)
    assert "in-hospital mortality: 6 episodes, 5 patients" in "\n".join(summary.lines())
    content = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert content["coverage"]["heart_rate"] == 6
    assert str(tmp_path) not in json.dumps(content)


def test_the_share_of_test_plays_no_part(tmp_path: Path) -> None:
    manifest, _, _ = run(tmp_path, SMALL, splits={"train": 0.6, "val": 0.2, "test": 0.2})
    assert Counter(manifest.drop_duplicates("subject_id").split) == {"train": 3, "val": 1, "test": 1}
    manifest, _, _ = run(tmp_path, SMALL, splits={"train": 1.0}, overwrite=True)
    assert set(manifest.split) == {"train", "test"}
    for out in (tmp_path / "out").iterdir():
        out.unlink()
    (tmp_path / "out").rmdir()
    refused(tmp_path, SMALL, ConfigError, "found test alone", splits={"test": 1.0})


def test_a_val_listfile_decides_where_there_is_one(tmp_path: Path) -> None:
    files = SMALL | {"val_listfile.csv": "stay,y_true\n10_episode1_timeseries.csv,1\n10_episode2_timeseries.csv,0\n"}
    manifest, _, summary = run(tmp_path, files, splits={"train": 1.0})
    assert manifest.split.tolist() == ["val", "val", "train", "train", "train", "test"]
    assert "val by val_listfile.csv" in "\n".join(summary.lines())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stay,y_true\n10_episode1_timeseries.csv,1\n", ("subject 10", "inside and outside")),
        ("stay,y_true\n20_episode1_timeseries.csv,1\n", ("val_listfile.csv, row 2", "20_episode1")),
        ("stay\n", ("val_listfile.csv, row 1",)),
    ],
)
def test_a_wrong_val_listfile_is_refused(tmp_path: Path, text: str, says: tuple[str, ...]) -> None:
    refused(tmp_path, SMALL | {"val_listfile.csv": text}, DataError, *says)


def test_every_variable_has_its_name_and_every_category_its_code(tmp_path: Path) -> None:
    values = [0.0, 60, 0.4, "4 Spontaneously", "Obeys Commands", 15, "1.0 ET/Trach", 128.5, 86, 170, 77, 98, 19, 118, 36.6, 81, 7.4]
    body = episode(dict(zip(NAMES, [0.25, *values], strict=True)))
    _, vitals, summary = run(tmp_path, mortality({"1_episode1": 0, "2_episode1": 0}, {}, body), splits={"train": 1.0})
    found = vitals[vitals.sample_id == "1_episode1"]
    assert found.variable.tolist() == sorted(NAMES[1:])
    # Places in the lists of the benchmark's discretizer, counted by hand.
    codes = {"capillary_refill_rate": 0, "gcs_eye": 3, "gcs_motor": 7, "gcs_total": 4, "gcs_verbal": 8}
    expected = {name: codes.get(name, value) for name, value in zip(NAMES[1:], values, strict=True)}
    assert dict(zip(found.variable, found.value, strict=True)) == expected
    assert summary.dropped == {}
    assert set(summary.coverage.values()) == {2}
    assert summary.values == 34


def test_what_cannot_be_is_left_out_and_counted(tmp_path: Path) -> None:
    body = episode(
        {"hours": 3, "heart_rate": 80, "gcs_eye": "To Pain"},
        {"hours": -0.0000005, "heart_rate": 70},  # the benchmark's own slack
        {"hours": -1, "heart_rate": 60},
        {"hours": 2, "heart_rate": 9999999, "ph": 735, "gcs_motor": "dances", "temperature": 25, "weight": 350},
        {"hours": 3, "heart_rate": 90, "gcs_eye": "None"},
    )
    _, vitals, summary = run(tmp_path, mortality({"1_episode1": 0}, {}, body), splits={"train": 1.0})
    assert list(vitals.itertuples(index=False, name=None)) == [
        ("1_episode1", 0.0, "heart_rate", 70.0),
        ("1_episode1", 2.0, "temperature", 25.0),
        ("1_episode1", 2.0, "weight", 350.0),
        ("1_episode1", 3.0, "gcs_eye", 0.0),
        ("1_episode1", 3.0, "heart_rate", 80.0),
    ]
    assert summary.dropped == {
        "before the stay heart_rate": 1,
        "impossible heart_rate": 1,
        "impossible ph": 1,
        "repeated gcs_eye": 1,
        "repeated heart_rate": 1,
        "unreadable gcs_motor": 1,
    }


def test_phenotyping(tmp_path: Path) -> None:
    titles = list(TITLES.values())
    marks = [
        "1" if title in ("Shock", "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)") else "0"
        for title in titles
    ]
    listfile = f"stay,period_length,{','.join(titles)}\n" + f"7_episode1_timeseries.csv,61.500000,{','.join(marks)}\n"
    files = {"train/listfile.csv": listfile, "train/7_episode1_timeseries.csv": episode({"hours": 60, "glucose": 100})}
    manifest, vitals, summary = run(tmp_path, files, splits={"train": 1.0})
    assert list(manifest.columns[3:]) == [f"label_{name}" for name in PHENOTYPES]
    assert [c for c in manifest.columns[3:] if manifest[c].iloc[0] == "1"] == ["label_pneumonia", "label_shock"]
    assert vitals.hours.tolist() == [60.0]
    assert "phenotyping: 1 episodes" in "\n".join(summary.lines())


def test_an_episode_without_values_keeps_its_row(tmp_path: Path) -> None:
    files = SMALL | {"train/11_episode1_timeseries.csv": HEADER + "\n", "train/12_episode1_timeseries.csv": episode({"hours": 1})}
    manifest, vitals, summary = run(tmp_path, files)
    assert len(manifest) == 6
    assert vitals.sample_id.nunique() == 4
    assert summary.empty == 2


def test_more_episodes_than_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, SMALL)[1]
    monkeypatch.setattr(benchmarks_folder, "_GROUP", 2)
    assert run(tmp_path, SMALL, overwrite=True)[1].equals(whole)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("train/listfile.csv", "stay,period_length,y_true\n", ("train/listfile.csv, row 1", "stay,y_true", "phenotyping")),
        ("train/listfile.csv", "stay,y_true\n../../etc_timeseries.csv,1\n", ("row 2", "'../../etc_timeseries.csv'", "10011_episode1")),
        ("train/listfile.csv", "stay,y_true\n10_episode1_timeseries.csv,2\n", ("row 2", "'2'", "0 or 1")),
        ("train/listfile.csv", "stay,y_true\n99_episode1_timeseries.csv,1\n", ("row 2", "99_episode1_timeseries.csv", "not in")),
        ("train/listfile.csv", "stay,y_true\n" + "10_episode1_timeseries.csv,1\n" * 2, ("10_episode1 stands twice",)),
        ("train/listfile.csv", "", ("train/listfile.csv", "empty")),
        (
            "train/10_episode2_timeseries.csv",
            PLAIN.replace("80", "fast"),
            ("10_episode2_timeseries.csv, row 2, column heart_rate", "'fast'"),
        ),
        ("train/10_episode2_timeseries.csv", PLAIN.replace("1.5", "soon"), ("row 2, column Hours", "'soon'")),
        ("train/10_episode2_timeseries.csv", PLAIN.replace("80", "inf"), ("row 2", "'inf'")),
        ("train/10_episode2_timeseries.csv", PLAIN.replace("pH", "Shoe size"), ("row 1", "'ph'", "missing or unknown")),
        ("train/10_episode2_timeseries.csv", PLAIN + "1,2,3\n", ("line 3", "3 fields, expected 18")),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, text: str, says: tuple[str, ...]) -> None:
    refused(tmp_path, SMALL | {name: text}, DataError, *says)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    refused(tmp_path, {}, DataError, "no episodes", "task folder of mimic3-benchmarks")
    assert not is_benchmarks_folder(tmp_path / "task")
    refused(
        tmp_path, mortality({"10_episode1": 1}, {"10_episode2": 0}), DataError, "subject 10 is in train/ and test/", splits={"train": 1.0}
    )
    assert is_benchmarks_folder(tmp_path / "task")
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(ConfigError, match="holds the input"):
        prepare_folder(tmp_path / "task", tmp_path, SPLITS, 0, True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path, SMALL)


def test_two_tasks_in_one_folder_are_refused(tmp_path: Path) -> None:
    titles = ",".join(TITLES.values())
    listfile = f"stay,period_length,{titles}\n20_episode1_timeseries.csv,50.0,{','.join(['0'] * 25)}\n"
    refused(tmp_path, SMALL | {"test/listfile.csv": listfile}, DataError, "different tasks")

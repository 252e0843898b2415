"""`data check`: counts of labels, modalities and patterns; faults as in a fit."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cm2pyro.config import Config
from cm2pyro.data.check import describe
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.errors import DataError

VIEWS: dict[str, tuple[str, ...]] = {"image": ("vector",), "note": ("vector",), "ehr": ("binned",)}


def config(*names: str, **task: Any) -> Config:
    modalities = {name: {"kind": "embedding", "encoder": "mlp"} for name in names if name != "ehr"}
    if "ehr" in names:
        modalities["ehr"] = {"kind": "timeseries", "encoder": "lstm", "table": "ehr.csv"}
    return Config.from_dict({"task": task, "modalities": modalities})


def manifest(folder: Path, **columns: list[str]) -> Manifest:
    n = len(next(iter(columns.values())))
    pd.DataFrame({"sample_id": [f"s{i}" for i in range(n)]} | columns).to_csv(folder / "m.csv", index=False)
    return read_manifest(folder / "m.csv")


def test_what_is_there(tmp_path: Path) -> None:
    read = manifest(tmp_path, label=["0", "1", "", "1", "1"], image=["[1]", "", "[2]", "[3]", ""], note=["[1]", "[1]", "[1]", "", ""])
    assert describe(read, config("image", "note"), VIEWS) == [
        "labels in 'label': 0 1, 1 3, empty 1",
        "modality image: 3 of 5 rows (60.0%)",
        "modality note: 3 of 5 rows (60.0%)",
        "  image + note: 2 rows",
        "  image: 1 rows",
        "  note: 1 rows",
        "  nothing observed: 1 rows",
    ]
    assert describe(read, config("image"), VIEWS) == ["labels in 'label': 0 1, 1 3, empty 1", "modality image: 3 of 5 rows (60.0%)"]


def test_labels_splits_and_whole_modalities_may_be_absent(tmp_path: Path) -> None:
    lines = describe(manifest(tmp_path, x=["1", "2"]), config("image", "ehr", label="died"), VIEWS)
    assert lines == [
        "labels: no column 'died'; enough to predict, not to fit or evaluate",
        "modality image: 0 of 2 rows (0.0%); enough to predict, not to fit",
        "modality ehr: 0 of 2 rows (0.0%); enough to predict, not to fit",
        f"modality image: {tmp_path / 'm.csv'} has no column 'image'; every row counts as missing",
        f"modality ehr: ehr.csv is not beside {tmp_path / 'm.csv'}; every row counts as missing",
        "  nothing observed: 2 rows",
    ]


def test_classes_of_a_multiclass_task(tmp_path: Path) -> None:
    read = manifest(tmp_path, diagnosis=["b", "a", "b"], image=["[1]"] * 3)
    assert describe(read, config("image", type="multiclass", label="diagnosis"), VIEWS)[0] == "labels in 'diagnosis': a 1, b 2, empty 0"


def test_faults_are_refused_as_in_a_fit(tmp_path: Path) -> None:
    for columns, says in (
        ({"label": ["0", "2"], "image": ["", ""]}, r"row 3 \(sample_id s1\), column 'label': label is '2'"),
        ({"label": ["0", "1"], "image": ["[1]", "[x]"]}, r"row 3 \(sample_id s1\), column 'image'"),
    ):
        with pytest.raises(DataError, match=says):
            describe(manifest(tmp_path, **columns), config("image"), VIEWS)
    with pytest.raises(DataError, match=r"row 3 \(sample_id s1\), column 'label': label is 'x'; expected a finite number"):
        describe(manifest(tmp_path, label=["0.5", "x"]), config("image", type="regression"), VIEWS)


def test_several_labels_and_numbers(tmp_path: Path) -> None:
    read = manifest(tmp_path, a=["0", "1", ""], b=["", "1", "1"], los=["1", "", "4"], image=["[1]"] * 3)
    lines = describe(read, config("image", type="multilabel", labels=["b", "a"]), VIEWS)
    assert lines[:2] == ["labels in 'b': 0 0, 1 2, empty 1", "labels in 'a': 0 1, 1 1, empty 1"]
    lines = describe(read, config("image", type="multilabel", labels=["a", "c", "d"]), VIEWS)
    assert lines[:2] == [f"labels: no column '{name}'; enough to predict, not to fit or evaluate" for name in "cd"]
    lines = describe(read, config("image", type="regression", label="los"), VIEWS)
    assert lines[0] == "labels in 'los': 2 numbers, mean 2.5, sd 1.5, 1 to 4, empty 1"
    read = manifest(tmp_path, los=["", ""], image=["[1]"] * 2)
    assert describe(read, config("image", type="regression", label="los"), VIEWS)[0] == "labels in 'los': 0 numbers, empty 2"


def test_many_modalities_are_listed_by_the_patterns_that_occur(tmp_path: Path) -> None:
    names = [f"m{i}" for i in range(40)]  # going through all 2^40 patterns would not end
    read = manifest(tmp_path, **{name: ["[1]", "", "[1]"] for name in names})
    lines = describe(read, config(*names), dict.fromkeys(names, ("vector",)))
    assert lines[-2:] == [f"  {' + '.join(names)}: 2 rows", "  nothing observed: 1 rows"]

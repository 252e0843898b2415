"""Labels: the classes of a task, and what lies outside it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from cm2pyro.config import Task
from cm2pyro.data.labels import UNLABELLED, classes_of, read_labels
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.errors import ConfigError, DataError


def manifest_of(labels: Sequence[object], column: str = "label") -> Manifest:
    return read_manifest(pd.DataFrame({"sample_id": [f"s{i}" for i in range(len(labels))], column: labels}))


def test_binary_labels() -> None:
    task = Task()
    for cells in (["0", "1", "", "1"], [0, 1, None, 1], ["0.0", "1.0", None, "1"]):
        manifest = manifest_of(cells)
        assert classes_of(manifest, task) == ("0", "1")
        labels = read_labels(manifest, task, ("0", "1"))
        assert labels.tolist() == [0, 1, UNLABELLED, 1]
        assert labels.dtype == np.int64
    assert read_labels(manifest_of(["", ""]), task, ("0", "1")).tolist() == [-1, -1]


def test_multiclass_labels_are_text_in_order() -> None:
    task = Task(type="multiclass", label="diagnosis")
    manifest = manifest_of(["10", "02", "", "sepsis", "02"], "diagnosis")
    assert classes_of(manifest, task) == ("02", "10", "sepsis")
    assert read_labels(manifest, task, ("02", "10", "sepsis")).tolist() == [1, 0, -1, 2, 0]
    named = Task(type="multiclass", label="diagnosis", classes=["sepsis", "10", "02"])
    assert classes_of(manifest, named) == ("sepsis", "10", "02")
    assert read_labels(manifest, named, classes_of(manifest, named)).tolist() == [1, 2, -1, 0, 2]


@pytest.mark.parametrize("bad", ["2", "yes", " 1", "1.5", "-1", "nan", "True"])
def test_a_label_outside_the_task_is_refused(bad: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(manifest_of(["1", "", bad]), Task(), ("0", "1"))
    expected = f"the data frame, row 4 (sample_id s2), column 'label': label is '{bad.strip()}'; expected one of 0, 1 or empty; correct"
    assert str(caught.value).startswith(expected)


def test_a_label_outside_the_classes_and_one_of_many_lines_are_refused() -> None:
    task = Task(type="multiclass")
    with pytest.raises(DataError, match=r"row 2 .*'c d'; expected one of a, b or empty") as caught:
        read_labels(manifest_of(["c\nd", "a"]), task, ("a", "b"))
    assert len(str(caught.value).splitlines()) == 1
    # "0.0" means 0 in a binary task alone.
    with pytest.raises(DataError, match=r"'0\.0'"):
        read_labels(manifest_of(["0.0"]), task, ("0", "1"))


@pytest.mark.parametrize("cells", [["", ""], ["a", "", "a"]])
def test_fewer_than_two_classes_are_refused(cells: list[str]) -> None:
    with pytest.raises(DataError, match=rf"column 'label' holds {len(set(cells) - {''})} classes; expected two or more"):
        classes_of(manifest_of(cells), Task(type="multiclass"))


def test_an_absent_column_and_an_absent_task_are_refused() -> None:
    manifest = manifest_of(["1"], "lable")
    for call in (lambda: read_labels(manifest, Task(), ("0", "1")), lambda: classes_of(manifest, Task(type="multiclass"))):
        with pytest.raises(DataError, match=r"column 'label' is missing.*did you mean 'lable'"):
            call()
    for name in ("regression", "multilabel"):
        with pytest.raises(ConfigError, match=rf"task.type: '{name}' is not available in this version; use binary or multiclass"):
            classes_of(manifest, Task.model_validate({"type": name}))

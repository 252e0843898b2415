"""Labels: the classes of a task, and what lies outside it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from cm2pyro.config import Task
from cm2pyro.data.labels import UNLABELLED, check_training_labels, classes_of, label_scaling, no_labels, read_labels, standardised
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.errors import DataError


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


def test_an_absent_column_is_refused() -> None:
    manifest = manifest_of(["1"], "lable")
    regression = Task(type="regression")
    several = Task(type="multilabel", labels=["lable", "label"])
    for call in (
        lambda: read_labels(manifest, Task(), ("0", "1")),
        lambda: classes_of(manifest, Task(type="multiclass")),
        lambda: read_labels(manifest, regression, ()),
        lambda: read_labels(manifest, several, several.columns),
    ):
        with pytest.raises(DataError, match=r"column 'label' is missing.*did you mean 'lable'"):
            call()


# --- several labels --------------------------------------------------------------------------------------------------


SEVERAL = Task(type="multilabel", labels=["sepsis", "shock"])


def several_of(**columns: Sequence[object]) -> Manifest:
    n = len(next(iter(columns.values())))
    return read_manifest(pd.DataFrame({"sample_id": [f"s{i}" for i in range(n)]} | columns))


def test_several_labels_are_read_column_by_column() -> None:
    manifest = several_of(shock=["1", "", "0", ""], sepsis=["0", "1", "1.0", ""], other=["x"] * 4)
    assert classes_of(manifest, SEVERAL) == ("sepsis", "shock")
    labels = read_labels(manifest, SEVERAL, ("sepsis", "shock"))
    assert labels.tolist() == [[0, 1], [1, -1], [1, 0], [-1, -1]]
    assert labels.dtype == np.int64
    empty = no_labels(4, SEVERAL, ("sepsis", "shock"))
    assert empty.shape == labels.shape
    assert (empty == UNLABELLED).all()


@pytest.mark.parametrize("bad", ["2", "yes", "nan", "0.5"])
def test_each_of_several_labels_is_0_or_1(bad: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(several_of(sepsis=["0", "1"], shock=["", bad]), SEVERAL, SEVERAL.columns)
    assert str(caught.value).startswith(
        f"the data frame, row 3 (sample_id s1), column 'shock': label is '{bad}'; expected one of 0, 1 or empty; correct"
    )


def test_a_label_that_does_not_vary_in_training_is_a_warning() -> None:
    manifest = several_of(sepsis=["0", "1", "0"], shock=["0", "", "0"])
    labels = read_labels(manifest, SEVERAL, SEVERAL.columns)
    (line,) = check_training_labels(manifest, SEVERAL, SEVERAL.columns, labels)
    assert line == "warning: label 'shock' is 0 in every training row that has it; it can only learn that base rate"
    assert check_training_labels(manifest, SEVERAL, SEVERAL.columns, np.array([[0, 1], [1, 0]])) == []


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[0, -1], [1, -1]], r"column 'shock': empty in every training row; .*leave it out of task\.labels"),
        ([[-1, 1], [1, 1]], r"column 'sepsis': no training row has the label 0, and the other labels do not vary either"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: list[list[int]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_training_labels(several_of(sepsis=["0", "1"], shock=["", ""]), SEVERAL, SEVERAL.columns, np.array(labels))


# --- numbers ---------------------------------------------------------------------------------------------------------


NUMBER = Task(type="regression", label="los")


def test_numbers_are_read_in_their_own_units() -> None:
    manifest = manifest_of(["1.5", "", "-2e3", "0"], "los")
    assert classes_of(manifest, NUMBER) == ()
    np.testing.assert_array_equal(read_labels(manifest, NUMBER, ()), [1.5, np.nan, -2000, 0])
    np.testing.assert_array_equal(no_labels(2, NUMBER, ()), [np.nan, np.nan])


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "1e400", "1e101", "many", "1,5", "True", "NA"])
def test_what_is_no_finite_number_is_refused(bad: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(manifest_of(["1", "", bad], "los"), NUMBER, ())
    assert str(caught.value).startswith(
        f"the data frame, row 4 (sample_id s2), column 'los': label is '{bad}'; expected a finite number or empty; correct"
    )


@pytest.mark.parametrize(("labels", "says"), [([3.0, np.nan, 3.0], "every training label is 3"), ([np.nan], "no training row has a label")])
def test_numbers_that_are_all_alike_are_refused(labels: list[float], says: str) -> None:
    with pytest.raises(DataError, match=rf"column 'los': {says}; expected numbers that differ"):
        check_training_labels(manifest_of(["1"], "los"), NUMBER, (), np.array(labels))


def test_numbers_are_standardised_on_the_training_rows() -> None:
    labels = np.array([10.0, 14.0, np.nan, 18.0, 1000.0])
    scaling = label_scaling(labels[:4])
    scaled = standardised(manifest_of(list("12345"), "los"), NUMBER, labels, scaling)
    train = np.array([10.0, 14.0, 18.0])
    np.testing.assert_allclose(scaled, (labels - train.mean()) / train.std())
    with pytest.raises(DataError, match=r"row 2 \(sample_id s0\), column 'los': label is 1e\+09, 1e\+06 sd or more from the mean"):
        standardised(manifest_of(["1"], "los"), NUMBER, np.array([1e9]), scaling)

"""Labels of the task, read from the manifest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm2pyro.config import Task
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.scaling import Standard
from cm2pyro.data.table import parse_numbers
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

UNLABELLED = -1
_WHY = "it holds the labels of the task"
_BINARY = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": UNLABELLED}
_LARGEST = 1e100  # its square is still a number
_FAR = 1e6  # sd of the training labels; only so that the square fits into float32

Labels = NDArray[Any]  # (n,) class index; multilabel (n, L) 0 or 1; UNLABELLED where empty; regression (n,) float64, NaN where empty


def classes_of(manifest: Manifest, task: Task) -> tuple[str, ...]:
    """What is predicted: the classes ('0', '1' for binary; those of the config or those found for multiclass), the labels of
    multilabel, nothing for regression.

    Raises:
        DataError: no label column, fewer than two classes.
    """
    if task.type == "binary":
        return ("0", "1")
    if task.type == "regression":
        return ()
    if task.type == "multilabel":
        return task.columns
    if task.classes is not None:
        return tuple(task.classes)
    manifest.require([task.label], _WHY)
    found = sorted({value for value in manifest.frame[task.label] if value != ""})
    if len(found) < 2:
        raise DataError(
            f"{manifest.name}: column '{task.label}' holds {len(found)} classes; expected two or more; correct the labels or the task"
        )
    return tuple(found)


def read_labels(manifest: Manifest, task: Task, classes: tuple[str, ...]) -> Labels:
    """Labels of every row, in the form that `Labels` says; numbers in their own units.

    Raises:
        DataError: no label column, a label outside the task, or one that is not a finite number.
    """
    manifest.require(task.columns, _WHY)
    if task.type == "regression":
        return _numbers(manifest, task.label)
    if task.type == "multilabel":
        return np.stack([_indices(manifest, column, _BINARY, ("0", "1")) for column in classes], 1)
    index = _BINARY if task.type == "binary" else {name: i for i, name in enumerate(classes)} | {"": UNLABELLED}
    return _indices(manifest, task.label, index, classes)


def no_labels(n: int, task: Task, classes: tuple[str, ...]) -> Labels:
    """What `read_labels` gives for n rows whose cells are all empty."""
    if task.type == "regression":
        return np.full(n, np.nan)
    return np.full((n, len(classes)) if task.type == "multilabel" else n, UNLABELLED)


def _indices(manifest: Manifest, column: str, index: dict[str, int], names: Sequence[str]) -> NDArray[np.int64]:
    labels = manifest.frame[column].map(index)
    for row in labels.isna().to_numpy().nonzero()[0][:1]:
        found = one_line(manifest.frame[column].iloc[row], 60)
        raise DataError(
            f"{manifest.where(row)}, column '{column}': label is '{found}'; expected one of {one_line(', '.join(names))} or empty; "
            "correct the label or the task in the config"
        )
    return labels.to_numpy().astype(np.int64)


def _numbers(manifest: Manifest, column: str) -> NDArray[np.float64]:
    cells = manifest.frame[column]
    values, _ = parse_numbers(cells)
    # A cell that says nan is refused too: whether somebody meant "no label" is not for us to guess.
    for row in np.flatnonzero((cells != "").to_numpy() & ~(np.abs(values) <= _LARGEST))[:1]:
        raise DataError(
            f"{manifest.where(row)}, column '{column}': label is '{one_line(cells.iloc[row], 60)}'; expected a finite number or empty; "
            "correct the label or the task in the config"
        )
    return values


# --- what a fit asks of the training labels ------------------------------------------------------------------------------


def check_training_labels(manifest: Manifest, task: Task, classes: tuple[str, ...], labels: Labels) -> list[str]:
    """Refuse training labels from which nothing can be learned; what else is worth a warning, a line each.

    A class that no training row has is refused. Of several labels, one that has a single value is a warning: a rare
    finding need not occur in a small training set, and its head then learns the base rate.

    Args:
        labels: of the training rows.

    Raises:
        DataError: an absent class, a label that is empty in every training row, labels that are all alike.
    """
    if task.type == "regression":
        seen = labels[np.isfinite(labels)]
        if len(seen) == 0 or np.all(seen == seen[0]):
            found = f"every training label is {seen[0]:g}" if len(seen) else "no training row has a label"
            raise DataError(
                f"{manifest.name}, column '{task.label}': {found}; expected numbers that differ; check the splits and the labels"
            )
        return []
    if task.type == "multilabel":
        return _check_several(manifest, classes, labels)
    present = set(labels.tolist()) - {UNLABELLED}
    absent = [name for i, name in enumerate(classes) if i not in present]
    if absent:
        raise DataError(
            f"{manifest.name}, column '{task.label}': no training row has the label {absent[0]}; "
            f"expected every class ({', '.join(classes)}) among the training rows; check the splits and the labels"
        )
    return []


def _check_several(manifest: Manifest, classes: tuple[str, ...], labels: Labels) -> list[str]:
    warnings = []
    for name, column in zip(classes, labels.T, strict=True):
        values = set(column.tolist()) - {UNLABELLED}
        if not values:
            raise DataError(
                f"{manifest.name}, column '{name}': empty in every training row; expected 0 and 1; "
                "check the splits, or leave it out of task.labels"
            )
        if len(values) == 1:
            warnings.append(
                f"warning: label '{name}' is {values.pop()} in every training row that has it; it can only learn that base rate"
            )
    if len(warnings) == len(classes):
        raise DataError(
            f"{manifest.name}, column '{classes[0]}': no training row has the label {1 - int(labels[labels[:, 0] != UNLABELLED, 0][0])}"
            f"{', and the other labels do not vary either' if len(classes) > 1 else ''}; "
            "expected 0 and 1 among the training rows; check the splits and the labels"
        )
    return warnings


# --- units of numeric labels ---------------------------------------------------------------------------------------------


def label_scaling(labels: Labels) -> Standard:
    """Mean and sd of numeric training labels (n,), NaN where empty; `check_training_labels` has passed them."""
    return Standard.fit(labels[:, None])


def standardised(manifest: Manifest, task: Task, labels: Labels, scaling: Standard) -> Labels:
    """Labels (n,) in sd of the training labels. Raises DataError for one that is absurdly far from them."""
    scaled = scaling(labels[:, None])[:, 0]
    for row in np.flatnonzero(np.abs(scaled) > _FAR)[:1]:
        raise DataError(
            f"{manifest.where(row)}, column '{task.label}': label is {labels[row]:g}, {_FAR:g} sd or more from the mean of the training "
            "labels; expected one of their kind; correct it or empty the cell"
        )
    return scaled

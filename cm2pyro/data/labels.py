"""Labels of the task, read from the manifest."""

import numpy as np
from numpy.typing import NDArray

from cm2pyro.config import Task
from cm2pyro.data.manifest import Manifest
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.registry import one_line

UNLABELLED = -1


def classes_of(manifest: Manifest, task: Task) -> tuple[str, ...]:
    """The classes of the task: ('0', '1') for binary, those of the config or those found for multiclass.

    Raises:
        ConfigError: a task that this version does not fit. DataError: no label column, fewer than two classes.
    """
    if task.type == "binary":
        return ("0", "1")
    if task.type != "multiclass":
        raise ConfigError(f"task.type: '{task.type}' is not available in this version; use binary or multiclass")
    if task.classes is not None:
        return tuple(task.classes)
    manifest.require([task.label], "it holds the labels of the task")
    found = sorted({value for value in manifest.frame[task.label] if value != ""})
    if len(found) < 2:
        raise DataError(
            f"{manifest.name}: column '{task.label}' holds {len(found)} classes; expected two or more; correct the labels or the task"
        )
    return tuple(found)


def read_labels(manifest: Manifest, task: Task, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Class index of every row, UNLABELLED where the cell is empty.

    Raises:
        DataError: no label column, or a label outside the task.
    """
    manifest.require([task.label], "it holds the labels of the task")
    index = {name: i for i, name in enumerate(classes)} | {"": UNLABELLED}
    if task.type == "binary":
        index |= {"0.0": 0, "1.0": 1}
    labels = manifest.frame[task.label].map(index)
    for row in labels.isna().to_numpy().nonzero()[0][:1]:
        found = one_line(manifest.frame[task.label].iloc[row], 60)
        raise DataError(
            f"{manifest.where(row)}, column '{task.label}': label is '{found}'; expected one of {one_line(', '.join(classes))} or empty; "
            "correct the label or the task in the config"
        )
    return labels.to_numpy().astype(np.int64)

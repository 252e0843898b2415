"""From a manifest and a config to a data set, with what was learned from the training rows kept for later."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cm2pyro.config import Config, Task
from cm2pyro.data.columns import Columns, Sparse
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.kind import Kind
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.labels import Labels, check_training_labels, classes_of, label_scaling, no_labels, read_labels, standardised
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.scaling import Standard
from cm2pyro.data.text import Text
from cm2pyro.errors import CheckpointError, DataError
from cm2pyro.registry import one_line

Result = TypeVar("Result")


@dataclass
class Preparation:
    """How raw modalities become tensors; its state is saved with a run.

    Attributes:
        kinds: one reader per modality. classes: names of the task's classes or labels, none for a regression.
        scaling: of a regression's labels, learned from the training rows; None for other tasks.
        remarks: what the reader of the data should know.
    """

    task: Task
    kinds: dict[str, Kind]
    classes: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)
    scaling: Standard | None = None

    @classmethod
    def from_config(cls, config: Config, views: dict[str, tuple[str, ...]]) -> Self:
        """views: those that each modality's encoder reads."""
        return cls(config.task, {name: make_kind(name, modality, views[name]) for name, modality in config.modalities.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in the order of the config."""
        return tuple(self.kinds)

    def fit(self, manifest: Manifest, train: NDArray[np.int64]) -> Dataset:
        """Learn scalings from the rows `train` alone and return all rows as tensors.

        Raises:
            DataError: whatever is wrong in the data; a modality that no training row has; a class that training lacks.
        """
        self.classes = classes_of(manifest, self.task)
        labels = read_labels(manifest, self.task, self.classes)
        self.remarks += check_training_labels(manifest, self.task, self.classes, labels[train])
        self.scaling = label_scaling(labels[train]) if self.task.type == "regression" else None
        raw = {}
        kinds = {}
        for name, old in self.kinds.items():
            # A new reader: what an earlier fit learned must not decide what counts as observed now.
            kind = kinds[name] = make_kind(name, old.modality, old.views)
            raw[name] = self._heard(kind, kind.read(manifest))
            if not kind.observed(raw[name])[train].any():
                raise absent_in_training(manifest, kind)
            kind.fit(raw[name], train)
            self.check_inputs(manifest, kind)
        self.kinds = kinds
        return self._dataset(manifest, raw, labels)

    def check_inputs(self, manifest: Manifest, kind: Kind) -> None:
        """Raises DataError for a kind that learned from a column that is no input."""
        outcome = [self.task.label, *(self.task.labels or [])]
        for column in kind.inputs():
            if column in outcome or column in ("subject_id", "split"):
                what = "the label of the task" if column in outcome else "not an input"
                raise DataError(
                    f"{manifest.name}: modality '{kind.name}' ({_place(kind)}) would read column '{column}', which is {what}; "
                    "expected inputs alone; name those in the config with columns, or remove it from the data"
                )

    def transform(self, manifest: Manifest, labels: bool) -> Dataset:
        """Rows as tensors under what was learned in `fit`; whole modalities may be absent. `labels`: read them, or leave all empty."""
        y = read_labels(manifest, self.task, self.classes) if labels else no_labels(len(manifest), self.task, self.classes)
        return self._dataset(manifest, {name: self.read(kind, manifest) for name, kind in self.kinds.items()}, y)

    def observed(self, manifest: Manifest) -> NDArray[np.bool_]:
        """(n, M) which rows have which modality, everything read and checked; needs no fit."""
        columns = []
        for kind in self.kinds.values():
            raw = self.read(kind, manifest)
            columns.append(np.zeros(len(manifest), dtype=bool) if raw is None else kind.observed(raw))
        return np.stack(columns, 1)

    def read(self, kind: Kind, manifest: Manifest) -> Any:
        """The raw modality of every row; None where its table is not there."""
        table = kind.modality.table
        if table is not None and _absent(manifest, table):
            self.remarks.append(f"modality {kind.name}: {table} is not beside {manifest.name}; every row counts as missing")
            return None
        column = kind.modality.column or kind.name
        if table is None and kind.modality.columns is None and column not in manifest.frame:
            self.remarks.append(
                f"modality {kind.name}: {manifest.name} has no column '{one_line(column, 60)}'; every row counts as missing"
            )
        return self._heard(kind, kind.read(manifest))

    def _heard(self, kind: Kind, result: Result) -> Result:
        """The result, once what the kind had to say about it is noted."""
        self.remarks += kind.remarks
        kind.remarks = []
        return result

    def _dataset(self, manifest: Manifest, raw: dict[str, Any], labels: Labels) -> Dataset:
        n = len(manifest)
        if self.scaling is not None:
            labels = standardised(manifest, self.task, labels, self.scaling)
        inputs: dict[str, Columns] = {}
        observed = []
        for name, kind in self.kinds.items():
            if raw[name] is None:
                inputs[name] = {view: Sparse(torch.zeros(0, *shape), torch.full((n,), -1)) for view, shape in kind.shapes().items()}
                observed.append(np.zeros(n, dtype=bool))
            else:
                inputs[name] = self._heard(kind, kind.transform(raw[name]))
                observed.append(kind.observed(raw[name]))
        mask = torch.from_numpy(np.stack(observed, 1))
        return Dataset(self.names, inputs, mask, torch.from_numpy(labels), tuple(manifest.ids), tuple(manifest.subjects))

    def tokenizers(self) -> dict[str, str]:
        """Text modality -> its tokenizer as the JSON that the library `tokenizers` and Hugging Face read."""
        return {name: kind.tokenizer.to_str() for name, kind in self.kinds.items() if isinstance(kind, Text)}

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        labels = {} if self.scaling is None else {"label": self.scaling.state()}
        return {"classes": list(self.classes), **labels, "modalities": {name: kind.state() for name, kind in self.kinds.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError if the state is not one of these modalities."""
        try:
            self.classes = tuple(state["classes"])
            self._check_classes()
            self.scaling = Standard.from_state(state["label"]) if self.task.type == "regression" else None
            for name, kind in self.kinds.items():
                kind.load(state["modalities"][name])
        except (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(f"preprocessing.json: does not fit the config ({one_line(repr(error))}); fit again") from error

    def _check_classes(self) -> None:
        task = self.task
        known = {"binary": ("0", "1"), "regression": (), "multilabel": task.columns}.get(task.type, task.classes and tuple(task.classes))
        right = len(set(self.classes)) == len(self.classes) >= 2 and all(isinstance(name, str) for name in self.classes)
        if self.classes != known if known is not None else not right:
            raise ValueError(f"classes {self.classes}")


def absent_in_training(manifest: Manifest, kind: Kind) -> DataError:
    """The refusal of a modality that no training row has."""
    return DataError(
        f"{manifest.name}: modality '{kind.name}' ({_place(kind)}) is missing in every training row; "
        "expected at least one row that has it; add the data or remove the modality from the config"
    )


def _place(kind: Kind) -> str:
    modality = kind.modality
    if modality.table is None and modality.columns is not None:
        return f"columns {', '.join(modality.columns[:5])}{' …' if len(modality.columns) > 5 else ''}"
    return modality.table or f"column '{modality.column or kind.name}'"


def _absent(manifest: Manifest, table: str) -> bool:
    """Whether nothing of that name is there. What cannot even be looked up is for the reader to refuse."""
    if table in manifest.tables or Path(table).is_absolute() or ".." in Path(table).parts:
        return False
    try:
        os.lstat(manifest.root / table)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False

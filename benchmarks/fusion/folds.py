"""What every method is given: the same rows for training, validation and test, the same masks, the same tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fusion.base import Setting
from benchmarks.physionet2012_folds import fold_numbers
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.kind import Kind
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.missingness import hide
from cm2pyro.data.prepared import Preparation
from cm2pyro.data.splits import assign_splits, training_rows
from cm2pyro.encoders import check_encoders
from cm2pyro.errors import ConfigError, DataError

Mask = NDArray[np.bool_]
NATURAL, _WITHOUT = "as observed", "without:"


@dataclass(frozen=True)
class Fold:
    """One training set and the rows that its fits are scored on.

    Attributes:
        fitting: rows with split `train`, then those with `val`. testing: rows to score, all labelled.
        train, val, test: the same as tensors, under what was learned from `train`; fewer modalities observed in the first two
            where the training is masked. kinds: the readers, fitted.
    """

    config: Config
    fitting: Manifest
    testing: Manifest
    train: Dataset
    val: Dataset
    test: Dataset
    kinds: dict[str, Kind]

    @property
    def setting(self) -> Setting:
        labels = self.train.labels[self.train.labelled]
        return Setting(self.config, {name: kind.shapes() for name, kind in self.kinds.items()}, float(labels.float().mean()))

    @property
    def names(self) -> tuple[str, ...]:
        return self.train.names

    def kept(self) -> Mask:
        """(n, M) which modalities the rows of `fitting` may show."""
        return torch.cat([self.train.observed, self.val.observed]).numpy()


def divide(manifest: Manifest, rows: Manifest, folds: int, share: float) -> list[tuple[Manifest, list[int]]]:
    """Fixed folds over subjects.

    Args:
        manifest: every row, unlabelled ones too. rows: those of it that are scored. share: of the subjects of a fit that stop it,
            `fit.validation` of the config.

    Returns:
        per fold the rows of `manifest` to fit on, `share` of their subjects as `val`, and the positions in `rows` of the others.

    Raises:
        ConfigError: fewer than two folds, or more than subjects.
    """
    subjects = sorted(set(manifest.subjects))
    if not 2 <= folds <= len(subjects):
        raise ConfigError(f"--folds {folds}: expected 2 to {len(subjects)}, the number of subjects in {manifest.name}; choose another")
    fold_of = fold_numbers(subjects, folds)
    divided = []
    for fold in range(folds):
        fitted = [subject for subject in subjects if fold_of[subject] != fold]
        split_of = assign_splits(fitted, {"train": 1 - share, "val": share} if share else {"train": 1.0}, fold)
        used = [i for i, subject in enumerate(manifest.subjects) if subject in split_of]
        held = [i for i, subject in enumerate(rows.subjects) if subject not in split_of]
        divided.append((_with_splits(manifest, used, [split_of[manifest.subjects[i]] for i in used]), held))
    return divided


def whole(manifest: Manifest, share: float) -> Manifest:
    """All rows of the splits `train` and `val`; without `val` a share of the subjects takes its place, the same for every seed."""
    train, val, _ = training_rows(manifest, 0, share)
    return _with_splits(manifest, [*train, *val], ["train"] * len(train) + ["val"] * len(val))


def _with_splits(manifest: Manifest, rows: Sequence[int], splits: Sequence[str]) -> Manifest:
    order = sorted(range(len(rows)), key=lambda i: splits[i])  # "train" before "val", and otherwise as they were
    taken = manifest.take([rows[i] for i in order])
    frame = taken.frame.assign(subject_id=taken.subjects, split=[splits[i] for i in order])
    return Manifest(frame, manifest.name, manifest.root)


def complete(manifest: Manifest, config: Config) -> Manifest:
    """The rows that have all modalities. Raises DataError where there are none."""
    observed = Preparation.from_config(config, check_encoders(config)).observed(manifest)
    rows = np.flatnonzero(observed.all(1)).tolist()
    if not rows:
        raise DataError(f"{manifest.name}: no row has all modalities; leave out --complete-cases")
    return manifest.take(rows)


def labelled(manifest: Manifest, config: Config) -> Manifest:
    """The rows with a label."""
    return manifest.take([i for i, label in enumerate(manifest.frame[config.task.label]) if label.strip() != ""])


def make_fold(config: Config, fitting: Manifest, testing: Manifest, train_mask: Mask | None = None) -> Fold:
    """Read and scale. train_mask: (n, M), which modalities the rows of `fitting` may show."""
    preparation = Preparation.from_config(config, check_encoders(config))
    train = fitting.rows("train")
    dataset = preparation.fit(fitting, np.arange(len(train)))
    if train_mask is not None:
        dataset = dataset.with_observed(dataset.observed & torch.from_numpy(train_mask))
    test = preparation.transform(testing, labels=True)
    parts = dataset.take(range(len(train))), dataset.take(range(len(train), len(dataset)))
    return Fold(config, fitting, testing, *parts, test, preparation.kinds)


def make_masks(config: Config, fitting: Manifest, rows: Manifest, mechanisms: Sequence[str], seed: int) -> dict[str, Mask]:
    """Mechanism -> (n, M) which modalities of `rows` are left, drawn once, whatever the fold; `NATURAL` hides nothing."""
    preparation = Preparation.from_config(config, check_encoders(config))
    preparation.fit(fitting, np.arange(len(fitting.rows("train"))))
    dataset = preparation.transform(rows, labels=True)
    return {mechanism: _hide(dataset, mechanism, seed) for mechanism in mechanisms}


def _hide(data: Dataset, mechanism: str, seed: int) -> Mask:
    seen: Mask = data.observed.numpy()
    if mechanism == NATURAL:
        return seen
    if mechanism.startswith(_WITHOUT):  # several names, with commas
        hidden = [hide(data, _WITHOUT + name, seed) for name in mechanism.removeprefix(_WITHOUT).split(",")]
        return np.logical_and.reduce(hidden)
    return hide(data, mechanism, seed)

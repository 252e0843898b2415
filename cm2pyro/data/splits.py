"""Dividing subjects among train, val and test, the same way for every data source."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cm2pyro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cm2pyro.data.manifest import Manifest

__all__ = ["SPLITS", "assign_splits", "check_fractions", "parse_splits", "training_rows"]

SPLITS = ("train", "val", "test")


def parse_splits(text: str) -> dict[str, float]:
    """Read `train=0.8,val=0.2`, as typed after `--splits`.

    Returns:
        split name -> fraction of the subjects, in the order train, val, test.

    Raises:
        ConfigError: a part is not `name=fraction`, a name is repeated, or `check_fractions` refuses.
    """
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            fraction = float(number)
        except ValueError:
            raise ConfigError(f"--splits: found {part.strip()!r}, expected name=fraction; write for example train=0.8,val=0.2") from None
        if name in fractions:
            raise ConfigError(f"--splits: {name} is named twice in {text!r}; name each split once")
        fractions[name] = fraction
    return check_fractions(fractions)


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Check the fractions and return them in the order train, val, test.

    Raises:
        ConfigError: an unknown split, a fraction that is not above 0, or a sum that is not 1.
    """
    for name, fraction in fractions.items():
        if name not in SPLITS:
            raise ConfigError(f"splits: found the name {name!r}, expected one of {', '.join(SPLITS)}; write for example train=0.8,val=0.2")
        if not fraction > 0:  # also refuses NaN
            raise ConfigError(f"splits: {name}={fraction:g} is not above 0; leave out a split that shall be empty")
    total = sum(fractions.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ConfigError(f"splits: the fractions sum to {total:g}, expected 1; write for example train=0.8,val=0.2")
    return {name: fractions[name] for name in SPLITS if name in fractions}


def assign_splits(subject_ids: Iterable[str], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Put each subject into one split.

    Args:
        subject_ids: ids in any order, repeats allowed; the result depends on neither.
        fractions: split name -> fraction of the subjects, summing to 1.
        seed: seeds the permutation of the sorted ids.

    Returns:
        subject id -> split name, each subject once.

    Raises:
        ConfigError: the fractions (see `check_fractions`) or the seed are wrong.
        DataError: so few subjects that a split would stay empty.
    """
    fractions = check_fractions(fractions)
    if seed < 0:
        raise ConfigError(f"seed: found {seed}, expected a whole number of at least 0")
    subjects = np.array(sorted(set(subject_ids)), dtype=object)
    shuffled = subjects[np.random.default_rng(seed).permutation(len(subjects))]
    # Rounding the cumulative fractions, not each one, makes the sizes add up.
    edges = np.rint(np.cumsum(list(fractions.values())) * len(subjects)).astype(int)
    assigned: dict[str, str] = {}
    for name, part in zip(fractions, np.split(shuffled, edges[:-1]), strict=True):
        if len(part) == 0:
            raise DataError(f"splits: {len(subjects)} subjects are too few to put one into {name}; give fewer splits or larger fractions")
        assigned.update(dict.fromkeys(part, name))
    return assigned


def training_rows(
    manifest: "Manifest", seed: int, share: float = 0.2, held: set[str] | None = None, labels: Sequence[str] = ()
) -> tuple[list[int], list[int], list[str]]:
    """Rows to fit on and rows that stop the fit.

    Args:
        manifest: with splits and subjects. seed: of the subjects held out. share: of the training subjects to hold out,
            in [0, 1); 0: none. held: subjects held out before, by a fit that is resumed. labels: columns of the labels.

    Returns:
        rows of the split `train`, rows of `val`, and, where no row is `val`, the training subjects whose rows were taken
        out of `train` to serve as `val` (empty otherwise, with share 0, and where there is one subject alone). Where some
        subjects have a label and others none it is that share of each, so that few labels are shared out evenly.

    Raises:
        DataError: no row has the split `train`.
    """
    train, val = manifest.rows("train"), manifest.rows("val")
    if not train:
        raise DataError(f"{manifest.name}: no row has split 'train'; expected some to fit on")
    subjects = sorted({manifest.subjects[i] for i in train})
    if val or not share or len(subjects) < 2:
        return train, val, []
    if not held:
        filled = (manifest.frame[list(labels)] != "").any(axis=1).tolist() if labels else [True] * len(manifest)
        subject_of = manifest.subjects
        labelled = {subject_of[i] for i in train if filled[i]}
        groups = [[s for s in subjects if s in labelled], [s for s in subjects if s not in labelled]]
        # Of fewer than three none can be spared, unless there are no others.
        split_of: dict[str, str] = {}
        for group in [g for g in groups if len(g) > 2] or [subjects]:
            split_of |= assign_splits(group, {"train": 1 - share, "val": share}, seed)
        held = {subject for subject, split in split_of.items() if split == "val"}
    val = [i for i in train if manifest.subjects[i] in held]
    return [i for i in train if manifest.subjects[i] not in held], val, sorted(held)

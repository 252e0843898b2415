"""The fixed folds over subjects that every cross-validation on PhysioNet 2012 uses."""

from collections.abc import Iterable

import numpy as np

FOLDS = 5
_SEED = 2012


def fold_numbers(subjects: Iterable[str], folds: int = FOLDS) -> dict[str, int]:
    """Subject -> number of its fold, from 0; the order and the repetition of subjects do not matter."""
    names = sorted(set(subjects))
    return dict(zip(names, (np.random.default_rng(_SEED).permutation(len(names)) % folds).tolist(), strict=True))

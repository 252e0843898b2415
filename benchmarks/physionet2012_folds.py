"""The fixed folds over subjects that every cross-validation on PhysioNet 2012 uses."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cm2pyro.data.manifest import Manifest

FOLDS = 5
_SEED = 2012


def fold_numbers(subjects: Iterable[str], folds: int = FOLDS) -> dict[str, int]:
    """Subject -> number of its fold, from 0; the order and the repetition of subjects do not matter."""
    names = sorted(set(subjects))
    return dict(zip(names, (np.random.default_rng(_SEED).permutation(len(names)) % folds).tolist(), strict=True))


def fold_of_rows(manifest: Manifest) -> NDArray[np.int64]:
    """(N,) the number of every row's fold."""
    fold_of = fold_numbers(manifest.subjects)
    return np.array([fold_of[subject] for subject in manifest.subjects])


@contextmanager
def divided(manifest: Manifest, split: ArrayLike, name: str) -> Iterator[Path]:
    """The manifest with these splits as a file beside it, since its tables are found there; gone when the block ends."""
    path = manifest.root / f".{name}.csv"
    manifest.frame.assign(split=split).to_csv(path, index=False)
    try:
        yield path
    finally:
        path.unlink()

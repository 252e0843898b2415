"""Aligned latents of PhysioNet 2012 without labels: canonical axes that the modalities of a stay share."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from physionet2012_folds import fold_of_rows

from cm2pyro.config import Config
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.prepared import Preparation
from cm2pyro.encoders import check_encoders

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
NAMES = ("vitals", "labs", "gases", "static")
_PRINCIPAL = 20  # principal components of a modality's summaries that canonical axes may use
_RIDGE = 1e-3  # of the largest squared singular value
_CLIP = 5.0


def summaries(manifest: Path, config: Path, folds: int) -> list[dict[str, Any]]:
    """Per fold of the fixed folds over subjects: the `summary` vectors of each modality, scaled on the other folds.

    Returns:
        per fold the modalities' (N, F) vectors, `observed` (N, M), `labels` (N,), `data` with all of it, and `train`, `test`: row numbers.
    """
    settings, read = Config.from_file(config), read_manifest(manifest)
    fold = fold_of_rows(read)
    found = []
    for k in range(folds):
        train = np.flatnonzero(fold != k)
        data = Preparation.from_config(settings, check_encoders(settings)).fit(read, train)
        views = {name: next(iter(data.inputs[name].values())).double().numpy() for name in NAMES}
        rows = {"train": train, "test": np.flatnonzero(fold == k)}
        found.append(views | {"observed": data.observed.numpy(), "labels": data.labels.numpy(), "data": data} | rows)
    return found


def align(views: list[Array], observed: Mask, train: NDArray[np.int64], dim: int) -> Array:
    """MAXVAR generalised canonical correlation on leading principal components (Kettenring 1971, Biometrika 58).

    The axes are those of the training rows that have every modality, the principal components those of all training rows
    that have theirs. `observed` is what training may see: a modality hidden there takes no part.

    Returns:
        (N, M, dim), standardised over training rows, clipped at ±5; dimension j of every modality estimates axis j.
    """
    complete = train[observed[train].all(1)]
    bases, scores = [], []
    for m, x in enumerate(views):
        rows = train[observed[train, m]]
        centred = x - x[rows].mean(0)
        _, s, vt = np.linalg.svd(centred[rows], full_matrices=False)
        keep = (np.arange(len(s)) < _PRINCIPAL) & (s > 1e-6 * s[0])
        scores.append(centred @ vt[keep].T)
        u, s, vt = np.linalg.svd(scores[m][complete], full_matrices=False)
        bases.append((u, s, vt, s**2 / (s**2 + _RIDGE * s[0] ** 2)))
    common = np.linalg.svd(np.concatenate([u * np.sqrt(w) for u, _, _, w in bases], 1), full_matrices=False)[0][:, :dim]
    z = np.stack([score @ (vt.T @ ((w / s)[:, None] * (u.T @ common))) for score, (u, s, vt, w) in zip(scores, bases, strict=True)], 1)
    for m in range(len(views)):
        rows = train[observed[train, m]]
        z[:, m] = (z[:, m] - z[rows, m].mean(0)) / z[rows, m].std(0)
    return np.clip(z, -_CLIP, _CLIP)

"""Fits that take about a second, and how two runs are compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.kill import difference

__all__ = ["CutError", "cut_after", "difference", "last", "manifest", "settings", "small", "table"]

ROWS, BATCH = 60, 15


class CutError(Exception):
    """Stands for a process that ends."""


def cut_after(epoch: int) -> Callable[[dict[str, Any], list[str]], None]:
    """What a fit reports to, which ends it there."""

    def cut(record: dict[str, Any], warnings: list[str]) -> None:
        if record["epoch"] == epoch:
            raise CutError

    return cut


def settings(**changes: dict[str, Any]) -> dict[str, Any]:
    """Two modalities, three steps an epoch; a checkpoint after every one of them."""
    config: dict[str, Any] = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4} for name in ("a", "b")},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"epochs": 3, "batch_size": BATCH, "lr": 0.01, "patience": 50, "checkpoint_minutes": 1e-9},
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return config


def table() -> pd.DataFrame:
    """45 training rows and 15 validation rows."""
    random = np.random.default_rng(0)
    z = random.normal(size=(ROWS, 2, 2)) + 2 * random.integers(0, 2, size=(ROWS, 1, 1))
    gone = random.random((ROWS, 2)) < 0.2
    cells = {name: ["" if gone[i, m] else json.dumps(z[i, m].round(3).tolist()) for i in range(ROWS)] for m, name in enumerate("ab")}
    ids = [f"s{i}" for i in range(ROWS)]
    split = np.where(np.arange(ROWS) < 0.75 * ROWS, "train", "val")
    label = (z.sum((1, 2)) + random.normal(size=ROWS) > 2).astype(int).astype(str)
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": label} | cells)


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def vectors(z: np.ndarray, observed: np.ndarray | None = None) -> list[str]:
    return [json.dumps(row.tolist()) if observed is None or observed[i] else "" for i, row in enumerate(z)]


def manifest(z: np.ndarray, observed: np.ndarray, seed: int, val: float = 0.2) -> pd.DataFrame:
    """z (N, M, D) as given vectors m0, m1, …; the label depends on every modality."""
    random = np.random.default_rng(seed)
    n = len(z)
    logit = (z - z.mean(0)).sum((1, 2)) / z.std()
    split = np.where(np.arange(n) < n * (1 - val), "train", "val")
    ids = [f"s{i}" for i in range(n)]
    label = (random.random(n) < 1 / (1 + np.exp(-logit))).astype(int).astype(str)
    columns = {f"m{m}": vectors(z[:, m], observed[:, m]) for m in range(z.shape[1])}
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": label, **columns})


def small(**changes: dict) -> dict:
    """A config of `manifest`'s three modalities that fits in seconds."""
    config = {
        "modalities": {f"m{m}": {"kind": "embedding", "encoder": "mlp", "hidden": 16} for m in range(3)},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 8},
        "fit": {"epochs": 3, "batch_size": 32, "lr": 0.01, "patience": 50},
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return config

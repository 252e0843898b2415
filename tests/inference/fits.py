"""Fits that take about a second, and how two runs are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.kill import difference

__all__ = ["CutError", "difference", "settings", "table"]

ROWS, BATCH = 60, 15


class CutError(Exception):
    """Stands for a process that ends."""


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

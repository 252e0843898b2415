"""Samples with several labels and a number, and a config for either."""

import json

import numpy as np
import pandas as pd

LABELS = ["sepsis", "shock"]


def table(n: int = 120, seed: int = 0, missing: float = 0.3) -> pd.DataFrame:
    """Two vectors, a number and two labels that depend on both; some cells empty."""
    random = np.random.default_rng(seed)
    z = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=n)
    los = 50 + 8 * (z[:, 0] + 0.5 * z[:, 1]) + 4 * random.normal(size=n)
    columns = {"sample_id": [f"s{i:04}" for i in range(n)], "subject_id": [f"p{i // 2:04}" for i in range(n)]}
    columns["split"] = np.where(np.arange(n) < 0.6 * n, "train", np.where(np.arange(n) < 0.8 * n, "val", "test"))
    columns["los"] = ["" if i % 11 == 10 else repr(float(value)) for i, value in enumerate(los)]
    for j, (name, weight) in enumerate(zip(LABELS, (1.5, -1.0), strict=True)):
        value = (random.random(n) < 1 / (1 + np.exp(-weight * z.sum(1)))).astype(int)
        columns[f"full_{name}"] = value.astype(str)
        columns[name] = ["" if i % 7 == j or i % 13 == 12 else str(v) for i, v in enumerate(value)]
    for j, name in enumerate("ab"):
        columns[name] = ["" if random.random() < missing and i > 3 else json.dumps([float(z[i, j])]) for i in range(n)]
    return pd.DataFrame(columns)


def config(task: dict, encoder: str = "mlp", **sections: dict) -> dict:
    modality = {"kind": "embedding", "encoder": encoder} | ({} if encoder == "identity" else {"hidden": 4})
    return {
        "task": task,
        "modalities": {"a": modality, "b": modality},
        "latent": {"dim": 1},
        "prior": {"components": 2} | sections.pop("prior", {}),
        "fusion": {"kind": "mlp", "hidden": 4} | sections.pop("fusion", {}),
        "fit": {"epochs": 3, "batch_size": 32, "lr": 0.01} | sections.pop("fit", {}),
        **sections,
    }


MULTILABEL, REGRESSION = {"type": "multilabel", "labels": LABELS}, {"type": "regression", "label": "los"}

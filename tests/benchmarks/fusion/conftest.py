"""A small data set with two time series and a table, each missing in some rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fusion.folds import Fold, divide, make_fold
from cm2pyro.config import Config
from cm2pyro.data.manifest import Manifest, read_manifest

N = 200
CONFIG = {
    "modalities": {
        "a": {"kind": "timeseries", "encoder": "summary", "table": "a.parquet", "hidden": 8, "input_dropout": 0.0, "dropout": 0.1},
        "b": {"kind": "timeseries", "encoder": "summary", "table": "b.parquet", "hidden": 8, "input_dropout": 0.0, "dropout": 0.1},
        "c": {"kind": "tabular", "encoder": "mlp", "columns": ["x", "kind"], "hidden": 8},
    },
    "latent": {"dim": 3},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "layers": 0},
    "fit": {"epochs": 6, "batch_size": 32, "lr": 1e-2, "weight_decay": 0.01, "l1": 1e-4, "ema": 0.9, "patience": 6, "restarts": 1},
}


@pytest.fixture(scope="session")
def config() -> Config:
    return Config.from_dict(CONFIG)


@pytest.fixture(scope="session")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows a subject; each modality shifts with the label, b and c are missing in a third of the rows."""
    folder, random = tmp_path_factory.mktemp("fusion"), np.random.default_rng(0)
    label = random.integers(0, 2, N)
    ids = [f"s{i:03d}" for i in range(N)]
    for name, share in (("a", 1.0), ("b", 0.67)):
        there = np.flatnonzero(random.random(N) < share)
        rows = np.repeat(there, 4)
        long = {"sample_id": np.array(ids)[rows], "hours": np.tile([1.0, 9.0, 20.0, 40.0], len(there))}
        values = random.normal(label[rows], 1.0)
        pd.DataFrame(long | {"variable": np.tile(["u", "v"], 2 * len(there)), "value": values}).to_parquet(folder / f"{name}.parquet")
    there = random.random(N) < 0.67
    x = np.where(there, np.char.mod("%.3f", random.normal(label, 1.0)), "")
    kind = np.where(there, np.where(random.random(N) < 0.3 + 0.4 * label, "p", "q"), "")
    frame = pd.DataFrame({"sample_id": ids, "subject_id": [f"p{i // 2}" for i in range(N)], "split": "train", "label": label})
    frame.assign(x=x, kind=kind).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def manifest(manifest_path: Path) -> Manifest:
    return read_manifest(manifest_path)


@pytest.fixture(scope="session")
def fold(config: Config, manifest: Manifest) -> Fold:
    fitting, held = divide(manifest, manifest, 2, 0.2)[0]
    return make_fold(config, fitting, manifest.take(held))

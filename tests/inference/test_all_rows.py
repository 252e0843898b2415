"""Fits that hold no subject out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.inference.checkpoint import read

pytestmark = pytest.mark.slow

CONFIG = {
    "modalities": {"m": {"kind": "embedding", "encoder": "mlp", "hidden": 8}, "n": {"kind": "embedding", "encoder": "mlp", "hidden": 8}},
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "layers": 0},
}


def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(80, 2, 2))
    ids = [f"s{i}" for i in range(80)]
    cells = {name: [json.dumps(row.tolist()) for row in z[:, j]] for j, name in enumerate("mn")}
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": (z[:, 0, 0] > 0).astype(int).astype(str), **cells})


def test_all_rows_teach_all_epochs_run_and_the_last_average_predicts(tmp_path: Path) -> None:
    said: list[str] = []
    fit = {"validation": 0, "epochs": 6, "patience": 1, "lr": 0.05, "ema": 0.9, "batch_size": 16}
    fitted = CM2.from_config({**CONFIG, "fit": fit}, say=said.append).fit(table(), out=tmp_path / "run")
    assert any(line.startswith("train 80 rows, val 0") for line in said)
    assert [record["val_log_loss"] for record in fitted.history] == [None] * 6
    assert fitted.holdout == {"subjects": [], "samples": []}
    best, last = (read(tmp_path / "run" / "checkpoints" / f"{name}.safetensors")[0] for name in ("best", "last"))
    assert all(torch.equal(tensor, last[f"average.{name}"]) for name, tensor in best.items())


def test_a_fit_on_all_rows_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    fit = {"validation": 0, "epochs": 2, "batch_size": 16}
    CM2.from_config({**CONFIG, "fit": fit}).fit(table(), out=tmp_path / "run")
    longer = CM2.from_config({**CONFIG, "fit": {**fit, "epochs": 4}}).fit(table(), out=tmp_path / "run", resume=True)
    whole = CM2.from_config({**CONFIG, "fit": {**fit, "epochs": 4}}).fit(table())
    assert [record["epoch"] for record in longer.history] == [1, 2, 3, 4]
    for name, tensor in whole.program.state_dict().items():
        assert torch.equal(tensor, longer.program.state_dict()[name]), name

"""Ensembles: members are the fits that their seeds give alone, and predictions are averaged."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError
from cm2pyro.inference.predict import predict
from tests.inference.fits import CutError

N = 160


def config(**fit: float) -> dict:
    return {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 8} for name in ("a", "b")},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 8},
        "fit": {"epochs": 2, "batch_size": 32, "lr": 0.01, "seed": 3, **fit},
    }


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(N, 2, 3))
    label = (random.random(N) < 1 / (1 + np.exp(-z.sum((1, 2))))).astype(int)
    gone = random.random((N, 2)) < 0.3
    columns = {name: ["" if gone[i, m] else json.dumps(z[i, m].tolist()) for i in range(N)] for m, name in enumerate(("a", "b"))}
    ids = [f"s{i}" for i in range(N)]
    split = np.where(np.arange(N) < 120, "train", "val")
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": label.astype(str), **columns})


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[CM2, Path]:
    run = tmp_path_factory.mktemp("ensemble") / "run"
    return CM2.from_config(config(ensemble=3)).fit(table, out=run), run


@pytest.mark.slow
def test_a_member_is_the_fit_of_its_seed(table: pd.DataFrame, fitted: tuple[CM2, Path]) -> None:
    ensemble, _ = fitted
    assert len(ensemble.programs) == 3
    for i, program in enumerate(ensemble.programs):
        alone = CM2.from_config(config(seed=3 + i)).fit(table)
        for name, tensor in alone.program.state_dict().items():
            assert tensor.equal(program.state_dict()[name]), name


def test_predictions_are_the_mean_of_the_members(table: pd.DataFrame, fitted: tuple[CM2, Path]) -> None:
    ensemble, _ = fitted
    dataset = ensemble.preparation.transform(read_manifest(table), labels=True)
    each = [predict([program], dataset, 20, 3) for program in ensemble.programs]
    whole = predict(ensemble.programs, dataset, 20, 3)
    means = np.stack([one.mean for one in each])
    np.testing.assert_allclose(whole.mean, means.mean(0), rtol=1e-12)
    # Law of total variance: within members and between them.
    np.testing.assert_allclose(whole.sd**2, np.mean([one.sd**2 for one in each], 0) + means.var(0), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(whole.log_score, np.log(np.exp([one.log_score for one in each]).mean(0)), rtol=1e-9)
    assert ensemble.predict(table, draws=20)["probability"].to_numpy() == pytest.approx(whole.mean[:, 1], rel=1e-12)


def test_save_and_load(table: pd.DataFrame, fitted: tuple[CM2, Path], tmp_path: Path) -> None:
    ensemble, run = fitted
    expected = ensemble.predict(table, draws=5)
    pd.testing.assert_frame_equal(CM2.load(run).predict(table, draws=5), expected)
    ensemble.save(tmp_path / "again")
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "again").predict(table, draws=5), expected)
    assert (run / "members" / "3" / "metrics.jsonl").is_file()


@pytest.mark.slow
def test_a_cut_ensemble_predicts_with_what_it_has_and_goes_on(table: pd.DataFrame, fitted: tuple[CM2, Path], tmp_path: Path) -> None:
    ensemble, _ = fitted
    seen = []

    def cut(record: dict, warnings: list[str]) -> None:
        seen.append(record["epoch"])
        if len(seen) == 4:  # the second member's last epoch
            raise CutError

    run = tmp_path / "run"
    with pytest.raises(CutError):
        CM2.from_config(config(ensemble=3)).fit(table, out=run, report=cut)
    said: list[str] = []
    assert len(CM2.load(run, say=said.append).programs) == 2
    assert any("holds 2 of 3 members" in line for line in said)
    resumed = CM2.from_config(config(ensemble=3)).fit(table, out=run, resume=True)
    pd.testing.assert_frame_equal(resumed.predict(table, draws=5), ensemble.predict(table, draws=5))
    # More members may be asked for later; a new fit leaves none behind.
    assert len(CM2.from_config(config(ensemble=4)).fit(table, out=run, resume=True).programs) == 4
    CM2.from_config(config()).fit(table, out=run, overwrite=True)
    assert not (run / "members").exists()


def test_modules_given_from_python_are_copied_as_they_came(table: pd.DataFrame) -> None:
    net = nn.Linear(3, 4)
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ensemble = CM2.from_config(config(ensemble=2, epochs=1, lr=1e-9), encoders={"a": net}).fit(table)
    weights = [dict(program.named_parameters())["guide.locals.of_a.encoder.module.weight"] for program in ensemble.programs]
    assert weights[0] is net.weight
    assert weights[1] is not net.weight
    for weight in weights:
        torch.testing.assert_close(weight, first["weight"], atol=1e-6, rtol=0)


def test_the_number_of_members_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"fit\.ensemble: Input should be greater than or equal to 1; found 0"):
        CM2.from_config(config(ensemble=0))

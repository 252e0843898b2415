"""Fits: run folders, loading, resuming, early stopping, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cm2pyro.api import CM2
from cm2pyro.errors import CheckpointError, CM2Error, ConfigError, DataError
from tests.inference.fits import CutError, cut_after, manifest, small


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(200, 3, 2)) + 2 * random.integers(0, 2, size=(200, 1, 1))
    return manifest(z, random.random((200, 3)) < 0.7, 1)


@pytest.mark.parametrize(
    "guide", [{"local": "normal"}, {"local": "delta"}, {"globals": "normal"}, {"missing": "marginal"}, {"missing": "amortized"}]
)
def test_save_load_predict_gives_identical_numbers(tmp_path: Path, table: pd.DataFrame, guide: dict) -> None:
    fitted = CM2.from_config(small(guide=guide)).fit(table, out=tmp_path / "run")
    before = fitted.predict(table)
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "run").predict(table), before, check_exact=True)
    fitted.save(tmp_path / "copy")
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "copy").predict(table), before, check_exact=True)
    assert before["probability"].nunique() > 100


def test_a_prediction_does_not_depend_on_the_other_rows(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small()).fit(table)
    together = fitted.predict(table).set_index("sample_id")
    alone = fitted.predict(table.iloc[[7]]).set_index("sample_id")
    for name in ("probability", "sd", "q05", "q95", "typicality"):
        assert alone.loc["s7", name] == pytest.approx(together.loc["s7", name], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"guide": {"local": "delta"}, "fit": {"ema": 0.9, "modality_dropout": 0.3, "schedule": "cosine", "warmup": 3}}]
)
def test_a_resumed_fit_ends_where_an_undisturbed_one_does(tmp_path: Path, table: pd.DataFrame, changes: dict) -> None:
    config = small(**changes)
    config["fit"]["epochs"] = 4
    CM2.from_config(config).fit(table, out=tmp_path / "whole")
    with pytest.raises(CutError):
        CM2.from_config(config).fit(table, out=tmp_path / "cut", report=cut_after(2))
    CM2.from_config(config).fit(table, out=tmp_path / "cut", resume=True)
    for name in ("best", "last"):
        whole, again = ((tmp_path / folder / "checkpoints" / f"{name}.safetensors").read_bytes() for folder in ("whole", "cut"))
        header = int.from_bytes(whole[:8], "little") + 8
        assert whole[header:] == again[int.from_bytes(again[:8], "little") + 8 :]
    lines = [[json.loads(x) for x in (tmp_path / f / "metrics.jsonl").read_text().splitlines()] for f in ("whole", "cut")]
    assert [{k: v for k, v in record.items() if k != "seconds"} for record in lines[0]] == [
        {k: v for k, v in record.items() if k != "seconds"} for record in lines[1]
    ]


@pytest.mark.slow
def test_resume_refuses_another_config_or_other_data_and_takes_more_epochs(tmp_path: Path, table: pd.DataFrame) -> None:
    run = tmp_path / "run"
    CM2.from_config(small()).fit(table, out=run)
    with pytest.raises(ConfigError, match=r"fit\.lr is 0\.5, and the run .* has 0\.01"):
        CM2.from_config(small(fit={"lr": 0.5})).fit(table, out=run, resume=True)
    with pytest.raises(DataError, match="not those that the run"):
        CM2.from_config(small()).fit(table.iloc[10:], out=run, resume=True)
    longer = CM2.from_config(small(fit={"epochs": 5})).fit(table, out=run, resume=True)
    assert len(longer.history) == 5
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["epochs"] == 5


@pytest.mark.slow
def test_a_module_given_from_python_is_an_encoder(tmp_path: Path, table: pd.DataFrame) -> None:
    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh())

    fitted = CM2.from_config(small(), encoders={"m1": net()}).fit(table, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="pass encoders="):
        CM2.load(tmp_path / "run")
    loaded = CM2.load(tmp_path / "run", encoders={"m1": net()})
    pd.testing.assert_frame_equal(loaded.predict(table), fitted.predict(table), check_exact=True)
    with pytest.raises(ConfigError, match="no such modality"):
        CM2.from_config(small(), encoders={"m9": net()})
    with pytest.raises(ConfigError, match="cannot read the view"):
        CM2.from_config(small(), encoders={"m1": torch.nn.Linear(7, 2)}).fit(table)
    with pytest.raises(ConfigError, match=r"\(n, width\)"):
        CM2.from_config(small(), encoders={"m1": torch.nn.Unflatten(1, (2, 1))}).fit(table)


def test_a_run_folder_holds_what_the_interface_says(tmp_path: Path, table: pd.DataFrame) -> None:
    run = tmp_path / "run"
    CM2.from_config(small()).fit(table, out=run)
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["epochs"] == 3
    env = json.loads((run / "env.json").read_text())
    assert {"python", "torch", "pyro-ppl", "seed", "device"} <= set(env)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {"epoch", "elbo", "outcome", "kl", "val_log_loss", "val_auroc", "effective_components", "tau", "seconds"}
    assert len(records) == 3
    assert all(keys <= set(record) for record in records)
    assert set(records[0]["effective_components"]) == {"m0", "m1", "m2"}
    assert not list(run.rglob("*.pkl"))
    assert not list(run.rglob("*.pt"))


@pytest.mark.slow
def test_early_stopping_keeps_the_best_epoch(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small(fit={"epochs": 60, "patience": 2, "lr": 0.05})).fit(table)
    losses = [record["val_log_loss"] for record in fitted.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 60
    val = fitted.evaluate(table, split="val", bootstrap=0, draws=20)
    assert val.metrics["log_loss"]["value"] == pytest.approx(losses[best], abs=1e-6)


@pytest.mark.slow
def test_a_second_start_moves_the_mixture_and_keeps_an_earlier_best(table: pd.DataFrame) -> None:
    """An overfitting fit is at its best before the second start, which must not touch what was kept."""
    settings = {"epochs": 16, "lr": 0.1, "patience": 50, "warmup": 15}
    plain = CM2.from_config(small(fit={**settings, "warmup": 0})).fit(table)
    again = CM2.from_config(small(fit=settings)).fit(table)
    assert plain.history[13] | {"seconds": 0} == again.history[13] | {"seconds": 0}
    assert plain.history[15]["tau"] != again.history[15]["tau"]
    losses = [record["val_log_loss"] for record in again.history]
    assert int(np.argmin(losses)) < 13
    assert again.evaluate(table, split="val", bootstrap=0, draws=20).metrics["log_loss"]["value"] == pytest.approx(min(losses), abs=1e-6)


def test_subjects_are_held_out_where_there_is_no_val(tmp_path: Path, table: pd.DataFrame) -> None:
    data = table.assign(split="train", subject_id=[f"p{i // 2}" for i in range(len(table))])
    said: list[str] = []
    fitted = CM2.from_config(small(), say=said.append).fit(data, out=tmp_path / "run")
    held = json.loads((tmp_path / "run" / "holdout.json").read_text())
    assert len(held["subjects"]) == 20
    assert len(held["samples"]) == 40
    assert any("held out" in line for line in said)
    assert fitted.holdout == held


def test_refusals(tmp_path: Path, table: pd.DataFrame) -> None:
    model = CM2.from_config(small())
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="has not been fitted"):
        model.predict(table)
    with pytest.raises(CheckpointError, match="no run folder"):
        CM2.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        model.fit(table, out=run, resume=True)
    with pytest.raises(DataError, match="no row has split 'train'"):
        model.fit(table.assign(split="val"), out=run)
    with pytest.raises(DataError, match="subject_id"):
        model.fit(table.drop(columns="subject_id"), out=run)
    with pytest.raises(DataError, match="missing in every training row"):
        model.fit(table.assign(m1=""), out=run)
    assert not run.exists()
    model.fit(table, out=run)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        model.fit(table, out=run)
    with pytest.raises(DataError, match="label is '7'"):
        CM2.from_config(small()).fit(table.assign(label="7"), out=run, overwrite=True)
    # A refused fit leaves the earlier run as it was.
    assert (run / "metrics.jsonl").read_bytes() == before
    last = run / "checkpoints" / "best.safetensors"
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cut short"):
        CM2.load(run)


def test_a_loss_that_is_not_finite_stops_the_fit(table: pd.DataFrame) -> None:
    with pytest.raises(CM2Error, match="no longer finite"):
        CM2.from_config(small(fit={"lr": 1e30, "clip": 1e30})).fit(table)


@pytest.mark.slow
def test_modalities_may_have_the_names_of_methods(table: pd.DataFrame) -> None:
    data = table.rename(columns={"m0": "keys", "m1": "type", "m2": "forward"})
    config = small()
    config["modalities"] = {name: {"kind": "embedding", "encoder": "mlp"} for name in ("keys", "type", "forward")}
    assert len(CM2.from_config(config).fit(data).predict(data)) == len(data)


@pytest.mark.slow
def test_multiclass(tmp_path: Path, table: pd.DataFrame) -> None:
    random = np.random.default_rng(0)
    data = table.assign(label=random.choice(["low", "mid", "high"], len(table)))
    fitted = CM2.from_config(small(task={"type": "multiclass"})).fit(data, out=tmp_path / "run")
    frame = CM2.load(tmp_path / "run").predict(data)
    assert list(frame.columns[:4]) == ["sample_id", "probability_high", "probability_low", "probability_mid"]
    np.testing.assert_allclose(frame.filter(like="probability_").sum(axis=1), 1, atol=1e-6)
    assert fitted.evaluate(data, bootstrap=10).metrics["auroc"]["value"] is not None


@pytest.mark.slow
def test_predict_without_labels_splits_and_a_modality(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small()).fit(table)
    frame = fitted.predict(table[["sample_id", "m0", "m1"]])
    assert len(frame) == len(table)
    assert all("m2" in missing.split(";") for missing in frame["missing"])
    nothing = frame["observed"] == ""
    assert nothing.any()
    assert frame.loc[nothing, "typicality"].isna().all()
    assert frame.loc[~nothing, "typicality"].between(0, 100).all()
    assert np.ptp(frame.loc[nothing, "probability"]) < 1e-6  # rows of one batch, added up in another order by older torch
    assert (frame["q05"] <= frame["probability"]).mean() > 0.95
    with pytest.raises(DataError, match="label"):
        fitted.evaluate(table[["sample_id", "m0"]])

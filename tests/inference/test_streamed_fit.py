"""Fits, predictions and metrics of shards are those of the manifest that they were made from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.data.shards import dataset as streamed
from cm2pyro.data.shards.write import write_shards
from cm2pyro.errors import ConfigError, DataError
from tests.inference.fits import manifest, small

pytestmark = pytest.mark.slow

CONFIG = small(fit={"epochs": 2})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """manifest.csv of 200 rows in three modalities, 30 of them val and 40 test; one (one shard a split), many (16 rows a shard)."""
    folder = tmp_path_factory.mktemp("streamed")
    random = np.random.default_rng(0)
    z = random.normal(size=(200, 3, 2)) + 2 * random.integers(0, 2, size=(200, 1, 1))
    frame = manifest(z, random.random((200, 3)) < 0.7, 1)
    frame["split"] = ["train"] * 130 + ["val"] * 30 + ["test"] * 40
    frame["ward"] = np.where(np.arange(200) % 3 == 0, "a", "b")
    frame.to_csv(folder / "manifest.csv", index=False)
    for name, rows in (("one", 1000), ("many", 16)):
        write_shards(folder / "manifest.csv", folder / name, [], None, rows)
    return folder


def weights(model: CM2) -> dict[str, torch.Tensor]:
    return model.program.state_dict()


def assert_equal(a: CM2, b: CM2) -> None:
    for name, value in weights(a).items():
        assert torch.equal(value, weights(b)[name]), name


@pytest.fixture(scope="module")
def model(place: Path) -> CM2:
    return CM2.from_config(CONFIG).fit(place / "manifest.csv")


def test_a_fit_to_one_shard_has_the_same_bits(place: Path, model: CM2) -> None:
    found = CM2.from_config(CONFIG).fit(place / "one")
    assert_equal(found, model)
    drop = {"seconds"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in found.history] == [
        {k: v for k, v in r.items() if k not in drop} for r in model.history
    ]


def test_a_fit_to_many_shards_in_one_window_agrees_to_rounding(place: Path, model: CM2) -> None:
    found = CM2.from_config(CONFIG).fit(place / "many")
    for name, value in weights(found).items():
        torch.testing.assert_close(value, weights(model)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("update", ["joint", "ifm"])
def test_a_fit_in_several_windows_learns_and_resumes_to_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: str
) -> None:
    monkeypatch.setattr(streamed.StreamedDataset, "window_rows", 48)
    config = small(fit={"epochs": 4}, prior={"copula": {"update": update}})
    whole = CM2.from_config(config).fit(place / "many", tmp_path / "whole")
    CM2.from_config(config, overrides=("fit.epochs=2",)).fit(place / "many", tmp_path / "cut")
    resumed = CM2.from_config(config).fit(place / "many", tmp_path / "cut", resume=True)
    assert_equal(whole, resumed)
    assert whole.history[-1]["outcome"] > whole.history[0]["outcome"]


def test_other_shards_are_not_resumed_with(place: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(place / "manifest.csv")
    frame.loc[0, "m0"] = "[9, 9]"
    frame.to_csv(tmp_path / "other.csv", index=False)
    write_shards(tmp_path / "other.csv", tmp_path / "other", [], None, 1000)
    CM2.from_config(CONFIG, overrides=("fit.epochs=1",)).fit(place / "one", tmp_path / "run")
    with pytest.raises(DataError, match="training data are not those"):
        CM2.from_config(CONFIG).fit(tmp_path / "other", tmp_path / "run", resume=True)


def test_predictions_are_those_of_the_manifest(place: Path, model: CM2, tmp_path: Path) -> None:
    whole = model.predict(place / "manifest.csv", draws=10)  # the manifest is in the order train, val, test
    pd.testing.assert_frame_equal(model.predict(place / "many", draws=10), whole, rtol=1e-5)
    assert model.predict_to(place / "many", tmp_path / "p.csv", draws=10, split="test") == 40
    read = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert read["sample_id"].tolist() == whole["sample_id"].tolist()[160:]
    np.testing.assert_allclose(read["probability"], whole["probability"][160:], rtol=1e-5)


def test_a_fault_midway_leaves_no_predictions(place: Path, model: CM2, tmp_path: Path) -> None:
    write_shards(place / "manifest.csv", tmp_path / "broken", [], None, 16)
    (tmp_path / "broken" / "val-00000" / "manifest.parquet").unlink()
    with pytest.raises(DataError, match="val-00000"):
        model.predict_to(tmp_path / "broken", tmp_path / "p.csv", draws=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_metrics_are_those_of_the_manifest(place: Path, model: CM2, task: str) -> None:
    fitted = model if task == "binary" else CM2.from_config(CONFIG | {"task": {"type": task}}).fit(place / "manifest.csv")
    asked = {"missing": ("mcar:0.5", "only:m1"), "bootstrap": 20, "draws": 5, "patterns": True, "by": ("ward",)}
    whole = fitted.evaluate(place / "manifest.csv", **asked).metrics
    assert fitted.evaluate(place / "one", **asked).metrics == whole
    # Other batches round otherwise, and rows that tie in memory, such as those without a modality, may then be ranked.
    many = fitted.evaluate(place / "many", **asked).metrics
    metric = "log_loss" if task == "binary" else "rmse"
    for found, expected in ((many, whole), *((many["missing"][m], whole["missing"][m]) for m in asked["missing"])):
        assert found["n"] == expected["n"]
        assert found[metric]["value"] == pytest.approx(expected[metric]["value"], rel=1e-4)
        assert found["patterns"].keys() == expected["patterns"].keys()
        assert found["by"]["ward"].keys() == expected["by"]["ward"].keys()


def test_a_sample_of_rows_is_evaluated_and_said(place: Path, model: CM2) -> None:
    said: list[str] = []
    model.say = said.append
    try:
        assert model.evaluate(place / "many", bootstrap=0, draws=2, rows=25).metrics["n"] == 25
    finally:
        model.say = lambda line: None
    assert any("25 of 40 rows" in line for line in said)


def test_what_needs_all_rows_is_refused(place: Path, model: CM2) -> None:
    settled = small(guide={"globals": "normal"}, fit={"settle": True})
    for config in (small(guide={"globals": "nuts"}), settled, small(missingness={"mask": "mcar:0.5"})):
        with pytest.raises(ConfigError, match="all rows in memory"):
            CM2.from_config(config).fit(place / "one")
    with pytest.raises(ConfigError, match="depends on all rows"):
        model.evaluate(place / "one", missing=("mar:0.5",))
    with pytest.raises(ConfigError, match="delta: needs all rows"):
        model.evaluate(place / "one", delta=(0.0, 1.0))
    with pytest.raises(DataError, match="is a folder of shards"):
        model.impute(place / "one")


def test_tasks_stream(place: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(place / "manifest.csv", dtype=str, keep_default_na=False)
    frame["grade"] = np.array(["low", "mid", "high"])[np.arange(200) % 3]
    frame["los"] = (np.arange(200) * 0.1).astype(str)
    frame.loc[::7, ["grade", "los"]] = ""
    frame.to_csv(tmp_path / "m.csv", index=False)
    write_shards(tmp_path / "m.csv", tmp_path / "shards", [], None, 16)
    tasks = ({"type": "multiclass", "label": "grade"}, {"type": "regression", "label": "los"}, {"type": "multilabel", "labels": ["label"]})
    for task in tasks:
        whole = CM2.from_config(CONFIG | {"task": task}, overrides=("fit.epochs=1",)).fit(tmp_path / "m.csv")
        found = CM2.from_config(CONFIG | {"task": task}, overrides=("fit.epochs=1",)).fit(tmp_path / "shards")
        assert found.classes == whole.classes
        assert found.history[0]["val_log_loss"] == pytest.approx(whole.history[0]["val_log_loss"], rel=1e-4)

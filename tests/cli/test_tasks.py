"""fit, predict, evaluate and data check for several labels and for numbers, as a user types them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.cli.commands import call, done, refused

LABELS = ["label_sepsis", "label_shock", "label_rare"]
TASKS = {"multilabel": {"type": "multilabel", "labels": LABELS}, "regression": {"type": "regression", "label": "los"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.csv, a config for each task, and a run of each."""
    folder = tmp_path_factory.mktemp("outcomes")
    random = np.random.default_rng(0)
    n = 80
    age, given = random.integers(20, 90, n), random.normal(size=(n, 2))
    risk = (age - 55) / 20 + given[:, 0]
    columns = {
        "sample_id": [f"{i:03}" for i in range(n)],
        "subject_id": [f"p{i // 2}" for i in range(n)],
        "split": np.where(np.arange(n) < 50, "train", np.where(np.arange(n) < 60, "val", "test")),
        "los": ["" if i % 9 == 8 else f"{v:.2f}" for i, v in enumerate(np.exp(0.5 * risk + 0.1 * random.normal(size=n)))],
        "label_sepsis": (risk > 0).astype(int),
        "label_shock": ["" if i % 5 == 4 else str(int(v < -0.5)) for i, v in enumerate(risk)],
        "label_rare": ["1" if i == 77 else "0" for i in range(n)],
        "age": age,
        "given": ["" if random.random() < 0.3 else json.dumps(row.tolist()) for row in given],
    }
    pd.DataFrame(columns).to_csv(folder / "manifest.csv", index=False)
    for name, task in TASKS.items():
        config = {
            "task": task,
            "modalities": {
                "age": {"kind": "tabular", "encoder": "mlp", "columns": ["age"], "hidden": 4},
                "given": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
            },
            "latent": {"dim": 2},
            "prior": {"components": 2},
            "fusion": {"kind": "mlp", "hidden": 4},
            "fit": {"epochs": 2, "batch_size": 16},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        done("fit", folder / f"{name}.yaml", "--data", folder / "manifest.csv", "--out", folder / name)
    return folder


def test_fit_says_what_it_did(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "fit", made / "multilabel.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "m")
    assert code == 0
    assert "warning: label 'label_rare' is 0 in every training row that has it; it can only learn that base rate" in out
    assert "val log-loss" in out
    code, out, _ = call(capsys, "fit", made / "regression.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "r")
    assert code == 0
    assert "5 training rows have no label: they inform the latents only" in out
    assert "AUROC –" in out
    record = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["val_auroc"] is None
    assert np.isfinite(record["val_log_loss"])


@pytest.mark.slow
def test_several_labels_predicted_and_evaluated(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, data = made / "multilabel", made / "manifest.csv"
    assert call(capsys, "predict", run, "--data", data, "--out", tmp_path / "p.csv")[0] == 0
    frame = pd.read_csv(tmp_path / "p.csv")
    assert frame.columns[1:4].tolist() == [f"probability_{name}" for name in LABELS]
    for name in LABELS:
        assert (frame[f"q05_{name}"] <= frame[f"q95_{name}"]).all()
        assert frame[f"probability_{name}"].between(0, 1).all()
    arguments = ["evaluate", run, "--data", data, "--out", tmp_path / "m.json", "--bootstrap", 20, "--patterns"]
    code, out, err = call(capsys, *arguments, "--missing", "without:given", "--figure", tmp_path / "f.png")
    assert code == 0, err
    assert "as observed: n 20, auroc" in out
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["labels"]["label_shock"]["n"] == 16
    assert metrics["labels"]["label_rare"]["prevalence"] == pytest.approx(1 / 20)
    assert set(metrics["missing"]["without:given"]["patterns"]) == {"age"}
    assert (tmp_path / "f.png").stat().st_size > 1000


@pytest.mark.slow
def test_numbers_predicted_and_evaluated(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, data = made / "regression", made / "manifest.csv"
    assert call(capsys, "predict", run, "--data", data, "--out", tmp_path / "p.csv")[0] == 0
    frame = pd.read_csv(tmp_path / "p.csv")
    spread = ["sd_missing", "sd_encoder", "sd_global", "sd_noise", "pays_most", "reduction_age", "reduction_given"]
    assert frame.columns.tolist() == ["sample_id", "mean", "sd", "q05", "q95", "typicality", "observed", "missing", *spread]
    parts = frame[["sd_missing", "sd_encoder", "sd_global", "sd_noise"]]
    np.testing.assert_allclose((parts**2).sum(axis=1), frame["sd"] ** 2, rtol=1e-9)
    assert ((frame["q05"] < frame["mean"]) & (frame["mean"] < frame["q95"])).all()
    arguments = ["evaluate", run, "--data", data, "--out", tmp_path / "m.json", "--bootstrap", 20, "--patterns"]
    code, out, err = call(capsys, *arguments, "--missing", "mcar:1", "--figure", tmp_path / "f.png")
    assert code == 0, err
    assert "rmse" in out
    assert "coverage" in out
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert set(metrics["missing"]["mcar:1"]["patterns"]) == {"none"}
    assert metrics["n"] == 18  # two of the twenty have no label
    assert metrics["rmse"]["low"] <= metrics["rmse"]["value"] <= metrics["rmse"]["high"]
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_labels_are_needed_to_fit_and_evaluate_only(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bare = made / "bare.csv"
    pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)[["sample_id", "age"]].to_csv(bare, index=False)
    for name, column in (("multilabel", "label_sepsis"), ("regression", "los")):
        assert call(capsys, "predict", made / name, "--data", bare, "--out", tmp_path / "p.csv")[0] == 0
        code, out, _ = call(capsys, "data", "check", bare, "--config", made / f"{name}.yaml")
        assert code == 0
        assert f"labels: no column '{column}'; enough to predict" in out
        assert f"column '{column}' is missing" in refused(capsys, 1, "evaluate", made / name, "--data", bare, "--out", tmp_path / "m.json")


@pytest.mark.parametrize(
    ("task", "cells", "says"),
    [
        ("multilabel", {"label_shock": "2"}, "row 3 (sample_id 001), column 'label_shock': label is '2'; expected one of 0, 1 or empty"),
        ("multilabel", {"label_shock": "nan"}, "column 'label_shock': label is 'nan'"),
        ("regression", {"los": "two days"}, "row 3 (sample_id 001), column 'los': label is 'two days'; expected a finite number or empty"),
        ("regression", {"los": "inf"}, "label is 'inf'; expected a finite number"),
    ],
)
def test_refused_labels(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, task: str, cells: dict[str, str], says: str
) -> None:
    frame = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)
    frame.loc[1, list(cells)] = list(cells.values())
    frame.to_csv(tmp_path / "bad.csv", index=False)
    for arguments in (
        ["fit", made / f"{task}.yaml", "--data", tmp_path / "bad.csv", "--out", tmp_path / "run"],
        ["data", "check", tmp_path / "bad.csv", "--config", made / f"{task}.yaml"],
        ["evaluate", made / task, "--data", tmp_path / "bad.csv", "--split", "train", "--out", tmp_path / "m.json"],
    ):
        assert says in refused(capsys, 1, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


@pytest.mark.parametrize(
    ("task", "column", "value", "says"),
    [
        ("multilabel", "label_shock", "", "column 'label_shock': empty in every training row"),
        ("regression", "los", "3", "every training label is 3; expected numbers that differ"),
        ("regression", "los", "", "no training row has a label"),
    ],
)
def test_training_labels_that_teach_nothing_are_refused(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, task: str, column: str, value: str, says: str
) -> None:
    frame = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)
    frame.loc[frame["split"] == "train", column] = value
    frame.to_csv(tmp_path / "bad.csv", index=False)
    assert says in refused(capsys, 1, "fit", made / f"{task}.yaml", "--data", tmp_path / "bad.csv", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Recalibration, subgroups and challenge scores as a user types them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cm2pyro.api import CM2
from tests.cli.commands import done, refused

pytestmark = pytest.mark.slow

CONFIG = {
    "modalities": {
        "static": {"kind": "tabular", "encoder": "mlp", "table": "static.csv", "hidden": 4},
        "given": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
    },
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "layers": 0},
    "fit": {"epochs": 3, "batch_size": 64},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, a table, a config and a run without recalibration."""
    folder = tmp_path_factory.mktemp("recalibrate")
    rng = np.random.default_rng(0)
    n = 240
    age, x = rng.integers(20, 90, n), rng.normal(size=(n, 2))
    labels = (rng.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
    pd.DataFrame({"sample_id": [f"{i:03}" for i in range(n)], "age": age}).to_csv(folder / "static.csv", index=False)
    frame = pd.DataFrame(
        {
            "sample_id": [f"{i:03}" for i in range(n)],
            "subject_id": [f"p{i}" for i in range(n)],
            "split": ["train"] * 120 + ["val"] * 60 + ["test"] * 60,
            "label": labels,
            "sex": rng.choice(["f", "m", ""], n),
            "given": [json.dumps(row) if rng.random() < 0.8 else "" for row in x.tolist()],
        }
    )
    frame.to_csv(folder / "manifest.csv", index=False)
    frame.assign(split=["train"] * 180 + ["test"] * 60).to_csv(folder / "no_val.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done("fit", folder / "config.yaml", "--data", folder / "manifest.csv", "--out", folder / "run")
    return folder


def predictions(folder: Path, fit: Path) -> pd.DataFrame:
    done("predict", fit, "--data", folder / "manifest.csv", "--out", folder / "p.csv")
    return pd.read_csv(folder / "p.csv")


def test_subgroups_of_a_manifest_column_and_of_a_table(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [made / "run", "--data", made / "manifest.csv", "--out", tmp_path / "m.json", "--bootstrap", 10]
    done("evaluate", *arguments, "--by", "sex", "--by", "static.age", "--missing", "only:given")
    assert "sex missing: n " in capsys.readouterr().out
    found = json.loads((tmp_path / "m.json").read_text())
    for metrics in (found, found["missing"]["only:given"]):
        assert set(metrics["by"]["sex"]) == {"f", "m", "missing"}
        assert len(metrics["by"]["static.age"]) == 4
        for groups in metrics["by"].values():
            assert sum(group["n"] for group in groups.values()) == 60
            assert all({"auroc", "ece", "calibration_slope"} <= set(group) for group in groups.values())
    manifest = pd.read_csv(made / "manifest.csv", dtype=str).query("split == 'test'")
    assert found["by"]["sex"]["f"]["prevalence"] == pytest.approx(manifest.query("sex == 'f'")["label"].astype(int).mean())
    line = refused(capsys, 1, "evaluate", *arguments, "--by", "sexx")
    assert "did you mean 'sex'" in line


def test_recalibrate_bends_predictions_and_evaluations(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = predictions(made, made / "run")
    arguments = [made / "run", "--data", made / "manifest.csv", "--out", tmp_path / "m.json", "--bootstrap", 10]
    line = refused(capsys, 2, "evaluate", *arguments, "--challenge", "physionet2012")
    assert "cm2pyro recalibrate" in line
    try:
        done("recalibrate", made / "run", "--data", made / "manifest.csv")
        out = capsys.readouterr().out
        assert "60 rows with split 'val'" in out
        assert "recalibration temperature on 60 rows: log-loss" in out
        stored = json.loads((made / "run" / "recalibration.json").read_text())
        after = predictions(made, made / "run")
        logit = np.log(before["probability"] / (1 - before["probability"])) / stored["parameters"][0][0]
        assert after["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-logit.to_numpy())), abs=1e-6)
        assert (after["q05"] <= after["q95"]).all()
        done("evaluate", *arguments, "--challenge", "physionet2012", "--figure", tmp_path / "a.png")
        found = json.loads((tmp_path / "m.json").read_text())["challenge"]
        assert found["threshold"] == stored["threshold"]
        test = pd.read_csv(made / "manifest.csv")["split"].eq("test")
        labels, p = pd.read_csv(made / "manifest.csv")["label"][test], after["probability"][test]
        called = p >= stored["threshold"]
        assert found["event1"]["value"] == pytest.approx(min(labels[called].sum() / labels.sum(), labels[called].mean()))
        # A second recalibration is fitted to the fit itself, not on top of the first.
        done("recalibrate", made / "run", "--data", made / "manifest.csv")
        assert json.loads((made / "run" / "recalibration.json").read_text()) == stored
        (made / "run" / "recalibration.json").write_text("{")
        assert "recalibration.json" in refused(capsys, 1, "predict", made / "run", "--data", made / "manifest.csv", "--out", tmp_path / "p")
    finally:
        (made / "run" / "recalibration.json").unlink(missing_ok=True)
    assert predictions(made, made / "run").equals(before)


def test_fit_recalibrates_and_the_run_keeps_it(made: Path, tmp_path: Path) -> None:
    config = CONFIG | {"fit": CONFIG["fit"] | {"recalibration": "isotonic", "epochs": 1}}
    model = CM2.from_config(config).fit(made / "no_val.csv")
    model.save(tmp_path / "run")
    loaded = CM2.load(tmp_path / "run")
    assert loaded.recalibration == model.recalibration
    assert loaded.recalibration.rows == len(loaded.holdout["samples"])
    expected = model.predict(made / "manifest.csv")
    pd.testing.assert_frame_equal(loaded.predict(made / "manifest.csv"), expected)
    kept = loaded.recalibration
    assert loaded.recalibrate(made / "no_val.csv", "isotonic") == kept  # the rows that the fit held out
    assert loaded.recalibrate(made / "no_val.csv", "none").recalibrator is None
    assert loaded.predict(made / "manifest.csv")["probability"].nunique() > expected["probability"].nunique()


def test_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made / "manifest.csv"
    fit = ["fit", made / "config.yaml", "--data", data, "--out", tmp_path / "r", "--set"]
    assert "did you mean 'isotonic'" in refused(capsys, 2, *fit, "fit.recalibration=isotnic")
    line = refused(capsys, 2, *fit, "fit.recalibration=isotonic", "--set", "task.type=multiclass")
    assert "isotonic is for tasks binary, multilabel" in line
    assert "a regression has none" in refused(capsys, 2, *fit, "fit.recalibration=temperature", "--set", "task.type=regression")
    one_class = pd.read_csv(data, dtype=str, keep_default_na=False)
    one_class.loc[one_class["split"] == "val", "label"] = "0"
    one_class.to_csv(made / "one_class.csv", index=False)
    fit[3] = made / "one_class.csv"
    assert "none has two values" in refused(capsys, 1, *fit, "fit.recalibration=temperature")
    assert "none has two values" in refused(capsys, 1, "recalibrate", made / "run", "--data", made / "one_class.csv")
    assert "did you mean 'temperature'" in refused(capsys, 2, "recalibrate", made / "run", "--data", data, "--method", "temprature")
    assert not (tmp_path / "r").exists()
    assert not (made / "run" / "recalibration.json").exists()

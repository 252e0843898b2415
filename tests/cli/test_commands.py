"""fit, predict, evaluate and data check as a user types them; every refusal one line, with its exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cm2pyro.inference import run as run_folder
from tests.cli.commands import call, done, refused

CONFIG = {
    "modalities": {
        "series": {"kind": "timeseries", "encoder": "lstm", "hours": 8, "hidden": 4},
        "age": {"kind": "tabular", "encoder": "mlp", "columns": ["age", "sex"], "hidden": 4},
        "given": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
    },
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "hidden": 4},
    "fit": {"epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.yaml, manifest.csv with its series, and a finished run."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    (folder / "series").mkdir()
    rows = []
    for i in range(60):
        series = ""
        if random.random() < 0.8:
            series = f"series/{i:03}.csv"
            hours = np.sort(random.uniform(0, 8, 6))
            pd.DataFrame({"hours": hours, "hr": random.normal(80, 9, 6), "map": random.normal(70, 9, 6)}).to_csv(
                folder / series, index=False
            )
        given = json.dumps(random.normal(size=3).tolist()) if random.random() < 0.7 else ""
        rows.append(
            {
                "sample_id": f"{i:03}",
                "subject_id": f"p{i // 2}",
                "split": "train" if i < 40 else "val" if i < 50 else "test",
                "label": str(i % 2),
                "age": str(random.integers(20, 90)),
                "sex": random.choice(["f", "m"]),
                "series": series,
                "given": given,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done("fit", folder / "config.yaml", "--data", folder / "manifest.csv", "--out", folder / "run")
    return folder


@pytest.mark.slow
def test_fit_reports_every_epoch_and_the_split_it_used(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = call(capsys, "fit", made / "config.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "run", "--seed", 3)
    assert code == 0
    assert "train 40 rows, val 10" in out
    for piece in ("epoch 1/2", "epoch 2/2", "elbo", "outcome", "kl", "val log-loss", "AUROC", "components series", "tau series~age"):
        assert piece in out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["fit"]["seed"] == 3


def test_predict_and_evaluate_say_which_rows(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_file = tmp_path / "predictions.csv"
    code, out, _ = call(capsys, "predict", made / "run", "--data", made / "manifest.csv", "--out", out_file)
    assert code == 0
    assert "every row" in out
    frame = pd.read_csv(out_file, dtype={"sample_id": str})
    assert frame["sample_id"].tolist() == [f"{i:03}" for i in range(60)]
    code, out, _ = call(capsys, "predict", made / "run", "--data", made / "manifest.csv", "--out", out_file, "--split", "val")
    assert code == 0
    assert len(pd.read_csv(out_file)) == 10
    metrics = tmp_path / "metrics.json"
    arguments = ["evaluate", made / "run", "--data", made / "manifest.csv", "--out", metrics, "--bootstrap", 20, "--patterns"]
    code, out, _ = call(capsys, *arguments, "--missing", "only:series", "--missing", "mcar:0.5", "--figure", tmp_path / "a.png")
    assert code == 0
    assert "10 rows with split 'test'" in out
    read = json.loads(metrics.read_text())
    assert read["n"] == 10
    assert set(read["missing"]) == {"only:series", "mcar:0.5"}
    assert set(read["missing"]["only:series"]["patterns"]) <= {"series", "none"}
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_predict_takes_a_manifest_without_labels_splits_subjects_and_modalities(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bare = made / "bare.csv"
    pd.read_csv(made / "manifest.csv", dtype=str)[["sample_id", "age", "sex"]].to_csv(bare, index=False)
    code, _, err = call(capsys, "predict", made / "run", "--data", bare, "--out", tmp_path / "p.csv")
    assert code == 0, err
    frame = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert set(frame["missing"]) == {"series;given"}
    assert call(capsys, "data", "check", bare, "--config", made / "config.yaml")[0] == 0


def test_data_check_describes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "data", "check", made / "manifest.csv", "--config", made / "config.yaml")
    assert code == 0
    assert "60 rows, 30 subjects" in out
    assert "labels in 'label': 0 30, 1 30, empty 0" in out
    assert "modality age: 60 of 60 rows" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": {"type": "binry"}}, "task.type"),
        ({"task": {"type": "multilabel"}}, "multilabel needs the columns of its labels"),
        ({"fit": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"fits": {}}, "did you mean 'fit'"),
        ({"beta": 1}, "did you mean 'fit.beta'"),
        ({"fit": {"beta": 0}}, "fit.beta"),
        ({"fit": {"lr": ".nan"}}, "fit.lr"),
        ({"fusion": {"kind": "lstmm"}}, "did you mean 'lstm'"),
        ({"fusion": {"kind": "mlp", "hiden": 3}}, "did you mean 'hidden'"),
        ({"guide": {"missing": "conditonal"}}, "guide.missing"),
        ({"prior": {"copula": {"family": "gausian"}}}, "did you mean 'gaussian'"),
        ({"prior": {"coupling": "full", "components": 40}}, "joint components"),
        ({"priors": {"locs": {"dist": "Norml", "loc": 0, "scale": 1}}}, "did you mean 'Normal'"),
        ({"priors": {"locs": {"dist": "Normal", "loc": 0, "scal": 1}}}, "did you mean 'scale'"),
        ({"priors": {"locs": {"dist": "Normal", "loc": 0, "scale": -1}}}, "priors.locs"),
        ({"priors": {"scales": {"dist": "Normal", "loc": 0, "scale": 1}}}, "priors.scales.*support"),
        ({"priors": {"weights": {"dist": "Dirichlet", "concentration": [1, 1, 1]}}}, "priors.weights.*shape"),
        ({"priors": {"copula": {"dist": "Normal", "loc": 0, "scale": 1}}}, "priors.copula.*support"),
        ({"modalities": {"series": {"encoder": "lstmm"}}}, "did you mean 'lstm'"),
        ({"modalities": {"series": {"hiden": 3}}}, "did you mean 'hidden'"),
        ({"modalities": {"series": {"hidden": "many"}}}, "hidden"),
        ({"modalities": {"age": {"encoder": "lstm"}}}, "cannot read kind tabular"),
        ({"modalities": {"age": {"hours": 3}}}, "hours"),
        ({"modalities": {"given": {"encoder": "identity", "hidden": None}}}, "latent.dim"),
        ({"modalities": {"given": {"kind": "image"}}}, "'mlp' cannot read kind image; use one of cnn, resnet34"),
    ],
)
def test_config_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, expected: str) -> None:
    config = json.loads(json.dumps(CONFIG))
    for section, values in change.items():
        if section == "modalities":
            for name, keys in values.items():
                merged = {**config["modalities"][name], **keys}
                config["modalities"][name] = {key: value for key, value in merged.items() if value is not None}
        elif isinstance(values, dict):
            config.setdefault(section, {}).update(values)
        else:
            config[section] = values
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False).replace("'.nan'", ".nan"))
    line = refused(capsys, 2, "fit", path, "--data", made / "manifest.csv", "--out", tmp_path / "run")
    assert re.search(expected, line), line
    assert not (tmp_path / "run").exists()


def edited(made: Path, name: str, edit: object) -> Path:
    """A copy of the manifest beside the original, changed."""
    frame = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)
    path = made / f"{name}.csv"
    edit(frame).to_csv(path, index=False)  # type: ignore[operator]
    return path


def at(row: int, column: str, value: str):
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("duplicate", at(3, "sample_id", "002"), "row 5.*002"),
        ("two_splits", at(1, "split", "test"), "row 3.*p0"),
        ("split", at(1, "split", "dev"), "row 3.*dev"),
        ("outside", at(5, "series", "../manifest.csv"), "row 7.*leaves"),
        ("absolute", at(5, "series", "/etc/passwd"), "row 7.*leaves"),
        ("absent", at(5, "series", "series/none.csv"), "row 7.*none.csv"),
        ("folder", at(5, "series", "series"), "row 7.*not a file"),
        ("label", at(2, "label", "2"), "row 4.*label"),
        ("vector", at(2, "given", "[1, x]"), "row 4.*given"),
        ("width", at(2, "given", "[1]"), "row 4.*given"),
        ("no_label", lambda f: f.drop(columns="label"), "label"),
        ("no_split", lambda f: f.drop(columns="split"), "split"),
        ("no_subject", lambda f: f.drop(columns="subject_id"), "subject_id"),
        ("no_id", lambda f: f.drop(columns="sample_id"), "sample_id"),
        ("all_missing", lambda f: f.assign(given=""), "given.*missing in every training row"),
        ("one_class", lambda f: f.assign(label="0"), "no training row has the label 1"),
        ("nobody", lambda f: f.iloc[:0], "no rows"),
    ],
)
def test_manifest_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, edit: object, expected: str) -> None:
    path = edited(made, name, edit)
    line = refused(capsys, 1, "fit", made / "config.yaml", "--data", path, "--out", tmp_path / "run")
    assert re.search(expected, line), line
    assert path.name in line
    assert not (tmp_path / "run").exists()


def test_command_line_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, data, run = made / "config.yaml", made / "manifest.csv", made / "run"
    assert "nothing.yaml" in refused(capsys, 2, "fit", tmp_path / "nothing.yaml", "--data", data, "--out", tmp_path / "r")
    assert "nothing.csv" in refused(capsys, 1, "fit", config, "--data", tmp_path / "nothing.csv", "--out", tmp_path / "r")
    assert "--data" in refused(capsys, 2, "fit", config, "--out", tmp_path / "r")
    assert "fitt" in refused(capsys, 2, "fitt")
    assert "--epochs" in refused(capsys, 2, "fit", config, "--data", data, "--out", tmp_path / "r", "--epochs", 3)
    assert "key=value" in refused(capsys, 2, "fit", config, "--data", data, "--out", tmp_path / "r", "--set", "fit.epochs")
    assert "not empty" in refused(capsys, 2, "fit", config, "--data", data, "--out", run)
    assert "pass one" in refused(capsys, 2, "fit", config, "--data", data, "--out", run, "--resume", "--overwrite")
    assert "no checkpoint to resume" in refused(capsys, 1, "fit", config, "--data", data, "--out", tmp_path / "r", "--resume")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    assert "replaces only a run" in refused(capsys, 2, "fit", config, "--data", data, "--out", tmp_path / "precious", "--overwrite")
    assert (tmp_path / "precious" / "thesis.tex").exists()
    assert "no run folder" in refused(capsys, 1, "predict", tmp_path, "--data", data, "--out", tmp_path / "p.csv")
    assert "cannot be written" in refused(capsys, 1, "predict", run, "--data", data, "--out", tmp_path / "none" / "p.csv")
    assert "is a folder" in refused(capsys, 1, "predict", run, "--data", data, "--out", tmp_path)
    assert "mcar:0.5" in refused(capsys, 2, "evaluate", run, "--data", data, "--out", tmp_path / "m.json", "--missing", "mcar:7")
    assert "series" in refused(capsys, 2, "evaluate", run, "--data", data, "--out", tmp_path / "m.json", "--missing", "only:seres")
    assert "mnr" in refused(capsys, 2, "evaluate", run, "--data", data, "--out", tmp_path / "m.json", "--missing", "mnr:0.2")
    assert not list(tmp_path.glob("*.csv"))
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "m.json").exists()
    assert not (tmp_path / "r").exists()


def test_debug_shows_the_traceback(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = call(capsys, "--debug", "predict", tmp_path, "--data", made / "manifest.csv", "--out", tmp_path / "p.csv")
    assert "Traceback" in err
    assert err.rstrip().splitlines()[-1].startswith("error: ")


def test_overwrite_replaces_a_run_and_keeps_other_files(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", made / "config.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "run"]
    assert call(capsys, *arguments)[0] == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert call(capsys, *arguments, "--overwrite", "--set", "fit.epochs=1")[0] == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_killed_fit_goes_on_where_it_stopped(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9 in the middle; --resume ends with the numbers of an undisturbed fit."""
    arguments = [
        "fit",
        str(made / "config.yaml"),
        "--data",
        str(made / "manifest.csv"),
        "--set",
        "fit.epochs=30",
        "--set",
        "fit.patience=30",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "cm2pyro", *arguments, "--out", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    deadline = time.monotonic() + 120
    metrics = run / "metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(metrics.read_text().splitlines()) <= 30
    assert call(capsys, *arguments, "--out", run, "--resume")[0] == 0
    assert call(capsys, *arguments, "--out", tmp_path / "whole")[0] == 0
    for folder in ("killed", "whole"):
        out = tmp_path / f"{folder}.csv"
        assert call(capsys, "predict", tmp_path / folder, "--data", made / "manifest.csv", "--out", out)[0] == 0
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_two_fits_into_one_folder_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_folder.locked(tmp_path / "run"):
        line = refused(capsys, 1, "fit", made / "config.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "run")
    assert "another fit" in line

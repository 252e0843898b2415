"""What failed when a newcomer brought a hospital's export, asked for the paper's experiments, and read what came back."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.data.dataset import Dataset
from cm2pyro.diagnostics.evaluation import Evaluation
from cm2pyro.distributions import make_copula
from cm2pyro.errors import ConfigError
from cm2pyro.inference.predict import Prediction
from tests.cli.commands import call, refused

CONFIG = """
task: {type: binary, label: label}
modalities:
  vitals: {kind: timeseries, encoder: summary, table: vitals.csv, hidden: 4}
  film: {kind: image, encoder: cnn, size: 32}
  note: {kind: text, encoder: bag, table: notes.csv, vocabulary: 300}
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two patients whose tables have clock times, and no column of films yet."""
    manifest = {"sample_id": ["007", "008"], "subject_id": ["007", "008"], "split": "train", "label": [0, 1]}
    pd.DataFrame(manifest).to_csv(tmp_path / "manifest.csv", index=False)
    vitals = {"sample_id": ["007"], "hours": ["21:32"], "variable": ["lactate"], "value": [1.5]}
    pd.DataFrame(vitals).to_csv(tmp_path / "vitals.csv", index=False)
    notes = {"sample_id": ["007", "008"], "hours": ["2021-01-05 14:00", "30"], "text": ["sleeps", "awake"]}
    pd.DataFrame(notes).to_csv(tmp_path / "notes.csv", index=False)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def change(path: Path, **columns: object) -> None:
    pd.read_csv(path, dtype=str).assign(**columns).to_csv(path, index=False)


def test_clock_times_are_answered_with_what_an_hour_is(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ("data", "check", export / "manifest.csv", "--config", export / "config.yaml")
    line = refused(capsys, 1, *check)
    assert "column 'hours': found '21:32'" in line
    assert "hours count from the start of the stay" in line
    change(export / "vitals.csv", hours="2")
    line = refused(capsys, 1, *check)
    assert "found '2021-01-05 14:00'" in line
    assert "hours count from the start of the stay" in line


def test_check_says_what_is_not_there_and_does_not_call_it_good(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(export / "vitals.csv", hours="2")
    change(export / "notes.csv", hours=["14", "90"])
    check = ("data", "check", export / "manifest.csv", "--config", export / "config.yaml")
    code, out, err = call(capsys, *check)
    assert code == 0, err
    assert "manifest.csv has no column 'film'; every row counts as missing" in out
    assert "modality note: the config names no hours, so notes of any hour are read, up to 90" in out
    assert out.endswith("no file is wrong; what a fit still needs is said above\n")
    (export / "films").mkdir()
    change(export / "manifest.csv", film="films")
    assert "'films' is a folder and not a file; expected one file" in refused(capsys, 1, *check)


def test_an_experiment_is_copied_with_its_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "configs", "copy", "experiments/ablations", "--out", tmp_path)[0] == 0
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.yaml")}
    assert {"simulated.yaml", "experiments/ablations.yaml", "ablations/no-copula.yaml", "ablations/fusion-lstm.yaml"} <= files


def test_a_picture_has_the_format_of_its_name(tmp_path: Path) -> None:
    from cm2pyro.diagnostics.plots import sheet

    for suffix, begins in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        with sheet(tmp_path / f"a{suffix}", "one", (3.0, 2.0)) as figure:
            figure.subplots().plot([0, 1])
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(begins)


def test_a_picture_of_no_kind_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--figure", "--delta-figure"):
        command = ("evaluate", tmp_path, "--data", "m.csv", "--out", "m.json", "--delta", "0", option, "rel.tex")
        assert "'.tex' is no kind of picture; expected .png, .pdf or .svg" in refused(capsys, 2, *command)


def of(labels: list[int], probabilities: np.ndarray) -> Evaluation:
    n = len(labels)
    names = tuple(map(str, range(n)))
    data = Dataset(("a",), {"a": {}}, torch.ones(n, 1, dtype=torch.bool), torch.tensor(labels), names, names)
    p = np.stack([1 - probabilities, probabilities], 1)
    return Evaluation("binary", ("0", "1"), data, Prediction(p, p * 0, p, p, p[:, 0]), None)


def test_few_events_and_equal_predictions_are_remarked() -> None:
    spread = np.linspace(0.1, 0.9, 40)
    assert of([0, 1] * 20, spread).remarks() == []
    few = of([0] * 37 + [1] * 3, spread).remarks()
    assert few == ["3 of 40 rows have the rarer outcome: too few for any metric here, whatever its interval"]
    (alike,) = of([0, 1] * 20, 0.4 + 1e-3 * spread).remarks()
    assert alike.startswith("predictions hardly differ from row to row")


def test_a_class_without_a_name_is_told_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match="register the class under a name first, or make it by its own from_tau"):
        make_copula("mine.amh:AMH", 2, tau=0.2)


@pytest.mark.slow
def test_what_a_prediction_and_an_evaluation_say(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "simulate", tmp_path / "sim", "--samples", 60)[0] == 0
    manifest = tmp_path / "sim" / "manifest.csv"
    fit = ("fit", root / "configs" / "simulated-embedding.yaml", "--data", manifest, "--out", tmp_path / "run", "--set", "fit.restarts=1")
    code, out, err = call(capsys, *fit, "--set", "fit.epochs=1")
    assert code == 0, err
    assert "the last epoch was the best: more may be better, --resume --set fit.epochs=2" in out
    new = pd.DataFrame({"sample_id": ["n1", "n2"], "latent_note": ["[0.1, 0.2]", ""]})
    new.to_csv(tmp_path / "new.csv", index=False)
    _, out, _ = call(capsys, "predict", tmp_path / "run", "--data", tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert "new.csv has no column 'latent_series'; every row counts as missing" in out
    assert "observed: series 0%, image 0%, note 50%; 1 of 2 rows have nothing" in out
    evaluate = ("evaluate", tmp_path / "run", "--data", manifest, "--out", tmp_path / "m.json", "--bootstrap", 10)
    _, out, _ = call(capsys, *evaluate)
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert f"n {metrics['n']} ({round(metrics['prevalence'] * metrics['n'])} with outcome 1)" in out

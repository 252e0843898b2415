"""diagnose as a user types it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cm2pyro.api import CM2
from cm2pyro.diagnostics.report.parts import Report
from tests.cli.commands import call, done, refused

pytestmark = pytest.mark.slow

NAMES = ("vitals", "labs", "notes")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.csv and a run of three epochs, whose sample ids and subjects occur nowhere else."""
    folder = tmp_path_factory.mktemp("diagnose")
    random = np.random.default_rng(0)
    n = 90
    z = random.normal(size=(n, 3))
    columns = {
        "sample_id": [f"secret-sample-{i}" for i in range(n)],
        "subject_id": [f"secret-subject-{i // 2}" for i in range(n)],
        "split": np.where(np.arange(n) < 50, "train", np.where(np.arange(n) < 60, "val", "test")),
        "label": np.where(z.sum(1) > 0.5, "<b>dead</b>", "alive & well"),
    }
    for m, name in enumerate(NAMES):
        columns[name] = ["" if m and random.random() < 0.4 else json.dumps([float(row[m])]) for row in z]
    pd.DataFrame(columns).to_csv(folder / "manifest.csv", index=False)
    config = {
        "task": {"type": "multiclass"},
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4} for name in NAMES},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"epochs": 3, "batch_size": 16},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done("fit", folder / "config.yaml", "--data", folder / "manifest.csv", "--out", folder / "run")
    return folder


def test_the_report_is_written_into_the_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in (made / "run").iterdir()}
    code, out, err = call(capsys, "diagnose", made / "run", "--data", made / "manifest.csv", "--draws", 10)
    assert code == 0, err
    assert "every row of" in out
    assert out.count("every row of") == 1
    assert out.rstrip().endswith("posterior.nc")
    assert "report.html" in out
    assert {path.name for path in (made / "run").iterdir()} == before | {"report.html", "posterior.nc"}
    html = (made / "run" / "report.html").read_text(encoding="utf-8")
    assert len(html) < 5_000_000
    assert html.count("data:image/png;base64,") > 20
    assert "secret" not in html
    assert str(made) not in html
    assert "<b>dead</b>" not in html
    assert "&lt;b&gt;dead&lt;/b&gt;" in html
    said = re.findall(r"<b>Warning\.</b> (.*?) <a", html)
    assert out.count("warning: ") == len(said)
    for title in (
        "What was fitted",
        "The copula and the data",
        "Densities at epochs",
        "Clusters across modalities",
        "Missingness patterns",
    ):
        assert f">{title}</h2>" in html


def test_a_new_fit_and_a_resumed_one_take_the_old_report_away(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("old")
    base = ["fit", made / "config.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "run"]
    assert call(capsys, *base, "--resume", "--set", "fit.epochs=4")[0] == 0
    assert not (tmp_path / "run" / "report.html").exists()
    (tmp_path / "run" / "report.html").write_text("old")
    assert call(capsys, *base, "--overwrite")[0] == 0
    assert not (tmp_path / "run" / "report.html").exists()


def texts(report: Report, level: str) -> str:
    return " ".join(finding.text for _, finding in report.findings(level))


def test_rows_and_splits(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cm2pyro.diagnostics.report import fitted, missingness, outcome

    monkeypatch.setattr("cm2pyro.diagnostics.report.build.SECTIONS", (fitted.section, outcome.section, missingness.section))
    model = CM2.load(made / "run")
    assert model.report(made / "manifest.csv", draws=5, run="r").subtitle.startswith("90 rows of manifest.csv")
    test = model.report(made / "manifest.csv", split="test", draws=5)
    assert test.subtitle.startswith("30 rows")
    assert "optimistic" not in texts(test, "note")
    assert "optimistic" in texts(model.report(made / "manifest.csv", split="train", draws=5), "note")
    bare = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)[["sample_id", "vitals"]]
    report = model.report(bare, draws=5)
    assert "None of these rows has a label." in report.sections[1].parts
    assert "tau describe" in texts(report, "note") or "tau and components describe" in texts(report, "note")
    assert model.report(made / "manifest.csv", draws=5) == model.report(made / "manifest.csv", draws=5)


def test_a_run_that_was_cut_and_has_no_snapshots_has_a_report(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    for name in ("reference.safetensors", "snapshots.safetensors"):
        (tmp_path / "run" / name).unlink()
    code, out, err = call(capsys, "diagnose", tmp_path / "run", "--data", made / "manifest.csv", "--draws", 5, "--split", "test")
    assert code == 0, err
    assert "warning: The fit was cut before its end" in out
    assert "has no snapshots" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_refused(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = made / "manifest.csv"
    assert "is no run folder" in refused(capsys, 1, "diagnose", tmp_path, "--data", data)
    assert "cannot be read" in refused(capsys, 1, "diagnose", made / "run", "--data", tmp_path / "no.csv")
    assert "--draws" in refused(capsys, 2, "diagnose", made / "run", "--data", data, "--draws", 0)
    assert "--data" in refused(capsys, 2, "diagnose", made / "run")
    assert "--split" in refused(capsys, 2, "diagnose", made / "run", "--data", data, "--split", "all")

"""Someone's own CSV, table and pictures, from the check to the report of the fit, as README and docs/own-data.md say; and usual slips."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.cli.commands import call, refused

CONFIG = """
task: {type: binary, label: label}
modalities:
  labs: {kind: timeseries, encoder: summary, table: labs.csv, hours: 48, bin_hours: 4, hidden: 8}
  film: {kind: image, encoder: cnn, size: 32}
  note: {kind: text, encoder: bag, max_tokens: 16, vocabulary: 300, hidden: 8}
  admission: {kind: tabular, encoder: mlp, table: admission.csv, columns: [age, sex], hidden: 8}
latent: {dim: 2}
prior: {components: 2}
fusion: {kind: mlp, hidden: 8}
fit: {epochs: 2, batch_size: 32}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """80 stays of 40 subjects with gaps in every modality, written as a user would, without rows `val`."""
    draw = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    rows, labs, admission = [], [], []
    for i in range(80):
        stay, ill = f"{i:03d}", int(draw.random() < 0.5)
        film = f"films/{stay}.png" if draw.random() < 0.7 else ""
        if film:
            Image.fromarray((draw.random((40, 40)) * 100 + 60 * ill).astype(np.uint8)).save(tmp_path / film)
        note = ("drowsy, short of breath" if ill else "slept well") if draw.random() < 0.5 else ""
        rows.append((stay, f"p{i // 2}", "train" if i < 60 else "test", ill, film, note))
        if draw.random() < 0.8:
            labs += [(stay, hour, "lactate", round(draw.normal(1 + ill), 2)) for hour in (1, 7.5)]
        admission.append((stay, "" if draw.random() < 0.1 else 60 + i % 7, "fm"[i % 2]))
    names = ["sample_id", "subject_id", "split", "label", "film", "note"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "manifest.csv", index=False)
    pd.DataFrame(labs, columns=["sample_id", "hours", "variable", "value"]).to_csv(tmp_path / "labs.csv", index=False)
    pd.DataFrame(admission, columns=["sample_id", "age", "sex"]).to_csv(tmp_path / "admission.csv", index=False)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def cells(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.slow
def test_from_own_files_to_the_report(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, run = study / "manifest.csv", study / "run"
    for command in (
        ("data", "check", manifest, "--config", study / "config.yaml"),
        ("fit", study / "config.yaml", "--data", manifest, "--out", run),
        ("predict", run, "--data", manifest, "--split", "test", "--out", study / "predictions.csv"),
        ("diagnose", run, "--data", manifest, "--draws", 20),
    ):
        code, out, err = call(capsys, *command)
        assert code == 0, err
        if command[0] == "data":
            assert "splits: train 60, val 0, test 20" in out
            assert "categories" not in out
            assert out.endswith("no problem found\n")
    given, made = cells(manifest).query("split == 'test'"), cells(study / "predictions.csv")
    assert made["sample_id"].tolist() == given["sample_id"].tolist()
    assert made["probability"].astype(float).between(0, 1).all()
    assert [("film" in missing.split(";")) for missing in made["missing"]] == (given["film"] == "").tolist()
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")


def test_slips_that_would_pass_in_silence_are_said(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ("data", "check", study / "manifest.csv", "--config", study / "config.yaml")
    admission, labs, manifest = (cells(study / f"{name}.csv") for name in ("admission", "labs", "manifest"))
    admission.assign(sample_id=admission["sample_id"].astype(int), age=admission["age"].replace("", "NA")).to_csv(
        study / "admission.csv", index=False
    )
    labs.assign(sample_id="2024-01-05 " + labs["sample_id"]).to_csv(study / "labs.csv", index=False)
    manifest.drop(columns="split").to_csv(study / "manifest.csv", index=False)
    code, out, err = call(capsys, *check)
    assert code == 0, err
    assert "no column 'split'; enough to predict, not to fit" in out
    assert "modality labs: 0 of 80 rows (0.0%); enough to predict, not to fit" in out
    assert "labs.csv: none of its sample_ids is in" in out
    assert "admission.csv: 80 sample_ids differ from those of" in out
    assert "first '0' here, '000' there" in out

    admission.assign(age=admission["age"].replace("", "NA")).to_csv(study / "admission.csv", index=False)
    assert "column 'age' is read as categories, since 'NA' is no number" in call(capsys, *check)[1]
    fit = ("fit", study / "config.yaml", "--data", study / "manifest.csv", "--out", study / "run")
    assert "column 'split' is missing, and a fit needs it; write train, val or test" in refused(capsys, 1, *fit)
    manifest.rename(columns=" {}".format).to_csv(study / "manifest.csv", index=False)
    assert "column 'sample_id' is missing, and every row needs one; remove the spaces" in refused(capsys, 1, *check)


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_named(study: Path, mark: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells(study / "manifest.csv").to_csv(study / "manifest.csv", index=False, sep=mark, encoding="utf-8-sig")
    line = refused(capsys, 1, "data", "check", study / "manifest.csv")
    assert f"line 1: columns are separated by {name}, expected commas" in line

"""What predict, impute and evaluate say about missing modalities, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.cli.commands import call, done, refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with manifest.csv and a run."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    n = 80
    z = random.normal(size=(n, 3))
    columns = {
        "sample_id": [f"{i:03}" for i in range(n)],
        "subject_id": [f"p{i // 2}" for i in range(n)],
        "split": np.where(np.arange(n) < 40, "train", np.where(np.arange(n) < 50, "val", "test")),
        "label": (z.sum(1) > 0.8).astype(int),
    }
    for m, name in enumerate(("vitals", "labs", "notes")):
        columns[name] = ["" if m and random.random() < 0.4 else json.dumps([float(row[m])]) for row in z]
    pd.DataFrame(columns).to_csv(folder / "manifest.csv", index=False)
    config = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4} for name in ("vitals", "labs", "notes")},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"epochs": 2, "batch_size": 16},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done("fit", folder / "config.yaml", "--data", folder / "manifest.csv", "--out", folder / "run")
    return folder


def test_predict_reports(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = tmp_path / "p.csv", tmp_path / "r.csv", tmp_path / "r.png"
    code, out, err = call(
        capsys, "predict", made / "run", "--data", made / "manifest.csv", "--out", files[0], "--report", files[1], "--figure", files[2]
    )
    assert code == 0, err
    assert "report written to" in out
    frame = pd.read_csv(files[0], keep_default_na=False, na_values={"reduction_labs": "", "reduction_notes": "", "reduction_vitals": ""})
    np.testing.assert_allclose(frame[["sd_missing", "sd_encoder", "sd_global"]].pow(2).sum(axis=1), frame["sd"] ** 2, rtol=1e-9)
    lacking = frame["missing"] != ""
    assert (frame.loc[~lacking, "sd_missing"] == 0).all()
    assert (frame.loc[~lacking, "pays_most"] == "").all()
    assert [cell in row.split(";") for cell, row in zip(frame["pays_most"][lacking], frame["missing"][lacking], strict=True)]
    for name in ("vitals", "labs", "notes"):
        gone = frame["missing"].str.split(";").map(lambda cells, name=name: name in cells)
        assert frame[f"reduction_{name}"].notna().tolist() == gone.tolist()
    table = pd.read_csv(files[1])
    assert table["rows"].tolist()[0] == 80 == table["rows"].iloc[1:].sum()
    assert files[2].stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "r.csv", "r.png"]


def test_impute_writes_a_file_that_a_fresh_process_opens(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_file = tmp_path / "latents.nc"
    arguments = ["impute", made / "run", "--data", made / "manifest.csv", "--out", out_file, "--draws", 7, "--split", "test"]
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "7 draws of the latents of 30 rows written to" in out
    script = (
        "import sys, xarray as xr\nd = xr.open_dataset(sys.argv[1])\n"
        "print(dict(d.sizes), d['z'].dims, d['z'].dtype, d['observed'].dtype, list(d['modality'].values), d.attrs['run'], "
        "d.attrs['draws'], d['sample_id'].values[0], float(d['z'].std('draw').where(~d['observed']).min()) > 0)"
    )
    shown = subprocess.run([sys.executable, "-c", script, str(out_file)], capture_output=True, text=True, check=True).stdout
    assert "{'draw': 7, 'sample_id': 30, 'modality': 3, 'latent': 2} ('draw', 'sample_id', 'modality', 'latent') float32 bool" in shown
    assert shown.rstrip().endswith("run 7 050 True")
    assert str(made) not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["latents.nc"]


def test_impute_refuses(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = made / "manifest.csv"
    assert "--draws" in refused(capsys, 2, "impute", made / "run", "--data", data, "--out", tmp_path / "a.nc", "--draws", 0)
    assert "is no run folder" in refused(capsys, 1, "impute", tmp_path, "--data", data, "--out", tmp_path / "a.nc")
    assert "cannot be written" in refused(
        capsys, 1, "impute", made / "run", "--data", data, "--out", tmp_path / "no" / "a.nc", "--draws", 2
    )
    assert list(tmp_path.iterdir()) == []


def test_evaluate_with_delta(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = ["evaluate", made / "run", "--data", made / "manifest.csv", "--bootstrap", 50, "--draws", 20]
    assert call(capsys, *base, "--out", tmp_path / "plain.json", "--patterns")[0] == 0
    extra = ["--delta", "-1,1", "--delta-figure", tmp_path / "d.png", "--tipping", tmp_path / "t.csv", "--threshold", "0.4"]
    code, out, err = call(capsys, *base, "--out", tmp_path / "m.json", *extra)
    assert code == 0, err
    plain, found = (json.loads((tmp_path / name).read_text()) for name in ("plain.json", "m.json"))
    delta = found.pop("delta")
    del plain["patterns"]
    assert found == plain
    assert [entry["delta"] for entry in delta["at"]] == [-1, 0, 1]
    zero = {name: delta["at"][1][name] for name in plain}
    assert zero == plain
    assert delta["at"][0]["logit_shift"] < 0 < delta["at"][2]["logit_shift"]
    assert delta["at"][0]["risk"] < delta["at"][1]["risk"] < delta["at"][2]["risk"]
    assert set(delta["tipping_point"]) == {"risk", "decision"}
    assert out.count("tipping point, ") == 2
    rows = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert len(rows) == delta["n"]
    assert (tmp_path / "d.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--delta", "1,two"], "--delta 1,two: not a list of numbers"),
        (["--delta", "0"], "only 0 was given"),
        (["--delta", "1,inf"], "finite numbers are expected"),
        (["--delta", "1", "--threshold", "1.5"], "--threshold: found 1.5"),
        (["--delta", "1", "--bootstrap", "0"], "give --bootstrap 1 or more"),
        (["--threshold", "0.5"], "--threshold belongs to --delta"),
        (["--tipping", "t.csv"], "--tipping belongs to --delta"),
    ],
)
def test_delta_refused(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], says: str) -> None:
    base = ["evaluate", made / "run", "--data", made / "manifest.csv", "--out", tmp_path / "m.json"]
    assert says in refused(capsys, 2, *base, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_delta_needs_something_missing(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    frame = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)
    complete = frame[(frame[["labs", "notes"]] != "").all(axis=1)]
    complete.to_csv(tmp_path / "complete.csv", index=False)
    arguments = ["evaluate", made / "run", "--data", tmp_path / "complete.csv", "--out", tmp_path / "m.json", "--delta", "1"]
    assert "labelled rows lacks a modality, nothing can be shifted" in refused(capsys, 1, *arguments)
    assert not (tmp_path / "m.json").exists()

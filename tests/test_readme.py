"""The README's commands and code, run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

BIN = Path(sys.executable).parent


def blocks(root: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty working folder with the shipped configs."""
    made = tmp_path_factory.mktemp("readme")
    shutil.copytree(Path(__file__).resolve().parents[1] / "configs", made / "configs")
    return made


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_commands_and_python_of_the_readme(root: Path, folder: Path) -> None:
    (commands,) = blocks(root, "bash")
    lines = [line.split() for line in commands.splitlines()]
    assert [line[1] for line in lines] == ["simulate", "data", "fit", "predict", "evaluate", "impute"]
    for line in lines:
        done = run([str(BIN / line[0]), *line[1:]], folder)
        assert done.returncode == 0, done.stderr
    predictions = pd.read_csv(folder / "runs" / "predictions.csv", keep_default_na=False)
    columns = ["sample_id", "probability", "sd", "q05", "q95", "typicality", "observed", "missing"]
    assert list(predictions.columns)[:8] == columns
    assert {"sd_missing", "sd_encoder", "sd_global", "pays_most", "reduction_note"} <= set(predictions.columns)
    assert len(predictions) == 600
    metrics = json.loads((folder / "runs" / "metrics.json").read_text())
    assert set(metrics["auroc"]) == {"value", "low", "high"}
    assert "without:note" in metrics["missing"]
    assert "mnar:0.5" in metrics["missing"]
    for picture in ("reliability.png", "report.png"):
        assert (folder / "runs" / picture).read_bytes().startswith(b"\x89PNG")
    assert (folder / "runs" / "latents.nc").stat().st_size > 0
    for code in blocks(root, "python"):
        done = run([sys.executable, "-c", code], folder)
        assert done.returncode == 0, done.stderr


def test_the_yaml_of_the_readme_is_a_config(root: Path) -> None:
    import yaml

    from cm2pyro.api import CM2

    for text in blocks(root, "yaml"):
        CM2.from_config(yaml.safe_load(text))


@pytest.mark.slow
def test_make_demo_ends_by_naming_its_files(root: Path, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    demo = tmp_path / "demo"
    # The virtual environment is there already: only the recipe is run.
    command = ["make", "-C", str(root), "--no-print-directory", "-o", ".venv/.base", "demo", f"DEMO={demo}", f"BIN={BIN}", "SAMPLES=800"]
    done = run(command, root)
    assert done.returncode == 0, done.stderr
    for what, name in (("metrics", "metrics.json"), ("predictions", "predictions.csv"), ("picture", "reliability.png")):
        assert re.search(rf"{what}: +{re.escape(str(demo / name))}", done.stdout)
        assert (demo / name).stat().st_size > 0
    metrics = json.loads((demo / "metrics.json").read_text())
    truth = json.loads((demo / "data" / "truth.json").read_text())
    # 30% of the modalities are missing: below what is possible with all of them, far above chance (sd of an AUROC on 160 rows: 0.04).
    assert 0.62 < metrics["auroc"]["value"] < truth["bayes_auroc"] + 0.05
    assert len(metrics["patterns"]) >= 7

"""From the raw tables of the open demos to predictions."""

from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.cli import main

pytestmark = pytest.mark.slow


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.mark.real
@pytest.mark.parametrize("source", ["mimic3", "mimic4"])
def test_tables_to_predictions(source: str, real_data: Path, root: Path, tmp_path: Path) -> None:
    data, config = tmp_path / "data", str(root / "configs" / "mimic-demo.yaml")
    assert run("prepare", source, "--records", str(real_data / f"{source}_demo"), "--out", str(data)) == 0
    manifest = str(data / "manifest.csv")
    assert run("data", "check", manifest, "--config", config) == 0
    assert run("fit", config, "--data", manifest, "--out", str(tmp_path / "run"), "--set", "fit.epochs=2", "--threads", "1") == 0
    assert run("predict", str(tmp_path / "run"), "--data", manifest, "--out", str(tmp_path / "p.csv")) == 0
    predicted = pd.read_csv(tmp_path / "p.csv", dtype={"sample_id": str})
    assert predicted.sample_id.tolist() == pd.read_csv(manifest, dtype=str).sample_id.tolist()
    assert predicted.probability.between(0, 1).all()
    assert (predicted.observed == "ehr;static").all()

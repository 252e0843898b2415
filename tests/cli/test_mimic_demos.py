"""From the raw tables of the open demos to predictions."""

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.commands import done

pytestmark = pytest.mark.slow


@pytest.mark.real
@pytest.mark.parametrize("source", ["mimic3", "mimic4"])
def test_tables_to_predictions(source: str, real_data: Path, root: Path, tmp_path: Path) -> None:
    data, config = tmp_path / "data", root / "configs" / "mimic-demo.yaml"
    done("prepare", source, "--records", real_data / f"{source}_demo", "--out", data)
    manifest = data / "manifest.csv"
    done("data", "check", manifest, "--config", config)
    done("fit", config, "--data", manifest, "--out", tmp_path / "run", "--set", "fit.epochs=2", "--threads", "1")
    done("predict", tmp_path / "run", "--data", manifest, "--out", tmp_path / "p.csv")
    predicted = pd.read_csv(tmp_path / "p.csv", dtype={"sample_id": str})
    assert predicted.sample_id.tolist() == pd.read_csv(manifest, dtype=str).sample_id.tolist()
    assert predicted.probability.between(0, 1).all()
    assert (predicted.observed == "ehr;static").all()

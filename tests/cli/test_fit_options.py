"""Options of `fit` that set keys of the config."""

from pathlib import Path

import pytest
import yaml

from cm2pyro.config import Config
from tests.cli.commands import call, refused
from tests.inference.fits import settings, table


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    config, manifest = tmp_path / "config.yaml", tmp_path / "manifest.csv"
    Config.from_dict(settings(fit={"epochs": 1})).to_file(config)
    table().to_csv(manifest, index=False)
    return config, manifest


def test_options_end_in_the_config_of_the_run(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, manifest = files
    run = tmp_path / "run"
    options = ("--precision", "bfloat16", "--deterministic", "--seed", 7, "--device", "cpu")
    code, _, err = call(capsys, "fit", config, "--data", manifest, "--out", run, *options)
    assert code == 0, err
    fit = yaml.safe_load((run / "config.yaml").read_text())["fit"]
    assert {key: fit[key] for key in ("precision", "deterministic", "seed", "compile")} == {
        "precision": "bfloat16",
        "deterministic": True,
        "seed": 7,
        "compile": False,
    }
    err = refused(capsys, 2, "fit", config, "--data", manifest, "--out", run, "--resume", "--device", "cpu")
    assert "fit.deterministic is False, and the run in" in err


def test_a_precision_that_is_none_is_refused(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, manifest = files
    err = refused(capsys, 2, "fit", config, "--data", manifest, "--out", tmp_path / "run", "--set", "fit.precision=float16")
    assert "fit.precision" in err
    assert "'float32' or 'bfloat16'" in err

"""`cm2pyro simulate`: what it prints, that its defaults are those of the settings, and that its help loads nothing heavy."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cm2pyro.cli.simulate import simulate
from cm2pyro.data.simulation import SimulationSettings
from cm2pyro.errors import ConfigError


def test_it_says_what_it_wrote_and_what_to_type_next(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = [str(out), "--samples", "50", "--tau", "0.4", "--missing", "0.2", "--mechanism", "mar", "--seed", "7"]
    result = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    truth = json.loads((out / "truth.json").read_text())
    assert truth["settings"] == dataclasses.asdict(SimulationSettings(samples=50, tau=0.4, missing=0.2, mechanism="mar", seed=7))
    lines = result.output.splitlines()
    assert lines[0].startswith(f"wrote {out / 'manifest.csv'}: 50 samples")
    assert f"prevalence: {truth['prevalence']:.3f}" in lines
    assert "series 1.000" in result.output
    assert f"{truth['bayes_auroc']:.3f}" in result.output
    assert lines[-1] == f"next: cm2pyro fit configs/simulated.yaml --data {out / 'manifest.csv'} --out RUN"


def test_every_setting_is_an_option_with_the_same_default() -> None:
    options = {parameter.name: parameter.default for parameter in simulate.params if parameter.name not in ("out", "overwrite")}
    assert options == dataclasses.asdict(SimulationSettings())


def test_more_classes_and_an_undefined_ceiling(tmp_path: Path) -> None:
    # Two test rows cannot hold three classes.
    arguments = [str(tmp_path / "out"), "--samples", "10", "--classes", "3"]
    result = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert "classes: 0 " in result.output
    assert "undefined" in result.output


@pytest.mark.parametrize("arguments", [["--tau", "2"], ["--mechanism", "unknown"], ["--family", "nosuch"], ["--samples", "3"]], ids=str)
def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        CliRunner().invoke(simulate, [str(tmp_path / "out"), *arguments], catch_exceptions=False)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_overwrite(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "out"), "--samples", "10"]
    CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="--overwrite"):
        CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert CliRunner().invoke(simulate, [*arguments, "--overwrite"], catch_exceptions=False).exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cm2pyro.cli.simulate import simulate; "
        "assert CliRunner().invoke(simulate, ['--help']).exit_code == 0; "
        "print([name for name in ('torch', 'numpy', 'pandas', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

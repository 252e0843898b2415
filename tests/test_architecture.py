"""Imports go one way, and every shipped config is good."""

import ast
from pathlib import Path

import pytest

from cm2pyro.api import CM2
from cm2pyro.cli import main

# A room may import from rooms of a lower number, and from itself; models and guides stand side by side.
ORDER = {
    "errors": 0, "sites": 0, "foreign": 0.5, "noise": 1, "files": 1, "logs": 1, "registry": 1, "shipped": 1.5, "config_file": 1.5,
    "config_base": 1.6, "config_bayes": 1.7, "config_fit": 1.7, "config": 2, "data": 3, "distributions": 2.5, "encoders": 4,
    "models": 5, "guides": 5, "inference": 6, "diagnostics": 7, "trackers": 7, "api": 8, "sweep": 8.5,
    "cli": 9, "__init__": 10, "__main__": 10,
}  # fmt: skip
COMMANDS = (
    "simulate", "prepare", "configs", "data", "fit", "predict", "impute", "evaluate", "recalibrate", "diagnose", "select", "sweep"
)  # fmt: skip


def test_imports_go_one_way(root: Path) -> None:
    package = root / "cm2pyro"
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cm2pyro":
                parts = node.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            for name in names:
                if name not in ORDER:  # cm2pyro's own names, such as __version__
                    continue
                assert name == room or ORDER[name] < ORDER[room], f"{path.relative_to(root)} imports cm2pyro.{name}"


SHIPPED = [path for path in sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml")) if path.parent.name != "experiments"]


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.name)
def test_shipped_configs_are_good(config: Path) -> None:
    CM2.from_config(config)


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys; from cm2pyro.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" + (
        "print([m for m in ('torch', 'pyro', 'pandas', 'numpy', 'sklearn', 'matplotlib', 'xarray') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("[]")
    for command in COMMANDS:
        assert command in out


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "Usage: cm2pyro" in capsys.readouterr().out

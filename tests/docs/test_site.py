"""The site: it can be built without a warning, and its API page lists what is public."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["cm2pyro", "cm2pyro.distributions", "cm2pyro.encoders", "cm2pyro.registry", "cm2pyro.errors"])
def test_the_api_page_lists_what_is_public(root: Path, module: str) -> None:
    page = (root / "docs" / "api.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(module)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section is not None
    named = set(re.findall(rf"(?:autoclass|autofunction|autoexception|data):: {re.escape(module)}\.(\w+)$", section[1], re.MULTILINE))
    assert named == set(importlib.import_module(module).__all__)


def test_the_api_page_shows_every_section_of_a_config(root: Path) -> None:
    page = (root / "docs" / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r":pyobject: (\w+)", page))
    assert shown == set(importlib.import_module("cm2pyro.config").__all__)


def test_every_page_is_in_a_list_of_contents(root: Path) -> None:
    index = (root / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.splitlines()}
    assert {page.stem for page in (root / "docs").glob("*.md")} - {"index"} <= listed


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(root: Path, tmp_path: Path) -> None:
    for needed in ("sphinx", "myst_parser", "sphinx_click", "furo"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    # A proxy that is not there: whatever would be fetched fails.
    environment = os.environ | {"PYTHONPATH": str(root), "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "trees"), "docs", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    cli = (tmp_path / "site" / "cli.html").read_text(encoding="utf-8")
    for name in ("simulate", "fit", "evaluate", "physionet2012"):
        assert f"cm2pyro-{name}" in cli or f"-{name}" in cli
    assert "make_copula" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")

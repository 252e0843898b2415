"""A good folder, built once, and a run fitted in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cm2pyro.api import CM2
from tests.hostile.world import build


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile") / "world"
    made.mkdir()
    build(made)
    return made


@pytest.fixture(scope="session")
def world_with_run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fitted") / "world"
    shutil.copytree(world, made)
    model = CM2.from_config(made / "config.yaml").fit(made / "manifest.csv", out=made / "run", device="cpu")
    model.write_posterior(model.posterior_groups(made / "manifest.csv"), made / "run")
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a case, removed when it ends: a corpus makes hundreds."""
    place = tmp_path / "case"
    yield place
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(place, ignore_errors=True)

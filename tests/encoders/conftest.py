"""Networks of Hugging Face in folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cm2pyro.data import pretrained as pretrained_module
from tests.encoders.hugging_face import save


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("networks")
    return {family: save(root / family, family) for family in ("bert", "roberta", "distilbert")}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Folders are remembered by name, and a test may put another there."""
    yield
    pretrained_module.folder_of.cache_clear()

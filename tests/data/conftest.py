"""Shared by the tests of single data sources."""

from pathlib import Path

import pytest

from tests.data.covid_collection import ABSENT, ROWS, write_rows


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """The folder of a small collection; an image's bytes are its name, for nothing opens it."""
    folder = tmp_path / "collection"
    (folder / "images").mkdir(parents=True)
    write_rows(folder, ROWS)
    for cells in ROWS:
        if cells["filename"] not in ABSENT:
            (folder / "images" / cells["filename"]).write_text(cells["filename"])
    return folder

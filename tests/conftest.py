"""Shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

# Workers of the suite share the cores; small tensors gain nothing from a second thread. Before anything with threads is imported, and
# for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch.distributions import Distribution

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _settings_kept() -> Iterator[None]:
    """The test that leaves other settings behind fails, and not those which come after it in the same worker."""
    yield
    left = torch.get_default_dtype(), Distribution._validate_args
    torch.set_default_dtype(torch.float32)
    Distribution.set_default_validate_args(True)
    assert left == (torch.float32, True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by CM2_DATA; the test is skipped, visibly, where it is not set."""
    folder = os.environ.get("CM2_DATA")
    if not folder:
        pytest.skip("CM2_DATA is not set")
    return Path(folder)

"""Generated and mutated files: every reader reads them, or refuses them in one line. benchmarks/fuzz.py does the same for long."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import Targets, generated, mutate, prepare
from cm2pyro.errors import CM2Error

pytestmark = pytest.mark.slow

READERS = ("manifest", "manifest as Parquet", "config", "long series", "wide series", "series table", "vector", "note", "record", "archive")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Targets]:
    folder = tmp_path_factory.mktemp("fuzzed")
    prepare(folder, run=False)
    return folder, Targets(folder, run=False)


def refusal(path: Path, content: bytes, call: Callable[[], object]) -> str:
    """What a reader says of that content, '' if it reads it; any other exception is a failure of the test."""
    good = path.read_bytes()
    path.write_bytes(content)
    try:
        call()
    except CM2Error as error:
        return str(error)
    finally:
        path.write_bytes(good)
    return ""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(reader=st.sampled_from(READERS), seed=st.integers(0, 2**32), new=st.booleans())
def test_read_or_refused(targets: tuple[Path, Targets], reader: str, seed: int, new: bool) -> None:
    folder, known = targets
    file, call = known.calls[reader]
    rng = random.Random(seed)
    said = refusal(folder / file, generated(rng) if new else mutate((folder / file).read_bytes(), rng), call)
    assert "\n" not in said
    assert len(said) < 2000


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(max_size=200))
def test_any_text_as_a_config_a_series_or_outcomes(targets: tuple[Path, Targets], text: str) -> None:
    folder, known = targets
    for reader in ("config", "long series", "outcomes"):
        file, call = known.calls[reader]
        assert "\n" not in refusal(folder / file, text.encode("utf-8", "surrogatepass"), call)

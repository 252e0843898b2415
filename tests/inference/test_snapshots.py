"""What a run keeps of its mixture: which epochs, the same when a fit is cut and resumed, and runs without."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.api import CM2
from cm2pyro.errors import CheckpointError
from cm2pyro.inference import snapshots
from cm2pyro.inference.snapshots import FILE, MOST, Snapshots, chosen
from tests.inference.fits import manifest, small


def same(a: dict[int, snapshots.Values], b: dict[int, snapshots.Values]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[e][site], b[e][site]) for e in a for site in a[e])


class Counting:
    """Stands in for a program; its sites hold the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def values(self) -> dict[str, torch.Tensor]:
        return {"locs": torch.full((2,), float(self.epoch))}


def taken(snapshots: Snapshots, epochs: range) -> Snapshots:
    program = Counting()
    for program.epoch in epochs:
        snapshots.take(program, program.epoch)  # type: ignore[arg-type]
    return snapshots


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300))
def test_which_epochs_are_kept(epochs: int) -> None:
    kept = taken(Snapshots(), range(epochs + 1)).values
    assert len(kept) <= MOST + 2
    assert list(kept) == sorted(kept)
    assert {0, epochs} <= set(kept)
    assert all(float(values["locs"][0]) == epoch for epoch, values in kept.items())
    gaps = np.diff(list(kept))
    # Evenly spread, but for the latest.
    assert len(set(gaps[:-1])) <= 1
    assert gaps[-1] <= gaps[0]
    assert len(kept) > MOST / 2 or set(gaps) == {1}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 80), st.integers(0, 80), st.booleans())
def test_a_cut_fit_ends_with_the_same_snapshots(tmp_path_factory: pytest.TempPathFactory, cut: int, more: int, ahead: bool) -> None:
    """Also where the file was written and the checkpoint of that epoch was not."""
    folder = tmp_path_factory.mktemp("run")
    taken(Snapshots(), range(cut + 1)).write(folder)
    resumed = Snapshots()
    last = cut - 1 if ahead else cut
    resumed.read(folder, last)
    assert max(resumed.values) <= last
    whole = taken(Snapshots(), range(cut + more + 1))
    assert same(taken(resumed, range(last + 1, cut + more + 1)).values, whole.values)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [([], []), ([0, 1, 2], [0, 1, 2]), (list(range(17)), [0, 4, 8, 12, 16]), ([0, 2, 4, 6, 8, 10, 12, 14, 15], [0, 4, 8, 12, 15])],
)
def test_a_handful_is_chosen_from_start_to_end(epochs: list[int], expected: list[int]) -> None:
    assert chosen(epochs) == expected


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(120, 3, 2)) + 2 * random.integers(0, 2, size=(120, 1, 1))
    return manifest(z, random.random((120, 3)) < 0.7, 1)


@pytest.mark.slow
def test_a_fit_keeps_its_mixture_and_resumes_exactly(table: pd.DataFrame, tmp_path: Path) -> None:
    config = small(fit={"warmup": 2, "ema": 0.9})
    whole = CM2.from_config(config, overrides=("fit.epochs=4",)).fit(table, tmp_path / "whole")
    assert list(whole.snapshots.values) == [0, 1, 2, 3, 4]
    assert set(whole.snapshots.values[0]) == {"weights", "locs", "scales", "copula"}
    # The last is what would be kept, had it the lowest loss; the start is another mixture.
    assert not torch.equal(whole.snapshots.values[0]["locs"], whole.snapshots.values[4]["locs"])
    program = whole.program
    for name, value in program.values().items():
        assert any(torch.equal(values[name], value) for values in whole.snapshots.values.values())
    CM2.from_config(config, overrides=("fit.epochs=2",)).fit(table, tmp_path / "cut")
    CM2.from_config(config, overrides=("fit.epochs=4",)).fit(table, tmp_path / "cut", resume=True)
    loaded = [CM2.load(tmp_path / name).snapshots.values for name in ("whole", "cut")]
    assert same(*loaded)
    assert same(loaded[0], whole.snapshots.values)
    whole.save(tmp_path / "saved")
    assert same(CM2.load(tmp_path / "saved").snapshots.values, loaded[0])


@pytest.mark.slow
def test_runs_without_the_file(table: pd.DataFrame, tmp_path: Path) -> None:
    config = small(fit={"ensemble": 2})
    CM2.from_config(config, overrides=("fit.epochs=1",)).fit(table, tmp_path / "run")
    assert (tmp_path / "run" / "members" / "2" / FILE).is_file()
    (tmp_path / "run" / FILE).unlink()
    assert CM2.load(tmp_path / "run").snapshots.values == {}
    resumed = CM2.from_config(config, overrides=("fit.epochs=2",)).fit(table, tmp_path / "run", resume=True)
    assert list(resumed.snapshots.values) == [0, 1, 2]  # the last checkpoint holds them too
    (tmp_path / "run" / FILE).write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"snapshots.safetensors: cannot be read"):
        CM2.load(tmp_path / "run")
    CM2.from_config(config, overrides=("fit.epochs=1",)).fit(table, tmp_path / "run", overwrite=True)
    assert list(CM2.load(tmp_path / "run").snapshots.values) == [0, 1]

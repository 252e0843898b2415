"""Rows that are streamed are those that are held in memory: the same tensors, statistics, batches."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.prepared import Preparation
from cm2pyro.data.sampled import RowSample, row_keys
from cm2pyro.data.scaling import Moments, Standard
from cm2pyro.data.shards import dataset as streamed
from cm2pyro.data.shards.dataset import Part, StreamedDataset, chosen
from cm2pyro.data.shards.index import Shards
from cm2pyro.data.shards.learn import learn, training_parts
from cm2pyro.errors import ConfigError, DataError
from tests.data.shards.cases import fresh

Make = Callable[[int], Shards]


@pytest.fixture(scope="session")
def held(folder: Path) -> tuple[Preparation, Dataset]:
    """Fitted in memory: the training rows."""
    preparation, whole = fresh(), read_manifest(folder / "manifest.csv")
    train = whole.take(whole.rows("train"))
    return preparation, preparation.fit(train, np.arange(len(train)))


def stream(source: Shards) -> tuple[Preparation, StreamedDataset]:
    preparation = fresh()
    return preparation, learn(preparation, source, [Part(shard) for shard in source.of("train")], [])


def assert_same(a: Batch, b: Batch, rtol: float = 0.0) -> None:
    assert a.size == b.size
    for x, y in ((a.rows, b.rows), (a.observed, b.observed), (a.labels, b.labels), (a.labelled, b.labelled)):
        assert torch.equal(x, y)
    assert {name: list(views) for name, views in a.inputs.items()} == {name: list(views) for name, views in b.inputs.items()}
    for name, views in a.inputs.items():
        for view, x in views.items():
            torch.testing.assert_close(x, b.inputs[name][view], rtol=rtol, atol=rtol)


def assert_close(a: object, b: object) -> None:
    """Nested states, numbers to rounding."""
    if isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list):
        assert isinstance(b, list)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-11, abs=1e-11)
    else:
        assert a == b


# --- what is learned ----------------------------------------------------------------------------------------------------


def test_one_shard_teaches_the_same_bits(shard: Make, held: tuple[Preparation, Dataset]) -> None:
    preparation, rows = stream(shard(1000))
    assert len(rows.pilot) == len(held[1])  # a tokenizer's state says how it was used last
    assert preparation.state() == held[0].state()
    assert rows.observed_share() == pytest.approx(held[1].observed_share(), abs=1e-6)
    assert rows.unlabelled() == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 5])
def test_many_shards_teach_the_same_numbers(shard: Make, held: tuple[Preparation, Dataset], size: int) -> None:
    preparation, rows = stream(shard(size))
    assert len(rows.pilot) == len(held[1])
    assert_close(preparation.state(), held[0].state())


def test_moments_of_parts_are_those_of_the_whole() -> None:
    random = np.random.default_rng(1)
    x = random.normal(1e3, 1e-2, (500, 4))
    x[random.random(x.shape) < 0.3] = np.nan
    x[:, 2], x[:, 3] = 7.1, np.nan
    x[:100, 0] = np.nan  # a part without a value
    merged = Moments.zeros(0, 4)
    for part in np.split(x, [100, 101, 350]):
        merged = merged.plus(Moments.of(part))
    whole, found = Standard.fit(x), merged.standard()
    np.testing.assert_allclose(found.loc, whole.loc, rtol=1e-14)
    # n eps / (sd / mean)² at the worst, were the deviations not taken from the mean: 1e-3; they are.
    np.testing.assert_allclose(found.scale, whole.scale, rtol=1e-9)
    assert np.isinf(found.scale[2:]).all()


def test_a_sample_is_the_smallest_keys_however_the_rows_are_divided() -> None:
    keys = row_keys(str(i) for i in range(1000))
    values = np.arange(1000.0)[:, None]
    expected = np.sort(np.argsort(keys)[:50])
    for cuts in ([], [10, 500], list(range(1, 1000))):
        sample = RowSample(50)
        for k, v in zip(np.split(keys, cuts), np.split(values, cuts), strict=True):
            sample.add(k, {"x": v})
        found = sample.values("x")
        assert found is not None
        assert found[:, 0].tolist() == expected.tolist()
    # Uniform: the mean of 50 of 1000 has sd 288.7 √(0.95 / 50) = 39.8.
    assert abs(values[expected].mean() - 499.5) < 4 * 39.8


# --- batches ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_that_fit_a_window_come_in_the_order_of_memory(shard: Make, held: tuple[Preparation, Dataset]) -> None:
    _, rows = stream(shard(13))
    rows = StreamedDataset(rows.source, rows.parts, held[0])
    for seed in (None, 3):
        generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
        pairs = list(zip(rows.batches(16, generators[0]), held[1].batches(16, generators[1]), strict=True))
        assert len(pairs) == 6
        for ours, theirs in pairs:
            assert_same(ours, theirs)


def windowed(source: Shards, window: int = 30) -> StreamedDataset:
    _, rows = stream(source)
    return StreamedDataset(rows.source, rows.parts, rows.preparation, window_rows=window)


def order(rows: StreamedDataset, seed: int, size: int = 16, **more: int) -> list[list[int]]:
    return [batch.rows.tolist() for batch in rows.batches(size, torch.Generator().manual_seed(seed), **more)]


@pytest.mark.slow
def test_windows_give_every_row_once_in_whole_batches(shard: Make, held: tuple[Preparation, Dataset]) -> None:
    rows = windowed(shard(7))
    n = len(rows)
    orders = [order(rows, seed) for seed in (0, 0, 1)]
    for batches in orders:
        assert [len(batch) for batch in batches] == [16] * (n // 16) + [n % 16] * (n % 16 > 0)
        assert sorted(chain.from_iterable(batches)) == list(range(n))
    assert orders[0] == orders[1] != orders[2]
    # What a batch holds is what its rows say: against memory, under the same preparation.
    own = StreamedDataset(rows.source, rows.parts, held[0], window_rows=30)
    for batch in own.batches(16, torch.Generator().manual_seed(2)):
        assert_same(batch, held[1].batch(batch.rows))


@pytest.mark.slow
def test_skipping_batches_gives_the_same_rest_and_reads_no_window_before_it(shard: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = windowed(shard(7))
    whole = order(rows, 5)
    for skip in range(len(whole) + 2):
        assert order(rows, 5, skip=skip) == whole[skip:]
    loaded: list[Part] = []
    load = StreamedDataset.load
    monkeypatch.setattr(StreamedDataset, "load", lambda self, part: (loaded.append(part), load(self, part))[1])
    order(rows, 5, skip=len(whole) - 1)
    assert len(loaded) < len(rows.parts) / 2


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_the_shards_and_give_equally_many_batches(shard: Make, world: int) -> None:
    rows = windowed(shard(17))
    found = [order(rows, 4, size=8, rank=rank, world=world) for rank in range(world)]
    assert len({len(batches) for batches in found}) == 1
    each = [list(chain.from_iterable(batches)) for batches in found]
    assert set().union(*each) == set(range(len(rows)))
    for a in range(world):
        for b in range(a):
            assert not set(each[a]) & set(each[b])
    for rank in range(world):
        for skip in (1, len(found[rank]) - 1):
            assert order(rows, 4, size=8, rank=rank, world=world, skip=skip) == found[rank][skip:]


@pytest.mark.slow
def test_shares_of_ranks_have_the_same_sizes(shard: Make) -> None:
    """Whatever rows each reads again: what is drawn for a whole batch is divided by place."""
    rows = windowed(shard(17))
    each = [list(rows.shares(16, torch.Generator().manual_seed(4), 0, rank, 2)) for rank in range(2)]
    for a, b in zip(*each, strict=True):
        assert len(a) == len(b) <= 8
        assert [(batch.share.start, batch.share.of, batch.weight) for batch in (a, b)] == [(0, 2 * len(a), 1.0), (len(a), 2 * len(a), 1.0)]
    with pytest.raises(ConfigError, match=r"fit\.batch_size: 15 rows, and 2 processes"):
        list(rows.shares(15, None, 0, 0, 2))


def test_more_ranks_than_shards_are_refused(shard: Make) -> None:
    with pytest.raises(DataError, match="1 shards for 2 processes"):
        order(windowed(shard(1000)), 0, rank=0, world=2)


@pytest.mark.slow
def test_a_fault_in_a_shard_reaches_the_loop(shard: Make) -> None:
    rows = windowed(shard(7))
    victim = rows.source.folder / rows.parts[-1].shard.name / "manifest.parquet"
    victim.unlink()
    with pytest.raises(Exception, match="No such file"):
        list(rows.batches(16))


# --- what is held -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pilot_is_all_rows_or_a_bounded_sample(shard: Make, held: tuple[Preparation, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    preparation, rows = stream(shard(7))
    assert rows.pilot.ids == held[1].ids
    monkeypatch.setattr(streamed, "HELD_ROWS", 20)
    monkeypatch.setattr(streamed, "_SAMPLED_SHARDS", 4)
    assert len(rows.sample()) == 20
    monkeypatch.setattr(streamed, "HELD_BYTES", 5 * streamed.row_bytes(preparation))
    assert len(rows.sample()) == 5


def test_a_sample_by_subject_takes_all_rows_of_each(shard: Make, folder: Path) -> None:
    source = shard(7)
    parts = [Part(one) for one in source.index.shards]
    some = chosen(source, parts, 20, "subject_id")
    subjects = [s for part in some for s in streamed.cells(source, part, "subject_id")]
    whole = read_manifest(folder / "manifest.csv")
    assert 20 <= len(subjects) <= 21
    assert all(subjects.count(s) == whole.subjects.count(s) for s in set(subjects))
    assert chosen(source, parts, 120) == tuple(parts)


@pytest.mark.slow
def test_held_out_subjects(shard: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from cm2pyro.data.shards import learn as module

    source = shard(7)
    only = Shards(source.folder, source.index.model_copy(update={"shards": source.of("train")}))
    n = only.rows(None)
    for limit in (100_000, 1):  # as in memory; by a number of each subject
        monkeypatch.setattr(module, "_EXACT_ROWS", limit)
        train, val, names = training_parts(only, 0, 0.2, set(), ["label"])
        again = training_parts(only, 0, 0.2, set(names["subjects"]), ["label"])
        sides = [{s for part in side for s in streamed.cells(only, part, "subject_id")} for side in (train, val)]
        assert sum(map(len, train)) + sum(map(len, val)) == n
        assert not sides[0] & sides[1]
        # Binomial: 45 subjects, sd 2.7 of those held out.
        assert abs(len(sides[1]) - 0.2 * (len(sides[0]) + len(sides[1]))) < 4 * 2.7
        assert [len(part) for part in again[1]] == [len(part) for part in val]
        assert bool(names["subjects"]) == (limit > 1)

"""The data set: lengths, types and finiteness are checked when it is built; batches are its rows."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from cm2pyro.data.dataset import Dataset
from cm2pyro.errors import DataError


def parts(n: int = 5) -> dict[str, Any]:
    x = torch.arange(n, dtype=torch.float32)
    return {
        "names": ("ehr", "image"),
        "inputs": {
            "ehr": {"binned": x[:, None, None].expand(n, 2, 3).clone(), "summary": x[:, None] + 10},
            "image": {"vector": x[:, None] + 20},
        },
        "observed": torch.stack([x > 0, x < 2], 1),
        "labels": (torch.arange(n) % 3) - 1,
        "ids": tuple(f"s{i}" for i in range(n)),
        "subjects": tuple(f"p{i // 2}" for i in range(n)),
    }


def test_take_keeps_every_field_in_step() -> None:
    dataset = Dataset(**parts())
    taken = dataset.take([3, 1, 1])
    assert len(taken) == 3
    assert taken.ids == ("s3", "s1", "s1")
    assert taken.subjects == ("p1", "p0", "p0")
    assert taken.labels.tolist() == [-1, 0, 0]
    assert taken.observed.tolist() == [[True, False], [True, True], [True, True]]
    assert taken.inputs["image"]["vector"][:, 0].tolist() == [23, 21, 21]
    assert taken.inputs["ehr"]["binned"][:, 1, 2].tolist() == [3, 1, 1]
    assert len(dataset.take(range(0))) == 0


def test_a_batch_is_its_rows_with_labels_that_can_be_indexed() -> None:
    batch = Dataset(**parts()).batch(torch.tensor([4, 0, 3]))
    assert len(batch) == 3
    assert batch.rows.tolist() == [4, 0, 3]
    assert batch.size == 5
    assert batch.labels.tolist() == [0, 0, 0]
    assert batch.labelled.tolist() == [True, False, False]
    assert batch.inputs["ehr"]["summary"][:, 0].tolist() == [14, 10, 13]
    assert batch.observed.tolist() == [[True, False], [False, True], [True, False]]
    hidden = batch.hiding(torch.zeros(3, 2, dtype=torch.bool))
    assert not hidden.observed.any()
    assert batch.observed.any()
    assert hidden.inputs is batch.inputs
    assert batch.to(torch.device("cpu")) is batch


def test_several_labels_keep_what_is_empty_and_numbers_are_filled() -> None:
    several = torch.tensor([[0, 1], [-1, 1], [-1, -1], [1, -1], [0, 0]])
    dataset = Dataset(**(parts() | {"labels": several}))
    assert dataset.labelled.tolist() == [True, True, False, True, True]
    assert dataset.take([2, 1]).labelled.tolist() == [False, True]
    batch = dataset.batch(torch.tensor([1, 2]))
    assert batch.labels.tolist() == [[-1, 1], [-1, -1]]
    assert batch.labelled.tolist() == [True, False]
    numbers = torch.tensor([0.5, torch.nan, -1.0, 0.0, torch.nan], dtype=torch.float64)
    dataset = Dataset(**(parts() | {"labels": numbers}))
    assert dataset.labelled.tolist() == [True, False, True, True, False]
    batch = dataset.batch(torch.arange(5))
    assert batch.labels.tolist() == [0.5, 0, -1, 0, 0]
    assert batch.labelled.tolist() == dataset.labelled.tolist()
    assert Dataset(**parts()).labelled.tolist() == [False, True, True, False, True]


def test_a_batch_moves_whole() -> None:
    moved = Dataset(**parts()).batch(torch.arange(3)).to(torch.device("meta"))
    tensors = [*(x for views in moved.inputs.values() for x in views.values()), moved.observed, moved.labels, moved.labelled, moved.rows]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (len(moved), moved.size) == (3, 5)


def test_batches_hold_every_row_once() -> None:
    dataset = Dataset(**parts(11))
    plain = [batch.rows.tolist() for batch in dataset.batches(4)]
    assert plain == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    def shuffled(seed: int) -> list[int]:
        batches = list(dataset.batches(4, torch.Generator().manual_seed(seed)))
        assert [len(batch) for batch in batches] == [4, 4, 3]
        for batch in batches:
            assert batch.inputs["ehr"]["summary"][:, 0].tolist() == [10 + i for i in batch.rows.tolist()]
        return [row for batch in batches for row in batch.rows.tolist()]

    assert sorted(shuffled(0)) == list(range(11))
    assert shuffled(0) == shuffled(0) != shuffled(1)


def test_another_mask() -> None:
    dataset = Dataset(**parts())
    mask = torch.zeros(5, 2, dtype=torch.bool)
    assert dataset.with_observed(mask).observed.equal(mask)
    assert dataset.observed.any()
    with pytest.raises(DataError, match="observed"):
        dataset.with_observed(mask[:3])
    with pytest.raises(FrozenInstanceError):
        dataset.observed = mask  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.zeros(4, dtype=torch.long)}, "labels: 4 rows; expected 5"),
        ({"subjects": ("p",) * 6}, "subjects: 6 rows; expected 5"),
        ({"observed": torch.ones(4, 2, dtype=torch.bool)}, "observed: 4 rows; expected 5"),
        ({"observed": torch.ones(5, 3, dtype=torch.bool)}, "observed: expected bool of shape (5, 2)"),
        ({"observed": torch.ones(5, 2)}, "observed: expected bool"),
        ({"names": ("image", "ehr")}, "for the modalities image, ehr"),
        ({"inputs": {"ehr": {"binned": torch.zeros(5, 1)}, "image": {"vector": torch.zeros(2, 1)}}}, "image.vector: 2 rows; expected 5"),
        (
            {"inputs": {"ehr": {"binned": torch.zeros(5, 1)}, "image": {"vector": torch.full((5, 1), torch.nan)}}},
            "image.vector: holds values",
        ),
        ({"inputs": {"ehr": {"binned": torch.full((5, 1), torch.inf)}, "image": {}}}, "ehr.binned: holds values that are not finite"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        Dataset(**(parts() | change))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("n", "size", "world"), [(10, 4, 2), (11, 4, 3), (7, 3, 2)])
def test_processes_share_every_batch(n: int, size: int, world: int) -> None:
    """Each has rows of every batch; weighted means over its rows have the batch's mean as their mean."""
    dataset = Dataset(**parts(n))
    whole = list(dataset.batches(size, torch.Generator().manual_seed(1), 1))
    each = [list(dataset.shares(size, torch.Generator().manual_seed(1), 1, rank, world)) for rank in range(world)]
    for batch, shares in zip(whole, zip(*each, strict=True), strict=True):
        assert all(len(share) and share.whole.equal(batch.observed) for share in shares)
        mean = sum(share.weight * share.rows.double().mean() for share in shares) / world
        torch.testing.assert_close(mean, batch.rows.double().mean())
        if len(batch) >= world:
            assert torch.cat([share.rows for share in shares]).equal(batch.rows)
            for share in shares:
                assert batch.rows[share.share.start : share.share.start + share.share.rows].equal(share.rows)


def test_what_is_hidden_of_a_shared_batch_is_known_of_all_its_rows() -> None:
    share = next(iter(Dataset(**parts(6)).shares(6, None, 0, 1, 2)))
    hidden = share.whole & (torch.arange(6) != 4)[:, None]
    changed = share.hiding(hidden)
    assert changed.observed.equal(hidden[3:])
    assert changed.available.equal(share.observed)
    assert changed.whole.equal(hidden)

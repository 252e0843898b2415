"""Splits by subject: complete, disjoint, seeded, and refused in one line when they make no sense."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.splits import SPLITS, assign_splits, check_fractions, parse_splits, training_rows
from cm2pyro.errors import ConfigError, DataError

THREE = {"train": 0.6, "val": 0.2, "test": 0.2}


def test_parse_returns_the_fractions_in_a_fixed_order() -> None:
    parsed = parse_splits(" val = 0.2, train=0.8")
    assert parsed == {"train": 0.8, "val": 0.2}
    assert list(parsed) == ["train", "val"]
    assert parse_splits("test=1") == {"test": 1.0}
    assert parse_splits("train=0.7,val=0.1,test=0.2")["test"] == 0.2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name=fraction"),
        ("train", "name=fraction"),
        ("train=most", "name=fraction"),
        ("train=0.5,train=0.5", "twice"),
        ("train=0.8,dev=0.2", "'dev'"),
        ("train=1,val=0", "val=0 is not above 0"),
        ("train=1.2,val=-0.2", "val=-0.2"),
        ("train=nan", "not above 0"),
        ("train=inf", "sum to inf"),
        ("train=0.8,val=0.1", "sum to 0.9"),
    ],
)
def test_parse_refuses_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_splits(text)
    assert "\n" not in str(caught.value)


def test_no_fractions_are_refused() -> None:
    with pytest.raises(ConfigError, match="sum to 0"):
        check_fractions({})


@given(
    subjects=st.lists(st.text(min_size=1, max_size=4), min_size=5, max_size=60, unique=True),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_every_subject_is_in_one_split_whatever_the_order(subjects: list[str], seed: int, data: st.DataObject) -> None:
    assigned = assign_splits(subjects, THREE, seed)
    assert set(assigned) == set(subjects)
    assert set(assigned.values()) == set(SPLITS)
    repeats = data.draw(st.lists(st.sampled_from(subjects), max_size=10))
    again = assign_splits(data.draw(st.permutations(subjects)) + repeats, dict(reversed(THREE.items())), seed)
    assert again == assigned


@given(count=st.integers(10, 500), train=st.floats(0.2, 0.8))
def test_sizes_follow_the_fractions(count: int, train: float) -> None:
    assigned = assign_splits(map(str, range(count)), {"train": train, "val": 1 - train}, 0)
    assert abs(list(assigned.values()).count("train") - train * count) <= 0.5 + 1e-6


def test_another_seed_gives_other_splits() -> None:
    ids = [str(i) for i in range(100)]
    assert assign_splits(ids, THREE, 0) != assign_splits(ids, THREE, 1)


def test_too_few_subjects_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(DataError, match="1 subjects are too few to put one into val"):
        assign_splits(["a"], {"train": 0.8, "val": 0.2}, 0)
    assert assign_splits(["a"], {"train": 1.0}, 0) == {"a": "train"}
    with pytest.raises(ConfigError, match="seed: found -1"):
        assign_splits(["a", "b"], {"train": 1.0}, -1)


def _manifest(splits: list[str]) -> Manifest:
    ids = [f"s{i:02d}" for i in range(len(splits))]
    frame = pd.DataFrame({"sample_id": ids, "subject_id": [f"p{i // 2}" for i in range(len(splits))], "split": splits})
    return read_manifest(frame)


@pytest.mark.parametrize(("share", "subjects"), [(0.0, 0), (0.2, 2), (0.5, 5)])
def test_the_share_of_training_subjects_that_stops_the_fit(share: float, subjects: int) -> None:
    manifest = _manifest(["train"] * 20 + ["test"] * 4)
    train, val, held = training_rows(manifest, seed=3, share=share)
    assert len(held) == subjects
    assert {manifest.subjects[i] for i in val} == set(held)
    assert sorted([*train, *val]) == list(range(20))
    assert not {manifest.subjects[i] for i in train} & set(held)


def test_rows_that_are_val_stop_the_fit_whatever_the_share() -> None:
    manifest = _manifest(["train"] * 6 + ["val"] * 2)
    assert training_rows(manifest, seed=0, share=0.5) == ([0, 1, 2, 3, 4, 5], [6, 7], [])


def test_a_resumed_fit_holds_out_the_same_subjects() -> None:
    manifest = _manifest(["train"] * 20)
    first = training_rows(manifest, seed=1, share=0.3)
    assert training_rows(manifest, seed=2, share=0.3, held=set(first[2])) == first


def with_labels(labels: list[str]) -> Manifest:
    ids = [f"s{i:03d}" for i in range(len(labels))]
    frame = pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": labels})
    return read_manifest(frame)


def test_few_labels_are_shared_out_evenly() -> None:
    labels = ["1" if i % 10 == 0 else "" for i in range(200)]
    for seed in range(5):
        train, val, held = training_rows(with_labels(labels), seed, labels=("label",))
        assert sorted(train + val) == list(range(200))
        assert len(held) == len(val) == 40
        assert sum(labels[i] != "" for i in val) == 4  # a fifth of 20; without care it would vary around it


def test_where_all_have_labels_they_do_not_matter_for_the_split() -> None:
    same = with_labels(["1", "0"] * 20)
    assert training_rows(same, 3, labels=("label",)) == training_rows(same, 3)


def test_two_labels_among_many_rows_stay_in_training() -> None:
    labels = ["1", "0", *[""] * 30]
    train, val, _ = training_rows(with_labels(labels), 0, labels=("label",))
    assert {0, 1} <= set(train)
    assert len(val) == 6

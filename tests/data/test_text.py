"""Kind `text`: notes as token ids in slots, and what is learned from training notes alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer

from cm2pyro.config import Modality
from cm2pyro.data import text as text_module
from cm2pyro.data import tokenizer as tokens
from cm2pyro.data.columns import Sparse
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.text import Text
from cm2pyro.errors import ConfigError

PAD = tokens.PAD


def kind(**options: Any) -> Text:
    made = make_kind("note", Modality(kind="text", encoder="bag", **{"vocabulary": 300, "max_tokens": 12, **options}), ("tokens",))
    assert isinstance(made, Text)
    return made


def manifest_of(folder: Path, samples: list[list[str]], hours: list[list[float]] | None = None) -> Manifest:
    """A manifest with a file of notes per sample, none where there are no notes."""
    cells = []
    for i, notes in enumerate(samples):
        frame = pd.DataFrame({"text": notes})
        if hours is not None:
            frame["hours"] = hours[i]
        if notes:
            frame.to_csv(folder / f"n{i}.csv", index=False)
        cells.append(f"n{i}.csv" if notes else "")
    pd.DataFrame({"sample_id": [f"s{i}" for i in range(len(cells))], "note": cells}).to_csv(folder / "m.csv", index=False)
    return read_manifest(folder / "m.csv")


def dense(k: Text, manifest: Manifest) -> torch.Tensor:
    column = k.transform(k.read(manifest))["tokens"]
    assert isinstance(column, Sparse)
    return column[torch.arange(len(manifest))]


def ids(k: Text, text: str, length: int = 12, keep_end: bool = False) -> list[int]:
    row: list[int] = tokens.encode(Tokenizer.from_str(k.tokenizer.to_str()), [text], length, keep_end)[0][0].tolist()
    return row


SAMPLES = [["chest clear", "fever"], [], ["cough", "no fever", "chest clear today"], [""], ["cough"]]


def test_every_note_has_its_slot_in_order_and_the_rest_is_padding(tmp_path: Path) -> None:
    k = kind()
    manifest = manifest_of(tmp_path, SAMPLES)
    raw = k.read(manifest)
    assert k.observed(raw).tolist() == [True, False, True, False, True]
    k.fit(raw, np.arange(5))
    assert k.shapes() == {"tokens": (3, 12)}
    found = dense(k, manifest)
    blank = [PAD] * 12
    for row, notes in enumerate(SAMPLES):
        expected = [ids(k, note) for note in notes if note]
        assert found[row].tolist() == expected + [blank] * (3 - len(expected)), row


def test_a_sample_whose_only_note_is_empty_is_missing_and_takes_no_memory(tmp_path: Path) -> None:
    k = kind()
    raw = k.read(manifest_of(tmp_path, SAMPLES))
    k.fit(raw, np.arange(5))
    column = k.transform(raw)["tokens"]
    assert isinstance(column, Sparse)
    assert column.place.tolist() == [0, -1, 1, -1, 2]
    assert len(column.values) == 3
    assert (column[torch.tensor([1, 3])] == PAD).all()


def test_more_notes_than_slots_keep_the_latest_in_order(tmp_path: Path) -> None:
    k = kind(max_notes=2)
    manifest = manifest_of(tmp_path, [["c", "a", "b"], ["d"]], [[9.0, 1.0, 5.0], [0.0]])
    raw = k.read(manifest)
    k.fit(raw, np.arange(2))
    k.remarks.clear()
    found = dense(k, manifest)
    assert found[0].tolist() == [ids(k, "b"), ids(k, "c")]
    assert found[1].tolist() == [ids(k, "d"), [PAD] * 12]
    assert k.remarks[-1] == "modality note: 1 samples have more than 2 notes; the latest are read"


def test_a_sample_with_more_notes_than_any_in_training_keeps_the_latest(tmp_path: Path) -> None:
    k = kind()
    train = manifest_of(tmp_path, [["chest", "clear"], ["cough"]])
    k.fit(k.read(train), np.arange(2))
    assert k.shapes()["tokens"] == (2, 12)
    (tmp_path / "later").mkdir()
    later = manifest_of(tmp_path / "later", [["1", "2", "3", "4", "5"]])
    assert dense(k, later)[0].tolist() == [ids(k, "4"), ids(k, "5")]
    assert "1 samples have more than 2 notes" in k.remarks[-1]


@pytest.mark.parametrize("keep", ["start", "end"])
def test_truncation(tmp_path: Path, keep: str) -> None:
    k = kind(max_tokens=6, keep=keep)
    manifest = manifest_of(tmp_path, [["1 2 3 4 5 6 7 8 9", "1"]])
    raw = k.read(manifest)
    k.fit(raw, np.arange(1))
    found = dense(k, manifest)
    whole = [i for i in ids(k, "1 2 3 4 5 6 7 8 9", 60) if i > 3]
    assert found[0, 0].tolist() == [2, *(whole[:4] if keep == "start" else whole[-4:]), 3]
    which = {"start": "first", "end": "last"}[keep]
    assert k.remarks == [f"modality note: 1 of 2 notes have more than 6 tokens; the {which} are read"]


def test_training_notes_alone_decide(tmp_path: Path) -> None:
    one, two = kind(), kind()
    a = manifest_of(tmp_path, [["chest clear"] * 2, ["cough"], ["unheard words"] * 4])
    raw = one.read(a)
    one.fit(raw, np.array([0, 1]))
    (tmp_path / "b").mkdir()
    b = manifest_of(tmp_path / "b", [["chest clear"] * 2, ["cough"], ["quite other things altogether"] * 9])
    two.fit(two.read(b), np.array([0, 1]))
    assert one.state() == two.state()
    assert one.slots == 2
    one.fit(raw, np.arange(3))
    assert one.state() != two.state()


def test_what_was_learned_survives_json(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, SAMPLES)
    fitted, loaded = kind(), kind()
    fitted.fit(fitted.read(manifest), np.arange(5))
    loaded.load(json.loads(json.dumps(fitted.state())))
    assert loaded.shapes() == fitted.shapes()
    assert dense(loaded, manifest).equal(dense(fitted, manifest))
    with pytest.raises(ValueError, match="tokenizer of note"):
        loaded.load({"tokenizer": "{}", "slots": 1})


def test_a_state_does_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    """Truncation is kept inside the tokenizer: the saved state must not differ between a fit and a fit that has read."""
    manifest = manifest_of(tmp_path, SAMPLES)
    k = kind()
    raw = k.read(manifest)
    k.fit(raw, np.arange(5))
    before = k.state()
    k.transform(raw)
    other = kind()
    other.fit(other.read(manifest), np.arange(5))
    other.transform(raw)
    assert k.state() == other.state()
    assert Tokenizer.from_str(before["tokenizer"]).get_vocab() == k.tokenizer.get_vocab()


def test_nobody_has_a_note_at_prediction(tmp_path: Path) -> None:
    k = kind()
    k.fit(k.read(manifest_of(tmp_path, SAMPLES)), np.arange(5))
    (tmp_path / "bare.csv").write_text("sample_id\na\nb\n")
    for manifest in (read_manifest(tmp_path / "bare.csv"), manifest_of(tmp_path, [[], []])):
        assert not k.observed(k.read(manifest)).any()
        found = dense(k, manifest)
        assert found.shape == (2, 3, 12)
        assert (found == PAD).all()


def test_a_pretrained_tokenizer_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tokens.train(["other words"] * 3, 300)
    monkeypatch.setattr(text_module.tokens, "pretrained", lambda source, where: given)
    (tmp_path / "weights").mkdir()
    k = kind(weights=str(tmp_path / "weights"))
    k.fit(k.read(manifest_of(tmp_path, SAMPLES)), np.arange(5))
    assert k.tokenizer is given


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": 3}, r"modalities\.note\.max_tokens"),
        ({"max_notes": 0}, r"modalities\.note\.max_notes"),
        ({"keep": "middle"}, r"modalities\.note\.keep"),
        ({"vocabulary": 200}, r"modalities\.note\.vocabulary"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**options)


def test_weights_that_are_no_folder_are_refused_at_the_fit(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, SAMPLES)
    for weights, says in ((str(tmp_path / "gone"), "is no folder that is there"), ("hub", "has no pretrained weights of its own")):
        k = kind(weights=weights)
        with pytest.raises(ConfigError, match=says):
            k.fit(k.read(manifest), np.arange(5))

"""Tokenizers: the same texts give the same one, no text fails, ids stay inside the vocabulary."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from cm2pyro.config import Modality
from cm2pyro.data import tokenizer as tokens
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.notes import clean
from cm2pyro.errors import ConfigError

NOTES = [
    "Chest X-ray shows bilateral infiltrates.",
    "No acute distress; chest clear to auscultation.",
    "Fever and cough since Monday, chest X-ray clear.",
    "Fièvre à 39 °C, toux sèche",
] * 5
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokens.train(NOTES, 400)


def test_the_same_notes_give_the_same_bytes(trained: Tokenizer) -> None:
    assert tokens.train(iter(NOTES), 400).to_str() == trained.to_str()
    assert tokens.train([*NOTES[:-1], "something else"], 400).to_str() != trained.to_str()


def test_special_tokens_come_first_and_the_vocabulary_keeps_to_its_size(trained: Tokenizer) -> None:
    assert {token: trained.token_to_id(token) for token in SPECIAL} == SPECIAL
    assert 260 < trained.get_vocab_size() <= 400
    assert tokens.train(NOTES, 300).get_vocab_size() <= 300
    assert sorted(trained.get_vocab().values()) == list(range(trained.get_vocab_size()))


def test_frequent_words_are_single_tokens_and_case_does_not_matter(trained: Tokenizer) -> None:
    assert len(trained.encode("chest").ids) == 3
    assert trained.encode("CHEST Clear").ids == trained.encode("chest clear").ids


def test_a_note_begins_with_cls_and_ends_with_sep_and_comes_back(trained: Tokenizer) -> None:
    ids, cut = tokens.encode(trained, ["Fever and a rash", ""], 40, False)
    assert cut == 0
    assert ids.shape == (2, 40)
    assert ids.dtype == np.int32
    first = ids[0][ids[0] >= 0]
    assert first[0] == SPECIAL["[CLS]"]
    assert first[-1] == SPECIAL["[SEP]"]
    assert trained.decode(first.tolist()).strip() == "fever and a rash"
    assert ids[1].tolist() == [2, 3, *[tokens.PAD] * 38]


@pytest.mark.parametrize("keep_end", [False, True])
def test_a_long_note_keeps_its_beginning_or_its_end(trained: Tokenizer, keep_end: bool) -> None:
    whole, none = tokens.encode(trained, [NOTES[0]], 100, keep_end)
    inner = [i for i in whole[0].tolist() if i > 3]
    part, cut = tokens.encode(trained, [NOTES[0], "ok"], 6, keep_end)
    assert (none, cut) == (0, 1)
    assert part[0].tolist() == [2, *(inner[-4:] if keep_end else inner[:4]), 3]
    # Another length or end later is not held up by this one.
    again, _ = tokens.encode(trained, [NOTES[0]], 100, not keep_end)
    assert again.tolist() == whole.tolist()


def test_a_saved_tokenizer_reads_alike(trained: Tokenizer) -> None:
    tokens.encode(trained, NOTES, 5, True)  # leaves its truncation behind
    loaded = Tokenizer.from_str(json.loads(json.dumps(trained.to_str())))
    np.testing.assert_array_equal(tokens.encode(loaded, NOTES, 30, False)[0], tokens.encode(trained, NOTES, 30, False)[0])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4), st.integers(4, 20), st.booleans())
def test_no_text_fails_and_ids_stay_inside_the_vocabulary(texts: list[str], length: int, keep_end: bool) -> None:
    trained = _TRAINED
    cleaned = [clean(text) for text in texts]
    ids, cut = tokens.encode(trained, cleaned, length, keep_end)
    assert ids.shape == (len(texts), length)
    assert int(ids.max(initial=0)) < trained.get_vocab_size()
    there = ids >= 0
    assert (ids[~there] == tokens.PAD).all()
    # Tokens stand together at the front, between [CLS] and [SEP], and nothing is unknown to bytes.
    assert (np.diff(there.astype(int), axis=1) <= 0).all()
    assert (there.sum(1) >= 2).all()
    assert (ids != SPECIAL["[UNK]"]).all()
    assert 0 <= cut <= len(texts)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_a_cleaned_text_is_one_printable_line_and_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert once.isprintable()
    assert once == once.strip()
    assert clean(once) == once
    once.encode()  # no lone surrogates


_TRAINED = tokens.train(NOTES, 400)


@pytest.mark.parametrize("vocabulary", [0, 259, 299, 2_000_000])
def test_a_vocabulary_that_cannot_hold_the_alphabet_is_refused(vocabulary: int) -> None:
    with pytest.raises(ConfigError, match=r"modalities\.note\.vocabulary"):
        make_kind("note", Modality(kind="text", encoder="bag", vocabulary=vocabulary), ("tokens",))  # type: ignore[call-arg]

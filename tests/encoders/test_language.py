"""Hugging Face's encoders against the library itself, and pooling by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
)

from cm2pyro.encoders.language import NoteEncoder, TinyBERT
from tests.encoders.hugging_face import POSITIONS, make, notes, small
from tests.refusals import config_refusal

# --- features --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["mean", "first"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_features_are_those_of_the_library(folders: dict[str, Path], family: str, token: str) -> None:
    encoder = make(folders[family], (1, 9), weights=str(folders[family]), token=token).eval()
    network = AutoModel.from_pretrained(folders[family]).eval()
    x = notes(5, 1, 9)
    found = encoder({"tokens": x})
    for row in range(5):
        ids = x[row, 0][x[row, 0] >= 0][None]  # alone and without padding
        with torch.no_grad():
            states = network(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(found[row], states[0] if token == "first" else states.mean(0), rtol=1e-4, atol=1e-5)
    assert encoder.remarks == ()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_padding_does_not_matter(folders: dict[str, Path], family: str) -> None:
    encoder = make(folders[family], (2, 9), weights=str(folders[family])).eval()
    x = notes(4, 2, 9)
    wider = torch.full((4, 4, 14), -1)
    wider[:, :2, :9] = x
    torch.testing.assert_close(encoder({"tokens": wider}), encoder({"tokens": x}), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "attention", "last"])
def test_several_notes_are_pooled_as_by_hand(pool: str) -> None:
    encoder = small(pool=pool).eval()
    x = notes(6, 3, 9, seed=2)
    found = encoder({"tokens": x})
    for row in range(6):
        there = [slot for slot in range(3) if x[row, slot, 0] >= 0]
        single = torch.stack([encoder({"tokens": x[row : row + 1, slot : slot + 1]})[0] for slot in there])
        if pool == "mean":
            expected = single.mean(0)
        elif pool == "last":
            expected = single[-1]
        else:
            assert encoder.weigh is not None
            encoder.weigh.requires_grad_(False)
            score = [float(note @ encoder.weigh.weight[0] + encoder.weigh.bias) for note in single.detach()]
            weight = np.exp(score) / np.exp(score).sum()
            expected = sum(float(w) * note for w, note in zip(weight, single, strict=True))  # type: ignore[assignment]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "attention", "last"])
def test_training_and_evaluation_see_the_same_without_dropout(pool: str) -> None:
    architecture = BertConfig(vocab_size=300, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24).to_dict()
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0}
    encoder = TinyBERT({"tokens": (3, 9)}, pool=pool, architecture=architecture | still)
    x = {"tokens": notes(6, 3, 9)}
    torch.testing.assert_close(encoder.train()(x), encoder.eval()(x), rtol=1e-4, atol=1e-5)


def test_rows_without_notes_are_finite_and_touch_no_gradient() -> None:
    encoder = small(pool="attention").train()
    x = notes(3, 3, 9)
    x[1] = -1
    out = encoder({"tokens": x})
    assert bool(out.isfinite().all())
    out[1].sum().backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in encoder.parameters())
    empty = encoder({"tokens": torch.full((2, 3, 9), -1)})
    assert bool(empty.isfinite().all())


def test_absent_notes_have_no_weight_of_their_own() -> None:
    """A class that only reads: a row's result does not depend on how many empty slots it has."""

    class Sum(NoteEncoder):
        def read(self, tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
            return (tokens * there).sum(1, keepdim=True).float()

    x = torch.full((2, 4, 3), -1)
    x[0, 0] = torch.tensor([1, 2, 3])
    x[0, 1, :1] = 10
    x[1, 0, :2] = 7
    shape = {"tokens": (4, 3)}
    assert Sum(shape, 1, "mean").eval()({"tokens": x})[:, 0].tolist() == [8, 14]
    assert Sum(shape, 1, "last").eval()({"tokens": x})[:, 0].tolist() == [10, 14]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_more_tokens_than_positions_are_refused_and_as_many_are_read(folders: dict[str, Path], family: str) -> None:
    # RoBERTa counts from two (its padding is number 1), from one where padding is number 0.
    for weights, most in ((str(folders[family]), POSITIONS - 2), ("none", POSITIONS - 1)):
        most = most if family == "roberta" else POSITIONS
        encoder = make(folders[family], (1, most), weights=weights).eval()
        full = torch.randint(4, 300, (2, 1, most))
        full[1, 0, 5:] = -1
        assert bool(encoder({"tokens": full}).isfinite().all())
        config_refusal(
            lambda weights=weights, most=most: make(folders[family], (1, most + 1), weights=weights),
            f"max_tokens is {most + 1}",
            f"at most {most}",
        )
    assert small((1, 600)).eval()({"tokens": notes(1, 1, 600)}).shape == (1, 24)  # from scratch it has as many as are asked for

"""Hugging Face's encoders against the library itself, pooling by hand, and runs that need nothing beside them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from cm2pyro import CM2
from cm2pyro.config import Config
from cm2pyro.data import pretrained as pretrained_module
from cm2pyro.data import tokenizer as tokens
from cm2pyro.encoders import ENCODERS, check_encoders, make_encoder
from cm2pyro.encoders import language as language_module
from cm2pyro.encoders.language import HuggingFace, Notes, TinyBERT
from tests.refusals import config_refusal

WORDS = ["fever", "cough", "chest", "clear", "opacity", "edema", "no", "acute", "distress", "today"]
POSITIONS = 24


def save(folder: Path, family: str, dtype: torch.dtype = torch.float32, tokenizer: bool = True) -> Path:
    torch.manual_seed(1)
    common = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": POSITIONS}
    network: Any
    if family == "bert":
        network = BertModel(BertConfig(hidden_size=16, intermediate_size=24, **common))
    elif family == "roberta":
        network = RobertaModel(RobertaConfig(hidden_size=16, intermediate_size=24, **common))
    else:
        network = DistilBertModel(
            DistilBertConfig(dim=16, hidden_dim=24, n_layers=2, n_heads=2, vocab_size=300, max_position_embeddings=POSITIONS)
        )
    with torch.no_grad():
        for p in network.parameters():  # biases and norms that are not 0 and 1
            p.add_(0.05 * torch.randn_like(p))
    network.to(dtype).save_pretrained(folder)
    if tokenizer:
        trained = tokens.train([" ".join(WORDS)] * 4, 300)
        special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        PreTrainedTokenizerFast(tokenizer_object=trained, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("networks")
    return {family: save(root / family, family) for family in ("bert", "roberta", "distilbert")}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Folders are remembered by name, and a test may put another there."""
    yield
    pretrained_module.folder_of.cache_clear()


def notes(n: int, slots: int, length: int, seed: int = 0) -> torch.Tensor:
    """Notes of two to `length` tokens, one to `slots` a row."""
    random = torch.Generator().manual_seed(seed)
    out = torch.full((n, slots, length), -1)
    for row in range(n):
        for slot in range(1 + int(torch.randint(0, slots, (), generator=random))):
            k = 2 + int(torch.randint(0, length - 1, (), generator=random))
            out[row, slot, :k] = torch.randint(4, 300, (k,), generator=random)
    return out


def make(source: str | Path, shape: tuple[int, int] = (3, 9), **options: Any) -> HuggingFace:
    torch.manual_seed(0)
    encoder = ENCODERS.get(str(source))({"tokens": shape}, vocabulary=300, **options)
    assert isinstance(encoder, HuggingFace)
    return encoder


def small(shape: tuple[int, int] = (3, 9), **options: Any) -> HuggingFace:
    return make("tinybert", shape, layers=2, hidden=24, heads=4, **options)


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
    assert encoder.said == ()


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

    class Sum(Notes):
        def read(self, tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
            return (tokens * there).sum(1, keepdim=True).float()

    x = torch.full((2, 4, 3), -1)
    x[0, 0] = torch.tensor([1, 2, 3])
    x[0, 1, :1] = 10
    x[1, 0, :2] = 7
    shape = {"tokens": (4, 3)}
    assert Sum(shape, 1, "mean").eval()({"tokens": x})[:, 0].tolist() == [8, 14]
    assert Sum(shape, 1, "last").eval()({"tokens": x})[:, 0].tolist() == [10, 14]


# --- weights ---------------------------------------------------------------------------------------------------------


def config(**modality: Any) -> Config:
    return Config.from_dict({"modalities": {"note": {"kind": "text", "encoder": "tinybert", **modality}}})


def test_a_name_on_the_hub_is_read_from_where_it_was_fetched(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetched(source: str, where: str) -> Path:
        asked.append(source)
        return folders["bert"]

    monkeypatch.setattr(language_module, "folder_of", fetched)
    x = {"tokens": notes(3, 1, 9)}
    pretrained = make("someone/some-encoder", (1, 9), weights="hub").eval()
    torch.testing.assert_close(pretrained(x), make("someone/some-encoder", (1, 9), weights=str(folders["bert"])).eval()(x))
    scratch = make("someone/some-encoder", (1, 9), weights="none").eval()
    assert (scratch.width, pretrained.width) == (16, 16)
    assert not torch.allclose(scratch(x), pretrained(x))
    assert scratch.said == ("someone/some-encoder starts from scratch (weights: none)",)
    assert {"someone/some-encoder"} <= set(asked)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_folder_names_the_encoder_too(folders: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[family].parent)
    source = f"./{family}"
    check_encoders(config(encoder=source))
    x = {"tokens": notes(3, 2, 9)}
    hub, path = make(source, (2, 9), weights="hub").eval(), make(source, (2, 9), weights=source).eval()
    assert hub(x).equal(path(x))
    scratch = make(source, (2, 9), weights="none")
    assert scratch.network.config.vocab_size == 300
    assert scratch.eval()(x).shape == hub(x).shape
    assert make_encoder(config(encoder=source), "note", {"tokens": (2, 9)}, restored={"note": hub.architecture}).width == 16  # type: ignore[dict-item]


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


def test_half_precision_files_give_single_precision(tmp_path: Path) -> None:
    folder = save(tmp_path / "half", "bert", torch.bfloat16)
    for weights in (str(folder), "none"):
        encoder = make(folder, (1, 9), weights=weights).eval()
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
        assert encoder({"tokens": notes(2, 1, 9)}).dtype == torch.float32


def test_wrong_folders_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    config_refusal(lambda: make("tinybert", weights=str(bare)), str(bare), "cannot be read as a Hugging Face encoder", "config.json")
    config_refusal(lambda: make("tinybert", weights=str(tmp_path / "gone")), "gone", "is no folder that is there")
    config_refusal(lambda: make("tinybert", weights=str(folders["bert"]), layers=2), "layers, hidden and heads are those of the weights")
    for name in ("./no/such", str(tmp_path / "gone"), "~/x"):  # not asked for on the hub, where such names cannot be
        config_refusal(lambda name=name: make(name, weights="hub"), name, "is no folder that is there")
    mixed = tmp_path / "mixed"  # one network's config, another's weights
    shutil.copytree(folders["bert"], mixed)
    shutil.copy(folders["distilbert"] / "model.safetensors", mixed / "model.safetensors")
    config_refusal(lambda: make("tinybert", weights=str(mixed)), str(mixed), "not those of its config.json")
    mute = save(tmp_path / "mute", "bert", tokenizer=False)
    config_refusal(lambda: tokens.pretrained(str(mute), "modalities.note"), str(mute), "tokenizer")
    wordy = tokens.pretrained(str(folders["bert"]), "modalities.note")
    assert wordy.encode("chest clear").ids == tokens.train([" ".join(WORDS)] * 4, 300).encode("chest clear").ids


def test_networks_that_do_not_read_tokens_alone_are_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model, ViTConfig, ViTModel

    T5Model(T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path / "t5")
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32}
    ViTModel(ViTConfig(**tiny)).save_pretrained(tmp_path / "vit")
    for name in ("t5", "vit"):
        for weights in ("none", "hub"):
            config_refusal(
                lambda name=name, weights=weights: make(tmp_path / name, weights=weights), name, "does not turn notes into features"
            )


def test_weights_of_an_encoder_that_has_none_are_refused(folders: dict[str, Path]) -> None:
    """The tokenizer would be that of the folder, and name more tokens than the encoder has vectors for."""
    config_refusal(
        lambda: check_encoders(config(encoder="bag", weights=str(folders["bert"]))), "modalities.note.weights", "'bag' always starts"
    )
    check_encoders(config(encoder="bag", weights="none"))


def test_the_hub_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    for name in ("someone/some-encoder", "tinybert"):
        hub = pretrained_module.HUB.get(name, name)
        config_refusal(lambda name=name: make(name, weights="hub"), hub, "cannot be had (no route)", "hf download", "weights: none")


# --- tuning ----------------------------------------------------------------------------------------------------------


def trained(encoder: HuggingFace) -> set[str]:
    encoder.train()
    encoder({"tokens": notes(4, 3, 9)}).square().sum().backward()
    return {name for name, p in encoder.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


def test_how_much_is_trained(folders: dict[str, Path]) -> None:
    weights = str(folders["bert"])
    full = make("tinybert", weights=weights)
    assert trained(full) == {name for name, _ in full.named_parameters() if "key.bias" not in name} | (
        trained(full) & {name for name, _ in full.named_parameters() if "key.bias" in name}  # softmax forgets it, up to rounding
    )
    assert not [p for p in make("tinybert", weights=weights, tune="frozen").parameters() if p.requires_grad]
    last = make("tinybert", weights=weights, tune="last:1")
    assert {name for name, p in last.named_parameters() if p.requires_grad} == {
        name for name, _ in last.named_parameters() if "layer.1." in name
    }
    lora = make("tinybert", weights=weights, tune="lora:2")
    wanted = {name for name, p in lora.named_parameters() if p.requires_grad}
    assert wanted
    assert all("lora_" in name for name in wanted)
    x = {"tokens": notes(3, 3, 9)}
    torch.testing.assert_close(lora.eval()(x), full.eval()(x))
    config_refusal(lambda: make("tinybert", weights=weights, tune="last:3"), "the network's 2 blocks")


# --- a run -----------------------------------------------------------------------------------------------------------


def frame(n: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, n)
    texts = [" ".join([*random.choice(WORDS[2:], 4), "fever" if label else "clear"]) for label in y]
    texts = ["" if i % 7 == 3 else text for i, text in enumerate(texts)]
    return pd.DataFrame(
        {
            "sample_id": [f"s{i:02d}" for i in range(n)],
            "subject_id": [f"p{i:02d}" for i in range(n)],
            "split": ["train" if i < 30 else "val" for i in range(n)],
            "label": y.astype(str),
            "note": texts,
            "a": random.normal(size=n).round(3).astype(str),
        }
    )


def settings(**note: Any) -> dict[str, Any]:
    return {
        "modalities": {
            "note": {"kind": "text", "max_tokens": 10, **note},
            "lab": {"kind": "tabular", "encoder": "mlp", "columns": ["a"]},
        },
        "latent": {"dim": 3},
        "fit": {"epochs": 2, "batch_size": 16, "restarts": 1},
    }


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("by", ["weights", "scratch", "lora"])
def test_a_run_needs_nothing_but_its_folder(tmp_path: Path, folders: dict[str, Path], family: str, by: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(folders[family], source)
    note = {
        "weights": {"encoder": "tinybert", "weights": str(source)},
        "scratch": {"encoder": str(source), "weights": "none", "vocabulary": 300},
        "lora": {"encoder": str(source), "weights": "hub", "tune": "lora:2"},
    }[by]
    said: list[str] = []
    model = CM2.from_config(settings(**note), say=said.append).fit(frame(), out=tmp_path / "run", device="cpu")
    assert any("starts from scratch" in line for line in said) == (by == "scratch")
    expected = model.predict(frame())
    model.save(tmp_path / "saved")
    shutil.rmtree(source)
    pretrained_module.folder_of.cache_clear()
    for run in ("run", "saved"):
        loaded = CM2.load(tmp_path / run)
        pd.testing.assert_frame_equal(loaded.predict(frame()), expected)
        alone = loaded.predict(frame().drop(columns=["note", "split", "label", "subject_id"]))
        assert alone["probability"].notna().all()
        assert (alone["missing"] == "note").all()

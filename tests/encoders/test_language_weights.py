"""Where weights of Hugging Face's encoders come from, how much of them is trained, and runs that need nothing beside them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro import CM2
from cm2pyro.config import Config
from cm2pyro.data import pretrained as pretrained_module
from cm2pyro.data import tokenizer as tokens
from cm2pyro.encoders import check_encoders, make_encoder
from cm2pyro.encoders import language as language_module
from cm2pyro.encoders.language import HuggingFace
from tests.encoders.hugging_face import WORDS, make, notes, save
from tests.refusals import config_refusal

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
    assert scratch.remarks == ("someone/some-encoder starts from scratch (weights: none)",)
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


@pytest.mark.slow
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

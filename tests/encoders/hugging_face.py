"""Small networks of Hugging Face in folders, the encoders that read them, and notes."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from cm2pyro.data import tokenizer as tokens
from cm2pyro.encoders import ENCODERS
from cm2pyro.encoders.language import HuggingFace

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
        # Said in the folder too: transformers 4 sets it to what is said there when it reads.
        PreTrainedTokenizerFast(tokenizer_object=trained, add_prefix_space=True, **special).save_pretrained(folder)
    return folder


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

"""Tokenizers: trained on the training notes, or read from a pretrained encoder; kept as JSON."""

import os
import sys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cm2pyro.data.pretrained import cannot_be_had, folder_of, quiet

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PAD = -1  # in arrays of tokens
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.vocab")


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE on lower-cased text; the same texts give the same tokenizer, which WordPiece's trainer does not promise."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, _SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
    )
    return tokenizer


def pretrained(source: str, where: str) -> Tokenizer:
    """The tokenizer of a pretrained encoder. Raises ConfigError if it cannot be had."""
    from transformers import AutoTokenizer

    folder = folder_of(source, where)
    if not any(any(folder.glob(name)) for name in _VOCABULARIES):
        # The library would make one that knows no word.
        raise cannot_be_had(str(folder), where, FileNotFoundError("no tokenizer.json and no vocabulary beside it"))
    try:
        with quiet():
            wrapped = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    except Exception as error:  # the hub's client, the file system and the parsers each have their own
        raise cannot_be_had(source, where, error) from error


def restored(text: str) -> Tokenizer:
    """From the JSON of a run, tried on a word. Raises ValueError, whatever the library made of it."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)  # a panic of the library writes its own traceback there
        tokenizer = Tokenizer.from_str(text)
        tokenizer.encode("a")
    except BaseException as error:  # its parser raises nothing narrower than Exception, and panics are not even that
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(str(error)) from error
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str], length: int, keep_end: bool) -> tuple[NDArray[np.int32], int]:
    """Notes as token ids.

    Args:
        length: most tokens of a note, those at its ends that the tokenizer adds included. keep_end: cut the beginning, not the end.

    Returns:
        (len(texts), length) ids, `PAD` after the end; and how many notes were cut.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, direction="left" if keep_end else "right")
    ids = np.full((len(texts), length), PAD, dtype=np.int32)
    cut = 0
    for i, encoding in enumerate(tokenizer.encode_batch(texts)):
        ids[i, : len(encoding.ids)] = encoding.ids
        cut += bool(encoding.overflowing)
    return ids, cut

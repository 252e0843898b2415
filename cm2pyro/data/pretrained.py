"""Pretrained encoders of Hugging Face: which one `weights` names, and where its files are."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cm2pyro.errors import CM2Error, ConfigError
from cm2pyro.registry import one_line

# encoders that have a pretrained counterpart of their own; any other is named as organisation/name
HUB = {"tinybert": "huawei-noah/TinyBERT_General_4L_312D"}
_WEIGHTS = ("*.safetensors", "*.bin")
_FILES = ["*.json", "*.txt", "*.model"]  # configuration, vocabulary


def source_of(encoder: str, weights: str, where: str) -> str | None:
    """What `weights` names: None for `none`, else a folder or a name on the hub.

    Raises:
        ConfigError: `hub` for an encoder that has no counterpart there, or a folder that is not there.
    """
    if weights == "none":
        return None
    if weights == "hub":
        source = HUB.get(encoder, encoder if "/" in encoder else None)
        if source is None:
            raise ConfigError(f"{where}: encoder '{encoder}' has no pretrained weights of its own; write weights: none, or a folder")
        return source
    if not Path(weights).is_dir():
        raise ConfigError(f"{where}: weights: '{one_line(weights)}' is no folder that is there; expected none, hub, or a folder")
    return weights


@cache
def folder_of(source: str, where: str) -> Path:
    """The folder with configuration, weights and tokenizer; fetched from the hub once if it is a name there.

    Raises:
        ConfigError: not here and cannot be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.startswith((".", "/", "~")):
        raise ConfigError(f"{where}: '{one_line(source)}' is no folder that is there; expected one, or organisation/name of the hub")
    from huggingface_hub import HfApi, snapshot_download

    try:
        found = Path(snapshot_download(source, local_files_only=True))
        if (found / "config.json").is_file() and any(list(found.glob(pattern)) for pattern in _WEIGHTS):
            return found
    except Exception:  # not in the cache, whatever the reason: the next step finds out
        pass
    try:
        # Asked first, since the download itself would try again for most of a minute.
        files = [file.rfilename for file in HfApi().model_info(source, timeout=10).siblings or []]
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in files) else "*.bin"
        return Path(snapshot_download(source, allow_patterns=[*_FILES, weights]))
    except Exception as error:  # the client, the network and the disk each have their own
        raise cannot_be_had(source, where, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines of the library, which repeat at length what we say in a line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def cannot_be_had(source: str, where: str, error: Exception) -> CM2Error:
    """The one line for a pretrained encoder that is not here, cannot be fetched, or cannot be read."""
    reason = one_line(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 160)
    if Path(source).exists():
        return ConfigError(
            f"{where}: {source} cannot be read as a Hugging Face encoder ({reason}); expected config.json, weights, tokenizer"
        )
    return ConfigError(
        f"{where}: {source} cannot be had ({reason}); where there is a network run `hf download {source} --local-dir FOLDER`, "
        "then write weights: FOLDER; or weights: none to start from scratch"
    )

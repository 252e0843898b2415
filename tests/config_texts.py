"""Configs as text, for the tests of what they mean and of how they are read."""

from pathlib import Path
from typing import Any

from cm2pyro.config import Config
from cm2pyro.errors import ConfigError

MINIMAL = "modalities:\n  ehr: {kind: timeseries, encoder: lstm}\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str, *overrides: str) -> Config:
    return Config.from_file(written(folder, text), overrides)


def outcome(call: Any) -> str:
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""

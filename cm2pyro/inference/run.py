"""A run folder: what a fit leaves behind, written and read."""

import fcntl
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cm2pyro import __version__
from cm2pyro.config import Config
from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.files import write_text
from cm2pyro.inference import checkpoint
from cm2pyro.inference.ensemble import MEMBERS
from cm2pyro.registry import one_line

CONFIG, PREPROCESSING, HOLDOUT, ENV, HISTORY, MASK, LOCK = (
    "config.yaml",
    "preprocessing.json",
    "holdout.json",
    "env.json",
    "metrics.jsonl",
    "mask.csv",
    ".lock",
)
POSTERIOR = "posterior.nc"
_RESULTS = ("mixture.json", "reference.safetensors", "recalibration.json", "report.html", POSTERIOR)
_OURS = (CONFIG, PREPROCESSING, HOLDOUT, ENV, HISTORY, MASK, "snapshots.safetensors", *_RESULTS)


def check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder that would lose something; writes nothing.

    Raises:
        ConfigError: not empty without resume or overwrite; both given; --overwrite on a folder that is no run.
        CheckpointError: nothing to resume.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite: one goes on, the other starts anew; pass one of them")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; a run folder is expected; name another")
    filled = out.exists() and any(child.name != LOCK for child in out.iterdir())
    begun = checkpoint.last(out).is_file()
    if resume and not begun:
        remedy = "fit with --overwrite in place of --resume" if filled else "fit without --resume"
        raise CheckpointError(f"{out}: holds no checkpoint to resume; {remedy}")
    if filled and not (resume or overwrite):
        remedy = "pass --resume to go on, --overwrite to start anew" if begun else "pass --overwrite if it is a run to replace"
        raise ConfigError(f"{out}: the folder is not empty; {remedy}, or name another")
    if filled and overwrite and not (out / CONFIG).is_file():
        raise ConfigError(f"{out}: --overwrite replaces only a run folder, and this one has no {CONFIG}; name another")


def clear(out: Path, overwrite: bool) -> None:
    """Make room for a new run. Only what a fit writes is removed; a user's own files beside it stay."""
    if overwrite:
        for path in [*(out / name for name in _OURS), out / "tokenizer.json", *out.glob("tokenizer_*.json")]:
            path.unlink(missing_ok=True)
        for folder in ("checkpoints", MEMBERS):
            shutil.rmtree(out / folder, ignore_errors=True)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)


def drop_results(out: Path) -> None:
    """Remove what is computed from the final weights, before a fit goes on and changes them."""
    for name in _RESULTS:
        (out / name).unlink(missing_ok=True)


def remove_if_empty(out: Path, existed: bool) -> None:
    """After a refusal: leave no folder that was not there before."""
    if not existed and out.is_dir() and all(child.name == LOCK for child in out.iterdir()):
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends. Raises CheckpointError if another fit holds it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / LOCK).open("w")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose a folder that is writable") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(f"{out}: another fit is writing into this folder; wait for it or name another folder") from error
        yield


def write_setup(
    out: Path, config: Config, state: dict[str, Any], holdout: dict[str, list[str]], device: str, tokenizers: dict[str, str]
) -> None:
    """What is known before the first epoch. tokenizers: modality -> JSON, written for other tools; a run reads its own from `state`."""
    config.to_file(out / CONFIG)
    write_text(out / PREPROCESSING, json.dumps(state))
    write_text(out / HOLDOUT, json.dumps(holdout))
    for name, tokenizer in tokenizers.items():
        write_text(out / ("tokenizer.json" if len(tokenizers) == 1 else f"tokenizer_{name}.json"), tokenizer)
    env = versions() | {"seed": config.fit.seed, "device": device}
    write_text(out / ENV, json.dumps(env, indent=2) + "\n")


def versions() -> dict[str, Any]:
    """Of this package, Python and what numbers depend on."""
    packages = ("torch", "pyro-ppl", "numpy", "pandas", "scikit-learn")
    return {"cm2pyro": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def write_history(out: Path, records: list[dict[str, Any]]) -> None:
    """metrics.jsonl, a line an epoch."""
    write_text(out / HISTORY, "".join(json.dumps(record) + "\n" for record in records))


def read_history(out: Path) -> list[dict[str, Any]]:
    """Raises CheckpointError if metrics.jsonl is not there or broken."""
    try:
        return [json.loads(line) for line in (out / HISTORY).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{out / HISTORY}: cannot be read ({error}); fit again with --overwrite") from error


def write_mask(out: Path, mask: pd.DataFrame | None) -> None:
    """mask.csv, if modalities were hidden: 1 where a row of the fit keeps a modality."""
    if mask is not None:
        write_text(out / MASK, _csv(mask))


def _csv(mask: pd.DataFrame | None) -> str:
    return "" if mask is None else mask.to_csv(index=False, lineterminator="\n")


def read_mask(out: Path) -> pd.DataFrame | None:
    """None if the run has none. Raises CheckpointError if it cannot be read."""
    if not (out / MASK).exists():
        return None
    try:
        return pd.read_csv(out / MASK, dtype={"sample_id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{out / MASK}: cannot be read ({one_line(error)}); fit again with --overwrite") from error


def check_resumable(out: Path, config: Config, state: dict[str, Any], mask: pd.DataFrame | None) -> None:
    """Refuse to go on with another config, training data or mask than the run's; more epochs, patience or members are fine.

    Raises:
        ConfigError: names the first key that differs. DataError: the training data give other scalings.
    """
    then, now = _flat(read_config(out).to_dict()), _flat(config.to_dict())
    for key in sorted(set(then) | set(now)):
        if key not in ("fit.epochs", "fit.patience", "fit.ensemble") and then.get(key) != now.get(key):
            raise ConfigError(
                f"--resume: {key} is {now.get(key)!r}, and the run in {out} has {then.get(key)!r}; "
                f"resume with its own {CONFIG}, or start anew"
            )
    same_mask = _csv(read_mask(out)) == _csv(mask)
    if not same_mask or read_json(out / PREPROCESSING) != json.loads(json.dumps(state)):
        raise DataError(
            f"--resume: the training data are not those that the run in {out} was fitted to; give the same manifest, or start anew"
        )


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def read_json(path: Path) -> Any:
    """Raises CheckpointError if it is not there or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); is this a run folder?") from error


def read_config(run: Path) -> Config:
    """Raises CheckpointError if the folder is no run."""
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run}: is no run folder, {CONFIG} is not there; name a folder that 'cm2pyro fit' wrote")
    try:
        return Config.from_file(run / CONFIG)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error

"""A run folder: what a fit leaves behind, written and read."""

import fcntl
import io
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cm2pyro import __version__, logs
from cm2pyro.config import Config
from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.files import read_bytes, read_text, remove_leftovers, write_text
from cm2pyro.foreign import versions_of
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
POSTERIOR, TRACKED = "posterior.nc", "trackers"
_MOST_BYTES = 512 << 20  # of a JSON file; that of what was learned holds tokenizers
_RESULTS = ("mixture.json", "reference.safetensors", "recalibration.json", "report.html", POSTERIOR)
_OURS = (PREPROCESSING, HOLDOUT, ENV, HISTORY, MASK, "snapshots.safetensors", logs.FILE, *_RESULTS)
_FOLDERS = ("checkpoints", MEMBERS, TRACKED)
_OLD = ".old."  # a folder on its way out


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
    filled = out.exists() and any(child.name not in (LOCK, logs.FILE) for child in out.iterdir())
    begun = checkpoint.begun(out)
    if resume and not begun and not _just_begun(out):
        remedy = "fit with --overwrite in place of --resume" if filled else "fit without --resume"
        raise CheckpointError(f"{out}: holds no checkpoint to resume; {remedy}")
    if filled and not (resume or overwrite):
        remedy = (
            "pass --resume to go on, --overwrite to start anew"
            if begun or _just_begun(out)
            else "pass --overwrite if it is a run to replace"
        )
        raise ConfigError(f"{out}: the folder is not empty; {remedy}, or name another")
    if filled and overwrite and not (out / CONFIG).is_file() and not _just_begun(out):
        raise ConfigError(f"{out}: --overwrite replaces only a run folder, and this one has no {CONFIG}; name another")


def _just_begun(out: Path) -> bool:
    """Whether a fit was killed in this folder before its first checkpoint, so that `--resume` begins anew and loses nothing."""
    if not out.is_dir() or checkpoint.best(out).is_file():  # a fit that was kept in memory and saved has that, and nothing to go on from
        return False
    names = {child.name for child in out.iterdir()}
    ours = {LOCK, CONFIG, *_OURS, *_FOLDERS, *(name for name in names if name.startswith("tokenizer") or _is_rest(name))}
    return LOCK in names and (CONFIG in names or names <= ours)


def _is_rest(name: str) -> bool:
    return name.startswith((_OLD, *(f".{ours}." for ours in (CONFIG, *_OURS))))


def clear(out: Path, overwrite: bool) -> None:
    """Make room for a new run. Only what a fit writes is removed; a user's own files beside it stay.

    The config goes last, by being replaced: a fit that is killed in here leaves a folder that --resume and --overwrite know as a run.
    """
    if overwrite:
        for name in _FOLDERS:  # whole, by a rename: no checkpoint of the earlier run is left alone
            if (out / name).is_dir():
                os.replace(out / name, out / f"{_OLD}{name}.{os.getpid()}")
        for path in [*(out / name for name in _OURS), out / "tokenizer.json", *out.glob("tokenizer_*.json")]:
            path.unlink(missing_ok=True)
    tidy(out)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)


def is_own(run: Path, path: Path) -> bool:
    """Whether a path, both resolved, is a file that a fit wrote into its run folder and that the run needs."""
    if not path.is_relative_to(run):
        return False
    first, *rest = path.relative_to(run).parts or (".",)
    return first in _FOLDERS or (not rest and (first in (CONFIG, LOCK, *_OURS) or first.startswith("tokenizer")))


def tidy(out: Path) -> None:
    """Remove what killed fits left half-written; the folder's lock must be held."""
    remove_leftovers(out, (CONFIG, "tokenizer.json", *_OURS))
    for place in [out, *(out / MEMBERS).glob("*")]:
        names = {child.name.removeprefix(".").split(".")[0] for child in (place / "checkpoints").glob(".*.safetensors")}
        remove_leftovers(place, [f"checkpoints/{name}.safetensors" for name in names])
        remove_leftovers(place, (HISTORY, "snapshots.safetensors"))
    for folder in out.glob(f"{_OLD}*"):
        shutil.rmtree(folder, ignore_errors=True)


def drop_results(out: Path) -> None:
    """Remove what is computed from the final weights, before a fit goes on and changes them."""
    for name in _RESULTS:
        (out / name).unlink(missing_ok=True)


def remove_if_empty(out: Path, existed: bool) -> None:
    """After a refusal: leave no folder that was not there before."""
    if not existed and out.is_dir() and all(child.name in (LOCK, logs.FILE) for child in out.iterdir()):
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def locked(out: Path, holder: str = "fit") -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends. Raises CheckpointError if another `holder` has it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.fdopen(os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "r+b", buffering=0)  # a pipe would wait
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose a folder that is writable") from error
    with handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise DataError(f"{out / LOCK}: is not a regular file, and holds no lock; remove it")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(f"{out}: another {holder} is writing into this folder; wait for it or name another folder") from error
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
    foreign = versions_of(config.foreign().values())
    if foreign:
        env["packages"] = foreign
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
        records = [json.loads(line) for line in read_text(out / HISTORY, _MOST_BYTES).splitlines()]
        if not all(isinstance(record, dict) and isinstance(record.get("epoch"), int) for record in records):
            raise ValueError("a line is no record of an epoch")
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise CheckpointError(f"{out / HISTORY}: cannot be read ({reason}); fit again with --overwrite") from error
    return records


def best_record(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """That of the epoch with the least validation log-loss, whose weights are kept; where nothing was validated, of the last one."""
    scored = [record for record in records if record.get("val_log_loss") is not None]
    return min(scored, key=lambda record: record["val_log_loss"]) if scored else records[-1] if records else None


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
        return pd.read_csv(io.BytesIO(read_bytes(out / MASK, _MOST_BYTES)), dtype={"sample_id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{out / MASK}: cannot be read ({one_line(error)}); fit again with --overwrite") from error


_NAMED = 3  # classes that a message lists
_MAY_CHANGE = ("fit.epochs", "fit.patience", "fit.ensemble", "fit.checkpoint_minutes", "fit.skip", "fit.compile", "fit.trackers")


def check_resumable(out: Path, config: Config, state: dict[str, Any], mask: pd.DataFrame | None) -> None:
    """Refuse to go on with another config, training data or mask than the run's; other epochs, patience, members … are fine.

    Raises:
        ConfigError: names the first key that differs. DataError: the training data give other scalings.
    """
    then, now = flat(read_config(out, trust_code=True).to_dict()), flat(config.to_dict())  # compared, and no more
    for key in sorted(set(then) | set(now)):
        if key not in _MAY_CHANGE and then.get(key) != now.get(key):
            raise ConfigError(
                f"--resume: {key} is {now.get(key)!r}, and the run in {out} has {then.get(key)!r}; "
                f"resume with its own {CONFIG}, or start anew"
            )
    same_mask = _csv(read_mask(out)) == _csv(mask)
    if not same_mask or read_json(out / PREPROCESSING) != json.loads(json.dumps(state)):
        raise DataError(
            f"--resume: the training data are not those that the run in {out} was fitted to; give the same manifest, or start anew"
        )


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON. Raises CheckpointError if it is not there or something else."""
    try:
        found = json.loads(read_text(path, _MOST_BYTES))
        if not isinstance(found, dict):
            raise ValueError(f"found {type(found).__name__}, expected an object")
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise CheckpointError(f"{path}: cannot be read ({reason}); is this a run folder?") from error
    return found


def read_holdout(out: Path) -> dict[str, list[str]]:
    """Subjects and samples that the fit held out. Raises CheckpointError if holdout.json does not say them."""
    found = read_json(out / HOLDOUT)
    for name, ids in found.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise CheckpointError(f"{out / HOLDOUT}: '{one_line(name, 60)}' is no list of ids; fit again with --overwrite")
    return found


def read_config(run: Path, trust_code: bool = False) -> Config:
    """The config of a run; nothing is imported.

    Raises:
        CheckpointError: the folder is no run; without `trust_code` also, the config names classes of other packages.
    """
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run}: is no run folder, {CONFIG} is not there; name a folder that 'cm2pyro fit' wrote")
    try:
        config = Config.from_file(run / CONFIG, based=False)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    foreign = config.foreign()
    if foreign and not trust_code:
        named = [f"{key} is {one_line(place, 100)}" for key, place in foreign.items()]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        raise CheckpointError(
            f"{run / CONFIG}: {', '.join(named[:_NAMED])}{more}: expected names of cm2pyro's own, and this is code that loading would run; "
            "if you trust it and who made the run, pass --trust-code (in Python trust_code=True)"
        )
    return config

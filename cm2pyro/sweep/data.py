"""The data of a sweep: whether they have the rows that it needs, and whether they are the same as before."""

import hashlib
from pathlib import Path

from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.shards.index import INDEX, Shards, is_shards
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import open_regular
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.space import corners


def check_rows(data: str, experiment: Experiment, test: bool) -> None:
    """Raises ConfigError: no validation rows to choose by. DataError: no test rows, though they are to be evaluated; no manifest."""
    if is_shards(data):
        there = {split for split in ("val", "test") if Shards.open(data).of(split)}
        held = 0.0  # what a fit holds out of shards cannot be asked for again
    else:
        manifest = read_manifest(data)
        there = {split for split in ("val", "test") if manifest.rows(split)}
        held = min(experiment.config(setting).fit.validation for setting in corners(experiment.axes))
    if "val" not in there and not held:
        remedy = "mark some as val" if is_shards(data) else "mark some as val, or --set fit.validation=0.2"
        raise ConfigError(f"{data}: no row has split 'val' and none is held out, so there is nothing to choose by; {remedy}")
    if test and "test" not in there:
        raise DataError(f"{data}: --evaluate test: no row has split 'test', expected some; mark them, or leave it out")


def digests(data: str, experiment: Experiment) -> dict[str, str]:
    """Name -> SHA-256: of the manifest, '', and of the tables beside it that any setting reads; or of the index of shards.

    Tables that are not there do not count, since a fit says what they should be; nor do files that cells name.

    Raises:
        DataError: one of them cannot be read.
    """
    if is_shards(data):
        return {"": _sha256(Path(data) / INDEX)}
    names = {name for setting in corners(experiment.axes) for name in experiment.config(setting).tables()}
    tables = {name: Path(data).parent / name for name in sorted(names)}
    return {"": _sha256(Path(data))} | {name: _sha256(path) for name, path in tables.items() if path.is_file()}


def changed(data: str, before: object, now: dict[str, str]) -> Path | None:
    """The first file that is not what it was; new ones may have come. before: `digests` as they were kept, or anything."""
    if not isinstance(before, dict):
        return Path(data)
    differs = next((name for name, digest in now.items() if before.get(name, digest if name else None) != digest), None)
    if differs is None:
        return None
    return Path(data).parent / differs if differs else Path(data)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with open_regular(path) as opened:
            while block := opened.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name a manifest, or a folder of shards") from error
    return found.hexdigest()

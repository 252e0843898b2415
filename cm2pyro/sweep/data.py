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


def digest(data: str, experiment: Experiment) -> str:
    """SHA-256 of the manifest and of the tables beside it that any setting reads, or of the index of shards; files of cells do not count.

    Raises:
        DataError: one of them cannot be read.
    """
    path = Path(data) / INDEX if is_shards(data) else Path(data)
    found = hashlib.sha256()
    for place in (path, *(() if is_shards(data) else _tables(path, experiment))):
        try:
            with open_regular(place) as opened:
                while block := opened.read(1 << 20):
                    found.update(block)
        except OSError as error:
            raise DataError(f"{place}: cannot be read ({error.strerror}); name a manifest, or a folder of shards") from error
    return found.hexdigest()


def _tables(manifest: Path, experiment: Experiment) -> list[Path]:
    """Those that are there; a fit says of the others what they should be."""
    names = {name for setting in corners(experiment.axes) for name in experiment.config(setting).tables()}
    return [path for name in sorted(names) if (path := manifest.parent / name).is_file()]

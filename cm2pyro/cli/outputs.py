"""What a command may write over: its own results, and nothing that it was given."""

from collections.abc import Sequence
from pathlib import Path

from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.shards.index import is_shards
from cm2pyro.errors import ConfigError
from cm2pyro.inference.run import is_own, read_config
from cm2pyro.registry import one_line

_PICTURES = (".png", ".pdf", ".svg", "")


def check_outputs(run: str, data: str, **outputs: str | None) -> None:
    """Refuse an output that is the data, a file that the data name, or a file of the run, before anything is computed.

    Args:
        run: the run folder. data: manifest or folder of shards. outputs: option -> the file that it names, None if it was not given.

    Raises:
        ConfigError: names the option. CheckpointError, DataError: the run or the manifest cannot be read.
    """
    taken: dict[Path, str] = {}
    source = _place(data)
    for option, name in outputs.items():
        if name is None:
            continue
        said, path = f"--{option.replace('_', '-')} {name}", _place(name)
        if option.endswith("figure") and path.suffix.lower() not in _PICTURES:
            raise ConfigError(f"{said}: '{one_line(path.suffix, 20)}' is no kind of picture; expected .png, .pdf or .svg; rename it")
        if path == source or (is_shards(data) and path.is_relative_to(source)):
            raise ConfigError(f"{said}: is the data that --data names, and would be replaced; name another file")
        if is_own(_place(run), path):
            raise ConfigError(f"{said}: is a file of the run itself, and would be replaced; name another file")
        if path in taken:
            raise ConfigError(f"{said}: --{taken[path].replace('_', '-')} names the same file; name two")
        taken[path] = option
        # Manifests name no file outside their folder: only what is there and inside is worth reading them for.
        if path.is_file() and path.is_relative_to(source.parent) and not is_shards(data) and _named(run, data, path):
            raise ConfigError(f"{said}: is a file that {data} names, and would be replaced; name another file")


def check_table(runs: Sequence[str], out: str | None) -> None:
    """Refuse `--out` where it is the posterior or another file of a run. Raises ConfigError."""
    if out is not None and any(is_own(_place(run), _place(out)) for run in runs):
        raise ConfigError(f"--out {out}: is a file of a run, and would be replaced; name another file")


def _named(run: str, data: str, path: Path) -> bool:
    """Whether a cell of the manifest, or a table of the run's config, is this file."""
    config = read_config(Path(run), trust_code=True)  # read, and no more
    manifest = read_manifest(data)
    cells = {cell for column in config.file_columns() if column in manifest.frame for cell in manifest.frame[column]}
    return any(_is_same(manifest.root / name, path) for name in (*config.tables(), *cells))


def _is_same(name: Path, path: Path) -> bool:
    try:  # first what the file system tells quickly: cells are many, and may be whole notes
        return name.samefile(path) and name.resolve() == path
    except (OSError, ValueError):
        return False


def _place(name: str) -> Path:
    try:
        return Path(name).resolve()
    except (OSError, ValueError, RuntimeError):  # a name that cannot be a file is refused where it is opened
        return Path(name)

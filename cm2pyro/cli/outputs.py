"""What a command may write over: its own results, and nothing that it was given."""

from pathlib import Path

from cm2pyro.data.shards.index import is_shards
from cm2pyro.errors import ConfigError
from cm2pyro.inference.run import is_own
from cm2pyro.registry import one_line

_PICTURES = (".png", ".pdf", ".svg", "")


def check_outputs(run: str, data: str, **outputs: str | None) -> None:
    """Refuse an output that is the data or a file of the run, before anything is computed.

    Args:
        run: the run folder. data: manifest or folder of shards. outputs: option -> the file that it names, None if it was not given.

    Raises:
        ConfigError: names the option.
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


def _place(name: str) -> Path:
    try:
        return Path(name).resolve()
    except (OSError, ValueError, RuntimeError):  # a name that cannot be a file is refused where it is opened
        return Path(name)

"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cm2pyro.errors import ConfigError, DataError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it otherwise.

    Raises:
        DataError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise DataError(f"{path}: is a folder; a file name is expected")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose a folder that exists and is writable") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def fresh_folder(out: str | Path, overwrite: bool, ours: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when the block succeeds; on failure nothing is left.

    Args:
        out: the folder to make. A non-empty one is refused unless `overwrite`.
        overwrite: replace a non-empty folder, but only one that holds the file `ours`, so that a mistyped path
            cannot delete somebody's home.
        ours: name of a file that shows that an existing folder was made by this command, such as `manifest.csv`.

    Raises:
        ConfigError: `out` is a file, or is not empty and may not be overwritten.
        DataError: the parent folder cannot be written.
    """
    import shutil

    check_out_folder(Path(out), overwrite, ours)
    # Links followed and `.` named, so that what is replaced is the folder itself.
    out = Path(out).resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose a folder that is writable") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if out.exists():
            # The old folder is moved aside and deleted last: if anything fails, it or the new one is whole.
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
            os.replace(out, old)
            try:
                os.replace(temporary, out)
            except OSError:
                os.replace(old, out)
                raise
            shutil.rmtree(old)
        else:
            os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def check_out_folder(out: Path, overwrite: bool, ours: str) -> None:
    """Refuse an output folder that would lose something; see `fresh_folder`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out}: is a file; an output folder is expected; name another")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"{out}: the folder is not empty; pass --overwrite to replace it or name another")
    if not (out / ours).exists():
        raise ConfigError(f"{out}: --overwrite replaces only a folder that holds {ours}, and this one does not; name another")

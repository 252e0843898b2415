"""Files that appear whole or not at all; and files that are read only if they are files, and no larger than they may be."""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from cm2pyro.errors import ConfigError, DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it otherwise.

    What is in the file is on the disk before it takes the place of an earlier one: neither a killed process nor a power cut leaves
    half of it.

    Raises:
        DataError: the folder does not exist or cannot be written, the disk is full.
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
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DataError(f"{path}: {not_written(error.strerror or str(error))}") from error
    finally:
        with suppress(OSError):  # of a disk that has become read-only
            temporary.unlink(missing_ok=True)


def not_written(reason: str) -> str:
    """What to say of a file whose disk gave up."""
    return f"cannot be written ({reason}); what was there before stays; free space, or name another folder"


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete what a killed process left of files that `atomic` was to write under these names."""
    for name in names:
        path = folder / name
        pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(path.suffix)}")
        for child in path.parent.iterdir() if path.parent.is_dir() else ():
            if pattern.fullmatch(child.name) and child.is_file():
                child.unlink(missing_ok=True)


def open_regular(path: str | Path) -> BufferedReader:
    """A regular file, opened for reading. A pipe would wait for its writer, and a device has no end.

    Raises:
        OSError: not there, cannot be opened, no regular file; `strerror` says which.
    """
    # Without O_NONBLOCK the opening of a pipe that nobody writes to waits for ever.
    opened = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: SIM115
    mode = os.fstat(opened.fileno()).st_mode
    if not stat.S_ISREG(mode):
        opened.close()
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if code == errno.EISDIR else "not a regular file", str(path))
    return opened


def read_bytes(path: str | Path, most: int) -> bytes:
    """The content of a regular file. Raises OSError as `open_regular`, and for more than `most` bytes."""
    with open_regular(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, at most {most:,} are read", str(path))
        return opened.read()


def read_text(path: str | Path, most: int) -> str:
    """As `read_bytes`, decoded; raises UnicodeDecodeError, a ValueError, too."""
    return read_bytes(path, most).decode("utf-8")


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


def check_out_folder(out: Path, overwrite: bool, ours: str, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder that would lose something, see `fresh_folder`, or in which one of `inputs` lies."""
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
    for source in inputs:
        if source.resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"{out}: holds the input {source}; name another output folder")

"""The log of a run: one JSON object a line, under the standard library's logger `cm2pyro`.

Events hold numbers and names of config keys, modalities, sites and parameters. No identifier of a sample or subject, no text, no cell and
no path of a data file is passed in; nor are messages about data files, since they quote them.
"""

import errno
import json
import logging
import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cm2pyro.errors import CM2Error, DataError

FILE = "log.jsonl"
_LONGEST = 1 << 20  # bytes of a line, more than any event has
logger = logging.getLogger("cm2pyro")
logger.addHandler(logging.NullHandler())  # nothing is shown unless the program that uses us asks for it


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with fields that JSON can hold."""
    logger.log(level, name, extra={"fields": plain(fields)})


def failure(error: BaseException) -> None:
    """Log why a fit ended early: the kind of error, and its message unless it may quote data."""
    ours = isinstance(error, CM2Error) and not isinstance(error, DataError)
    event("error", logging.ERROR, kind=type(error).__name__, message=" ".join(str(error).split()) if ours else None)


def plain(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for: NaN and infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Lines(logging.Handler):
    """Appends events to a file. A full disk costs the log, never the fit."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path, self.thread = path, threading.get_ident()
        _cut(path)

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", None)
        if fields is None or record.thread != self.thread:  # another fit's, in another thread of this process
            return
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage(), **fields}
        try:
            with _opened(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError:
            return


def _opened(path: Path, how: int) -> BinaryIO:
    """A regular file of this name. A link could lead out of the run folder, and a pipe would wait for a reader: OSError."""
    opened = open(os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), "r+b" if how & os.O_RDWR else "ab", buffering=0)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return opened


def _cut(path: Path) -> None:
    """Drop the start of a line that a killed process left."""
    try:
        with _opened(path, os.O_RDWR) as file:
            start = max(0, file.seek(0, os.SEEK_END) - _LONGEST)
            file.seek(start)
            end = file.read()
            if end and not end.endswith(b"\n"):
                file.truncate(start + end.rfind(b"\n") + 1)
    except OSError:
        return


@contextmanager
def into(folder: Path) -> Iterator[None]:
    """Append this thread's events to FOLDER/log.jsonl, for as long as the block runs."""
    handler, level = _Lines(folder / FILE), logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        failure(error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

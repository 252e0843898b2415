"""What goes wrong in a way that the user can mend. The command line turns each into one line and an exit code."""

from types import TracebackType

__all__ = ["CM2Error", "CheckpointError", "ConfigError", "DataError", "StoppedError"]

FOREIGN: set[str] = set()  # modules of other packages whose classes a config named: what goes wrong in them is no fault of ours


class CM2Error(Exception):
    """Base of all errors that name a remedy; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(CM2Error):
    """The command line or the config is wrong."""

    exit_code = 2


class DataError(CM2Error):
    """A manifest, a table or a data file is wrong."""


class CheckpointError(CM2Error):
    """A run folder or a checkpoint is wrong."""


class StoppedError(CM2Error):
    """A signal asked a fit to stop; `exit_code` is 128 plus its number, as a shell reports it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explain(error: BaseException) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(error, CM2Error):
        return " ".join(str(error).split()), error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return f"not enough memory ({' '.join(str(error).split()) or 'no more is said'}); give fewer rows, or a smaller model", 1
    detail = " ".join(str(error).split())[:200]
    module = _foreign(error.__traceback__)
    if module is not None:
        return f"unexpected {type(error).__name__}: {detail}; raised by {module}, which a config names; add --debug to see where", 1
    return f"unexpected {type(error).__name__}: {detail}; this is a fault of cm2pyro, add --debug to see where", 1


def _foreign(trace: TracebackType | None) -> str | None:
    """The module of another package, named by a config, through which an error has come."""
    found = None
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        found = name if name in FOREIGN else found
        trace = trace.tb_next
    return found

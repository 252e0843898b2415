"""SIGTERM and SIGINT during a fit: it ends its step, writes a checkpoint and stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cm2pyro.errors import StoppedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a fit has been asked to stop.

    Attributes:
        asked: the signal that came while a step was under way; None: none.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._waits = False

    @contextmanager
    def after_the_step(self) -> Iterator[None]:
        """While the block runs a first signal only sets `asked`; a second one, or one outside the block, raises at once."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def error(self, where: str) -> StoppedError:
        """What to raise once the checkpoint is written. where: how far the fit has come."""
        assert self.asked is not None
        return _stopped(self.asked, where)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        if self._waits and self.asked is None:
            self.asked = number
            return
        raise _stopped(number, "between checkpoints")


def _stopped(number: int, where: str) -> StoppedError:
    return StoppedError(
        f"stopped by {signal.Signals(number).name} {where}; the same command with --resume goes on from the last checkpoint, "
        "or from the beginning where there is none yet",
        128 + number,
    )


@contextmanager
def signals() -> Iterator[Stop]:
    """A `Stop` that hears the process's signals while the block runs; in a thread other than the main one it hears nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # What was to be ignored, as in a shell's background job, stays ignored.
    before = {number: signal.getsignal(number) for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

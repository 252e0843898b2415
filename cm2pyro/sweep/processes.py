"""Trials side by side, a process each: what one takes down with it is its own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Generic, TypeVar

from cm2pyro.config import Config
from cm2pyro.errors import StoppedError
from cm2pyro.inference.device import pick_device, small_encoders

T = TypeVar("T")

# A process that is forked while another thread holds a lock would wait for it for ever. The one that ours are forked from imports
# everything once and starts no thread: BLAS and OpenMP are told so, and the allocator of pyarrow.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_PRELOADED = ["cm2pyro.sweep.trial", "torch._dynamo"]  # the second is what torch imports at the first step of an optimiser
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 0.2  # seconds between looks at whether a signal came


class Processes(Generic[T]):
    """Runs `target(task)` in a process per task, at most `jobs` at a time.

    Args:
        take: the next task; None: none, unless one that is running brings it. ended: called with a task and its process's exit code,
            negative for the signal that ended it.
    """

    def __init__(self, target: Callable[[T], None], take: Callable[[], T | None], ended: Callable[[T, int], None], jobs: int) -> None:
        self.target, self.take, self.ended, self.jobs = target, take, ended, jobs
        self._running: dict[int, tuple[BaseProcess, T]] = {}
        self._asked: list[int] = []

    def run(self) -> None:
        """Until no task is left. Raises StoppedError on SIGINT or SIGTERM, after all processes have ended; a second signal kills them."""
        context = _context()
        with self._signals(), _environment():
            while not self._asked:
                while len(self._running) < self.jobs and not self._asked and (task := self.take()) is not None:
                    process = context.Process(target=self.target, args=(task,))  # type: ignore[attr-defined]
                    process.start()
                    self._running[process.sentinel] = process, task
                if not self._running:
                    return
                self._wait()
            self._stop()

    def _wait(self) -> None:
        for sentinel in connection.wait(list(self._running), timeout=_PATIENCE):
            process, task = self._running.pop(sentinel)  # type: ignore[arg-type]
            process.join()
            code = process.exitcode or 0
            process.close()
            self.ended(task, code)

    def _stop(self) -> None:
        for process, _ in self._running.values():
            process.terminate()
        killed = False
        while self._running:
            if len(self._asked) > 1 and not killed:
                killed = True
                for process, _ in self._running.values():
                    process.kill()
            self._wait()
        number = self._asked[0]
        raise StoppedError(f"stopped by {signal.Signals(number).name}; the same command with --resume goes on", 128 + number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            self._asked.append(number)

        main = threading.current_thread() is threading.main_thread()
        # What was to be ignored, as in a shell's background job, stays ignored.
        before = {number: signal.getsignal(number) for number in _SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for process, _ in self._running.values():  # only after an error of our own
                process.terminate()
            for number, handler in before.items():
                signal.signal(number, handler)


def _context() -> BaseContext:
    if sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        return context
    return multiprocessing.get_context("spawn")


@contextmanager
def _environment() -> Iterator[None]:
    """What the processes find; a trial sets torch's threads itself."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def default_jobs(config: Config, device: str) -> int:
    """As many trials as cores where one thread does for a trial; on a CUDA device, and with large encoders, one at a time."""
    if pick_device(device).type == "cuda" or not small_encoders(config):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

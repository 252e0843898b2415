"""Trials side by side, and what happens to the others when one goes down."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cm2pyro.errors import StoppedError
from cm2pyro.sweep.processes import Processes
from tests.sweep.jobs import work


def run(place: Path, tasks: list[str], jobs: int) -> dict[str, int]:
    waiting = [(name, place) for name in tasks]
    ended: dict[str, int] = {}
    Processes(work, lambda: waiting.pop(0) if waiting else None, lambda task, code: ended.update({task[0]: code}), jobs).run()
    return ended


@pytest.mark.slow
def test_each_ends_for_itself(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(tmp_path, ["a", "die", "b", "fail", "c"], 2) == {"a": 0, "die": -signal.SIGKILL, "b": 0, "fail": 3, "c": 0}
    assert signal.getsignal(signal.SIGTERM) is before
    assert "JE_ARROW_MALLOC_CONF" not in os.environ


@pytest.mark.slow
def test_no_more_at_a_time_than_asked_for(tmp_path: Path) -> None:
    run(tmp_path, ["a", "b", "c"], 1)
    times = [float((tmp_path / f"{what}_{name}").read_text()) for name in "abc" for what in ("began", "ended")]
    assert times == sorted(times)


@pytest.fixture
def _heard() -> Iterator[None]:
    """A background job of a shell is told to ignore SIGINT, and the tests may run in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_of_them(number: int, code: int, tmp_path: Path) -> None:
    def when_begun() -> None:
        while not (tmp_path / "began_sleep").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=when_begun, daemon=True).start()
    with pytest.raises(StoppedError, match="--resume goes on") as stopped:
        run(tmp_path, ["sleep", "a", "b", "c"], 1)
    assert stopped.value.exit_code == code
    assert not (tmp_path / "began_a").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_they_are_forked_from_a_process_of_one_thread(tmp_path: Path, root: Path) -> None:
    """In a process of its own, since others of this suite may have started the one that all are forked from."""
    code = f"from pathlib import Path; from tests.sweep.test_processes import run; run(Path({str(tmp_path)!r}), ['threads'], 1)"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(root)})
    assert (tmp_path / "threads").read_text() == "1"

"""What processes of the tests do; a module of its own, since they import it."""

import os
import signal
import time
from pathlib import Path


def work(task: tuple[str, Path]) -> None:
    what, place = task
    (place / f"began_{what}").write_text(str(time.monotonic()))
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise SystemExit(3)
    if what == "sleep":
        time.sleep(600)
    if what == "threads":
        (place / "threads").write_text(str(len(os.listdir(f"/proc/{os.getppid()}/task"))))
    time.sleep(0.3)
    (place / f"ended_{what}").write_text(str(time.monotonic()))

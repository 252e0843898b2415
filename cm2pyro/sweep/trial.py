"""One trial: a fit in a process of its own, and what its validation rows say; later perhaps its test rows."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.errors import CheckpointError, StoppedError, explain
from cm2pyro.files import write_text
from cm2pyro.inference.run import LOCK, best_record, locked, read_config
from cm2pyro.registry import one_line
from cm2pyro.sweep import metrics

DONE, FAILED = "done", "failed"
_WAITS, _WAIT = 300, 0.2  # seconds
_BOOTSTRAP = 200  # resamples of subjects: enough for the bars of a figure


@dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
        folder: the run; beside it lie FOLDER.json, the record, and FOLDER.log. config: of the fit, plain JSON. data: the manifest.
        test: the fit is done, and its test rows are to be evaluated. anew: what is there of an earlier attempt does not count.
    """

    folder: str
    config: dict[str, Any]
    data: str
    device: str = "auto"
    threads: int = 1
    test: bool = False
    anew: bool = False

    @property
    def record(self) -> Path:
        return Path(f"{self.folder}.json")

    @property
    def log(self) -> Path:
        return Path(f"{self.folder}.log")


def work(task: Task) -> None:
    """A process's whole life: fit, record, exit code. A signal ends the fit with a checkpoint, and leaves no record."""
    os.setpgid(0, 0)  # the terminal's Ctrl-C is for the sweep, which asks us to stop, once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_the_parent()
    with task.log.open("a", encoding="utf-8", errors="replace") as log, _speaking_to(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.monotonic()
        try:
            record = _evaluate(task) if task.test else _fit(task)
        except StoppedError as stopped:
            print(stopped)
            sys.exit(stopped.exit_code)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            reason = one_line(explain(error)[0], 500)
            print(f"error: {reason}")
            record = _record(task) | {"test_reason": reason} if task.test else {"status": FAILED, "reason": reason}
        seconds = round(time.monotonic() - start, 1)
        write_text(task.record, json.dumps({"seconds": seconds} | record, indent=1) + "\n")


def _fit(task: Task) -> dict[str, Any]:
    folder = Path(task.folder)
    begun = (folder / LOCK).exists()
    if begun:
        _await_the_last(folder)
    try:
        model = _fitted(task, resume=begun and not task.anew)
    except CheckpointError:
        if not begun or task.anew:
            raise
        model = _fitted(task, resume=False)  # nothing in there can be gone on from
    found = metrics.flat(model.validate(task.data, bootstrap=_BOOTSTRAP).metrics)
    best = best_record(model.history)
    best_epoch = None if best is None or best["val_log_loss"] is None else best["epoch"]
    return {"status": DONE, "epochs": len(model.history), "best_epoch": best_epoch, metrics.VAL: found}


def _await_the_last(folder: Path) -> None:
    """The trial of a sweep that was killed outright may still be writing its checkpoint; what goes on too long is for the fit to say."""
    for _ in range(_WAITS):
        try:
            with locked(folder):
                return
        except CheckpointError:
            time.sleep(_WAIT)


def _fitted(task: Task, resume: bool) -> CM2:
    model = CM2.from_config(task.config, say=print)
    torch.set_num_threads(task.threads)
    return model.fit(task.data, task.folder, task.device, resume=resume, overwrite=not resume and Path(task.folder).exists())


def _evaluate(task: Task) -> dict[str, Any]:
    """The record of the fit, with the metrics of its test rows added."""
    record = _record(task)
    # What the sweep's own config names may be imported, and nothing else that the folder says.
    trusted = read_config(Path(task.folder), trust_code=True).foreign() == Config.from_dict(task.config).foreign()
    model = CM2.load(task.folder, device=task.device, say=print, trust_code=trusted)
    torch.set_num_threads(task.threads)
    mask = model.config.missingness.mask
    found = model.evaluate(task.data, split="test", bootstrap=_BOOTSTRAP, missing=() if mask is None else (mask,)).metrics
    record[metrics.TEST] = metrics.flat(found)
    if mask is not None:
        record[metrics.MASKED] = metrics.flat(found["missing"][mask])
    return record


def _record(task: Task) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(task.record.read_text(encoding="utf-8"))
    return record


@contextmanager
def _speaking_to(log: Any) -> Iterator[None]:
    """Both streams into the log, those of libraries written in C as well."""
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield
        sys.stdout.flush()


def _end_with_the_parent() -> None:
    """A sweep that is killed outright cannot ask its trials to stop; each sees its end and stops with a checkpoint."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()

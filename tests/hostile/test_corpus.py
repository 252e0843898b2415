"""Every malformed input is refused in one line that names it, in little memory, and leaves nothing behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cm2pyro.cli import main
from tests.hostile import archives, bound, configs, files, foreign, manifests, overwriting, posteriors, runs, shards, tables
from tests.hostile.world import CHECK, FOLDER, PREDICT, Case

pytestmark = pytest.mark.slow

MODULES = (manifests, tables, files, shards, configs, archives, runs, posteriors, overwriting, foreign)
CASES = [case for module in MODULES for case in module.CASES]
BOUND = 700 << 20  # bytes that a bomb may take beside what Python had; every bomb would take more
PRELOAD = ["cm2pyro.cli", "cm2pyro.api", "cm2pyro.data.check", "torchvision", "torch._dynamo", "transformers", "pyarrow.parquet", "pydicom"]
PATIENCE = 90  # seconds, after which nothing more is expected; a refusal takes well under one


class Stuck(BaseException):
    """Nothing that the command line catches."""


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder inside, with its size and time of change."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.name != ".lock"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, 0 if path.is_dir() else status.st_mtime_ns)
    return found


def judge(case: Case, code: int, err: str, before: dict[str, tuple[int, int]], folder: Path) -> None:
    assert code == case.code, err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert err.rstrip("\n").isprintable(), err
    assert "Traceback" not in err
    assert "fault of cm2pyro" not in err
    for part in case.says:
        assert part in err, f"{part!r} is not in {err!r}"
    assert tree(folder) == before, "something was written"


def in_process(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def stuck(*_: object) -> None:
        raise Stuck(f"not refused within {PATIENCE} seconds")

    capsys.readouterr()
    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(PATIENCE)
    try:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return int(stop.value.code or 0), capsys.readouterr().err


def bounded(arguments: list[str], folder: Path) -> tuple[int, str]:
    """In a process whose address space may grow by `BOUND`, so that what unfolds ends in a MemoryError and not in ours. It is forked
    off a server with one thread: a fork of this process can stop for ever at a lock that another thread held."""
    report = folder.parent / "stderr"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOAD)
    child = processes.Process(target=bound.run, args=(arguments, str(folder), str(report), BOUND))
    child.start()
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
        pytest.fail(f"not refused within {PATIENCE} seconds")
    return child.exitcode, report.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(
    case: Case, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source: Path = request.getfixturevalue("world_with_run" if case.name.startswith("run") else "world")
    shutil.copytree(source, folder)
    case.spoil(folder)
    monkeypatch.chdir(folder)
    before = tree(folder)
    code, err = bounded(case.command.split(), folder) if case.bomb else in_process(case.command.split(), capsys)
    judge(case, code, err, before, folder)


# One of every subject also as a user starts it; a process takes seconds to import torch.
SAMPLE = [next(case for case in CASES if case.name.startswith(subject)) for subject in ("manifest", "picture", "config", "archive", "run")]


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_refused_in_a_process_of_its_own(case: Case, folder: Path, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue("world_with_run" if case.name.startswith("run") else "world")
    shutil.copytree(source, folder)
    case.spoil(folder)
    before = tree(folder)
    done = subprocess.run(
        [sys.executable, "-m", "cm2pyro", *case.command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    judge(case, done.returncode, done.stderr, before, folder)


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_good_folder_is_accepted(world_with_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Or every case could be refused for another reason than its own."""
    monkeypatch.chdir(world_with_run)
    for command in (CHECK, PREDICT, PREDICT, FOLDER):  # its own predictions, beside the manifest, are replaced
        with pytest.raises(SystemExit) as stop:
            main(command.split())
        assert not stop.value.code, capsys.readouterr().err

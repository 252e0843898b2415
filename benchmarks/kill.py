"""kill -9 at random moments of a fit: is every resumed fit, bit by bit, the one that was not disturbed?

    python benchmarks/kill.py run --out kill.jsonl --work DIR [--kills 50] [--seed 0]     resumable; one line a kill
    python benchmarks/kill.py table kill.jsonl

Small fits of five kinds, in turn, each in a process of its own that runs `cm2pyro fit`; `fit.checkpoint_minutes` is so short that steps
end with a checkpoint and many kills fall into the writing of one. The moment is uniform between the creation of the run folder, or in
every other round the first checkpoint, and the end of an undisturbed fit. `fit --resume` then runs to its end, and every file of the run is
compared with the undisturbed run's: tensors and JSON exactly, times excepted; and so are the predictions of both.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import yaml

import cm2pyro.api  # noqa: F401  here, so that the processes forked below have it
from cm2pyro.cli import main as command
from cm2pyro.inference import checkpoint, run

ROWS, BATCH, EPOCHS = 100, 25, 3
BASE: dict[str, Any] = {
    "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 8} for name in ("a", "b", "c")},
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "hidden": 8},
    "fit": {"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.01, "patience": 50, "checkpoint_minutes": 1e-4},
}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "deterministic latents": {
        "guide": {"local": "delta"},
        "fit": {"ema": 0.9, "modality_dropout": 0.3, "schedule": "cosine", "warmup": 2, "recalibration": "temperature"},
    },
    "two steps": {"prior": {"copula": {"family": "gaussian", "update": "ifm"}}, "fit": {"settle": True}},
    "ensemble": {"prior": {"copula": {"family": "clayton", "update": "profile"}}, "fit": {"ensemble": 2, "epochs": 2}},
    "nuts": {"guide": {"globals": "nuts"}, "nuts": {"chains": 2, "warmup": 5, "draws": 5}, "fit": {"epochs": 2}},
}


def prepare(work: Path) -> None:
    """The manifest, and a config a case."""
    random_ = np.random.default_rng(0)
    z = random_.normal(size=(ROWS, 3, 2)) + 2 * random_.integers(0, 2, size=(ROWS, 1, 1))
    gone = random_.random((ROWS, 3)) < 0.3
    frame = {name: ["" if gone[i, m] else json.dumps(z[i, m].round(3).tolist()) for i in range(ROWS)] for m, name in enumerate("abc")}
    ids = [f"s{i}" for i in range(ROWS)]
    split = np.where(np.arange(ROWS) < 0.75 * ROWS, "train", "val")
    label = (random_.random(ROWS) < 1 / (1 + np.exp(-(z.sum((1, 2)) - 3)))).astype(int)
    work.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": label} | frame).to_csv(work / "manifest.csv", index=False)
    for name, changes in CASES.items():
        config = {section: {**BASE.get(section, {}), **changes.get(section, {})} for section in {*BASE, *changes}}
        (work / f"{name}.yaml").write_text(yaml.safe_dump(config))


def start(*arguments: str) -> int:
    """Run a command in a process of its own; its id. A copy of this one, which has imported torch: that would else be most of the time."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), 1)
        command(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)


def finish(*arguments: str) -> int:
    """Run a command to its end; the exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(start(*arguments), 0)[1])


def fit(work: Path, case: str, folder: Path, *more: str) -> tuple[str, ...]:
    """The command line of a fit."""
    data = str(work / "manifest.csv")
    return ("fit", str(work / f"{case}.yaml"), "--data", data, "--out", str(folder), "--device", "cpu", *more)


def undisturbed(work: Path, case: str) -> tuple[Path, float, float]:
    """The run of a case that nobody kills, made once; the seconds from its folder to its first checkpoint, and from there to its end."""
    folder, note = work / f"whole-{case}", work / f"whole-{case}.json"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pid = start(*fit(work, case, folder))
        wait_for(folder / run.LOCK, pid)
        begun = time.monotonic()
        wait_for(checkpoint.last(folder), pid)
        first = time.monotonic()
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise click.ClickException(f"the undisturbed fit of case {case} failed")
        note.write_text(json.dumps([first - begun, time.monotonic() - first]))
    return folder, *json.loads(note.read_text())


def wait_for(path: Path, pid: int) -> bool:
    """Wait until a file is there, or the process has ended: whether it is."""
    while not path.exists():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return path.exists()
        time.sleep(0.001)
    return True


def where(folder: Path) -> str:
    """How far a killed fit had come."""
    place = sorted([folder, *(folder / "members").glob("*")])[-1] if (folder / "members").is_dir() else folder
    cut = any(folder.rglob(".*.safetensors")) or any(folder.glob(".*.*.*"))
    writing = ", in the writing of a file" if cut else ""
    if not checkpoint.begun(place):
        return ("before the first checkpoint" if place == folder else "between members") + writing
    _, _, header, _ = checkpoint.read_latest(place)
    progress = header["progress"]
    return ("after the last epoch" if progress["done"] else f"epoch {progress['epoch'] + 1}, batch {progress['batch']}") + writing


def difference(a: Path, b: Path) -> str | None:
    """The first thing in which two finished runs differ; None: they are the same but for times."""
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) for folder in (a, b)]
    # What came before the last checkpoint depends on when checkpoints were written.
    ours, theirs = ({name for name in some if "previous" not in name and not name.endswith(("log.jsonl", run.LOCK))} for some in names)
    if ours != theirs:
        return f"files {sorted(ours ^ theirs)}"
    for name in sorted(ours):
        if name.endswith(".safetensors"):
            (tensors, header), (others, other) = checkpoint.read(a / name), checkpoint.read(b / name)
            if timeless(header) != timeless(other):
                return f"{name}: header"
            if list(tensors) != list(others) or not all(same(tensors[key], others[key]) for key in tensors):
                return f"{name}: tensors"
        elif name.endswith(run.HISTORY):
            if [timeless(json.loads(x)) for x in (a / name).open()] != [timeless(json.loads(x)) for x in (b / name).open()]:
                return name
        elif (a / name).read_bytes() != (b / name).read_bytes():
            return name
    return None


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Bit by bit."""
    return x.dtype == y.dtype and x.shape == y.shape and x.reshape(-1).view(torch.uint8).equal(y.reshape(-1).view(torch.uint8))


def timeless(value: Any) -> Any:
    """Without seconds."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def trial(work: Path, number: int, case: str, share: float) -> dict[str, Any] | None:
    """Kill a fit when that share of its time has passed, resume it, compare; None if it had ended by then."""
    whole, begin, rest = undisturbed(work, case)
    begun = number // len(CASES) % 2 == 1
    moment = share * (rest if begun else begin + rest)
    folder = work / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    pid = start(*fit(work, case, folder))
    wait_for(checkpoint.last(folder) if begun else folder / run.LOCK, pid)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        return None
    place = where(folder)
    code = finish(*fit(work, case, folder, "--resume"))
    found = f"--resume ended with code {code}" if code else difference(whole, folder)
    if found is None:
        for some in (whole, folder):
            data, out = str(work / "manifest.csv"), str(work / f"{some.name}.csv")
            if not (some == whole and Path(out).exists()):
                finish("predict", str(some), "--data", data, "--out", out)
        same_bytes = (work / f"{whole.name}.csv").read_bytes() == (work / "killed.csv").read_bytes()
        found = None if same_bytes else "predictions"
    return {"kill": number, "case": case, "seconds": round(moment, 3), "at": place, "identical": found is None, "difference": found}


@click.group()
def main() -> None:
    """See the file's first lines."""


@main.command("run")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="A folder for data and runs.")
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True)
def run_(out: Path, work: Path, kills: int, seed: int) -> None:
    """Kill, resume, compare; what OUT already holds is not done again."""
    torch.set_num_threads(1)
    done = {json.loads(line)["kill"] for line in out.open()} if out.exists() else set()
    prepare(work)
    for number in range(kills):
        if number in done:
            continue
        case = list(CASES)[number % len(CASES)]
        moments = random.Random(f"{seed} {number}")
        record = None
        while record is None:  # the machine was quicker than when it was timed
            record = trial(work, number, case, moments.uniform(0, 1))
        with out.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        click.echo(f"{number + 1}/{kills} {case}: killed {record['at']}: {record['difference'] or 'identical'}")
    sys.exit(0 if all(json.loads(line)["identical"] for line in out.open()) else 1)


@main.command()
@click.argument("lines", type=click.Path(exists=True, path_type=Path))
def table(lines: Path) -> None:
    """Kills and identical results, by kind of fit."""
    frame = pd.DataFrame([json.loads(line) for line in lines.open()])
    frame["in writing"] = frame["at"].str.contains("writing")
    frame["before the first checkpoint"] = frame["at"].str.contains("before the first")
    frame["after the last epoch"] = frame["at"].str.contains("after the last")
    counts = frame.groupby("case", sort=False).agg(
        kills=("kill", "size"),
        identical=("identical", "sum"),
        **{name: (name, "sum") for name in ("in writing", "before the first checkpoint", "after the last epoch")},
    )
    counts.loc["all"] = counts.sum()
    names = [counts.index.name or "fit", *counts.columns]
    click.echo("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for name, row in counts.iterrows():
        click.echo(f"| {name} | " + " | ".join(str(int(value)) for value in row) + " |")


if __name__ == "__main__":
    main()

"""What each of several processes runs for `test_distributed.py`: commands one after the other, some with a fault in one process.

python -m torch.distributed.run --standalone --nproc_per_node=2 tests/inference/together.py JOBS.json OUT
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from cm2pyro.api import CM2, fitted
from cm2pyro.cli import main
from cm2pyro.errors import DataError
from cm2pyro.inference import distributed, fit, step
from cm2pyro.inference.program import Program
from tests.inference.fits import table

RANK = int(os.environ["RANK"])


def at(call: int, before: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """`plain`, with `before` called first in its call of that number."""
    calls = [0]

    def changed(*args: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            before(*args)
        return plain(*args, **named)

    return changed


def not_finite() -> Any:
    """In the second process alone: the loss of the third step is NaN, and in the fifth one of Pyro's checks fails first."""
    plain, calls = Program.loss, [0]

    def loss(program: Program, batch: Any) -> torch.Tensor:
        calls[0] += 1
        if RANK == 1 and calls[0] == 5:
            raise ValueError("Expected value argument at site 'z_a' to be finite")
        value = plain(program, batch)
        return value * torch.nan if RANK == 1 and calls[0] == 3 else value

    return mock.patch.object(Program, "loss", loss)


def asked_to_stop() -> Any:
    """SIGTERM reaches the second process alone, during its fifth step."""

    def ask(*args: Any) -> None:
        if RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return mock.patch.object(fit, "take_step", at(5, ask, step.take_step))


def unreadable() -> Any:
    """The data of the second process are bad."""

    def fail(*args: Any) -> None:
        if RANK == 1:
            raise DataError("manifest.csv, row 7: found a fault, expected none; correct it")

    return mock.patch.object(fitted, "read_manifest", at(1, fail, fitted.read_manifest))


FAULTS = {"not_finite": not_finite, "asked_to_stop": asked_to_stop, "unreadable": unreadable}


def run(arguments: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code
    return {"code": int(code or 0), "out": out.getvalue(), "err": err.getvalue()}


def parity(config: dict[str, Any]) -> dict[str, Any]:
    """One fit by this process alone, the same by all: how far apart they end, and whether all processes have the same bits."""

    def fit_once() -> CM2:
        return CM2.from_config(config).fit(table(), device="cpu")

    with distributed.processes():
        with distributed.alone():
            single = fit_once()
        several = fit_once()
        mine = {name: tensor.clone() for name, tensor in several.program.state_dict().items()}
        distributed.equalise(several.program)
        return {
            "same": all(tensor.equal(mine[name]) for name, tensor in several.program.state_dict().items()),
            "largest": largest_difference(single.program, several.program),
            "elbo": max(abs(a["elbo"] - b["elbo"]) for a, b in zip(single.history, several.history, strict=True)),
        }


def largest_difference(a: Program, b: Program) -> float:
    other = b.state_dict()
    return max(float((tensor.double() - other[name].double()).abs().max()) for name, tensor in a.state_dict().items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, job in json.loads(Path(sys.argv[1]).read_text()).items():
        if "parity" in job:
            results[name] = parity(job["parity"])
        elif "fault" in job:
            with FAULTS[job["fault"]]():
                results[name] = run(job["arguments"])
        else:
            results[name] = run(job["arguments"])
        Path(sys.argv[2], f"{RANK}.json").write_text(json.dumps(results))

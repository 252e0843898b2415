"""The benchmark of killed fits, with two kills; and that its comparison sees a single bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import kill
from cm2pyro.inference import checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_two_kills_and_a_comparison_that_can_fail(tmp_path: Path, root: Path) -> None:
    out, work = tmp_path / "kill.jsonl", tmp_path / "work"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    arguments = [sys.executable, str(root / "benchmarks" / "kill.py"), "run", "--out", str(out), "--work", str(work), "--kills", "2"]
    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    records = [json.loads(line) for line in out.open()]
    assert [(record["kill"], record["identical"]) for record in records] == [(0, True), (1, True)]
    table = CliRunner().invoke(kill.main, ["table", str(out)])
    assert "| all | 2 | 2 |" in table.output

    whole, other = work / "whole-plain", tmp_path / "other"
    shutil.copytree(whole, other)
    assert kill.difference(whole, other) is None
    path = checkpoint.best(other)
    tensors, header = checkpoint.read(path)
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    flat = tensors[name].view(-1)
    flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf))
    checkpoint.write(path, tensors, {key: value for key, value in header.items() if key != "format"})
    assert kill.difference(whole, other) == "checkpoints/best.safetensors: tensors"

"""Checkpoints that are damaged, and disks that are full, read-only or too small: what was good stays, and the refusal is one line."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.errors import CheckpointError, DataError
from cm2pyro.inference import chains, checkpoint
from cm2pyro.inference.mcmc import Chains
from tests.inference.fits import CutError, cut_after, difference, last, settings, table

pytestmark = pytest.mark.slow

TABLE = table()


def fitted(config: dict[str, Any], out: Path, **more: Any) -> CM2:
    return CM2.from_config(config).fit(TABLE, out=out, device="cpu", **more)


# --- damaged checkpoints --------------------------------------------------------------------------------------------


def cut_after_two_epochs(out: Path) -> None:
    with pytest.raises(CutError):
        fitted(settings(), out, report=cut_after(2))


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "version", "gone"])
def test_a_damaged_checkpoint(damage: str, tmp_path: Path) -> None:
    fitted(settings(), tmp_path / "whole")
    out = tmp_path / "run"
    cut_after_two_epochs(out)
    path = last(out)
    content = path.read_bytes()
    half = len(content) // 2
    if damage == "gone":  # killed between two renames
        path.unlink()
    else:
        path.write_bytes(
            {
                "cut": content[:half],
                "empty": b"",
                "flipped": content[:-half] + bytes([content[-half] ^ 1]) + content[len(content) - half + 1 :],
                "version": content.replace(b'\\"format\\": 1', b'\\"format\\": 9'),
            }[damage]
        )
    said: list[str] = []
    CM2.from_config(settings(), say=said.append).fit(TABLE, out=out, device="cpu", resume=True)
    warned = [line for line in said if line.startswith("warning: ")]
    found = {"cut": "cut short", "empty": "cut short", "flipped": "checksum", "version": "checkpoint format 9, expected 1"}
    assert not warned if damage == "gone" else found[damage] in warned[0]
    assert difference(tmp_path / "whole", out) is None
    for name in ("last", "previous"):
        (out / "checkpoints" / f"{name}.safetensors").write_bytes(content[:half])
    with pytest.raises(CheckpointError, match=r"last.safetensors: cannot be read .* --overwrite starts anew"):
        fitted(settings(), out, resume=True)


def test_damaged_files_that_a_checkpoint_repeats_are_written_again(tmp_path: Path) -> None:
    cut_after_two_epochs(tmp_path / "run")
    for name in ("checkpoints/best.safetensors", "snapshots.safetensors", "metrics.jsonl"):
        (tmp_path / "run" / name).write_bytes(b"half")
    fitted(settings(), tmp_path / "run", resume=True)
    fitted(settings(), tmp_path / "whole")
    assert difference(tmp_path / "whole", tmp_path / "run") is None


def test_a_resume_that_is_refused_deletes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fitted(settings(), out)
    for path in (last(out), checkpoint.previous(out)):
        path.write_bytes(b"half")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "log.jsonl"}
    with pytest.raises(CheckpointError, match="cut short"):
        fitted(settings(fit={"epochs": 9}), out, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_chains_with_a_number_that_is_not_finite_are_refused(tmp_path: Path) -> None:
    drawn = Chains({"locs": torch.tensor([[1.0, float("nan")]])}, [0])
    chains.write_chains(tmp_path, drawn, "weights")
    with pytest.raises(CheckpointError, match="locs holds a number that is not finite"):
        chains.read_chains(tmp_path, "weights")


# --- disks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def test_a_full_disk_keeps_the_last_checkpoint(disk: Path, tmp_path: Path) -> None:
    out = disk / "run"

    def full(record: dict, warnings: list[str]) -> None:
        if record["epoch"] == 1:
            fill(disk)

    with pytest.raises(DataError, match=r"last.safetensors: cannot be written \(.*No space left.*\); what was there before stays"):
        fitted(settings(), out, report=full)
    _, header = checkpoint.read(last(out))
    assert header["progress"]["epoch"] == 1
    assert not list(out.rglob(".*.safetensors"))
    (disk / "filler").unlink()
    fitted(settings(), out, resume=True)
    fitted(settings(), tmp_path / "whole")
    assert difference(tmp_path / "whole", out) is None


def test_a_read_only_file_system_is_refused(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(DataError, match=r"cannot be written \(Read-only file system\)"):
        fitted(settings(), disk / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    with pytest.raises(DataError, match="cannot be written"):
        fitted(settings(), tmp_path / "run")


def test_a_file_too_large_for_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `ulimit -f`; in a process of its own, whose limit ends with it."""
    code = "from pathlib import Path; import torch; from cm2pyro.inference import checkpoint\n" + (
        "try: checkpoint.write(Path('x.safetensors'), {'x': torch.zeros(9000)}, {})\nexcept Exception as e: print(type(e).__name__, e)"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # noqa: E731
    found = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.startswith("DataError x.safetensors: cannot be written (File too large")
    assert list(tmp_path.iterdir()) == []

"""SIGTERM and SIGINT during `cm2pyro fit`: a checkpoint, a stated exit code, one line that says how to go on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cm2pyro.inference import fit
from tests.cli.commands import call, refused
from tests.inference.fits import difference, settings, table


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A background job of a shell is told to ignore SIGINT, and the tests may run in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(fit={"checkpoint_minutes": 10.0})))
    table().to_csv(tmp_path / "manifest.csv", index=False)
    return ["fit", tmp_path / "config.yaml", "--data", tmp_path / "manifest.csv", "--device", "cpu", "--out"]


def signals_at(step: int, *numbers: int) -> Any:
    """A `take_step` during which the process gets these signals, once."""
    plain, calls = fit.take_step, [0]

    def take_step(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return plain(*args)

    return take_step


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fit_that_is_asked_to_stop_goes_on_to_the_same_bits(
    number: int, code: int, arguments: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(fit, "take_step", signals_at(5, number))
        line = refused(capsys, code, *arguments, tmp_path / "run")
    assert f"stopped by {signal.Signals(number).name} in epoch 2 after 2 of 3 batches" in line
    assert "--resume goes on" in line
    assert signal.getsignal(number) is before
    status, out, _ = call(capsys, *arguments, tmp_path / "run", "--resume")
    assert status == 0
    assert "resuming after epoch 1, batch 2" in out
    assert call(capsys, *arguments, tmp_path / "whole")[0] == 0
    assert difference(tmp_path / "whole", tmp_path / "run") is None


def test_a_second_signal_does_not_wait(
    arguments: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "take_step", signals_at(2, signal.SIGINT, signal.SIGINT))
    assert "between checkpoints" in refused(capsys, 130, *arguments, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()
    monkeypatch.undo()
    assert call(capsys, *arguments, tmp_path / "run", "--resume")[0] == 0


def test_a_signal_while_the_data_are_read(
    arguments: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("cm2pyro.api.fitted.read_manifest", lambda data: os.kill(os.getpid(), signal.SIGTERM))
        assert "SIGTERM" in refused(capsys, 143, *arguments, tmp_path / "run")
    assert call(capsys, *arguments, tmp_path / "run", "--resume")[0] == 0

"""A fit that is cut anywhere goes on to the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.errors import CheckpointError, DataError
from cm2pyro.inference import chains, fit, run, state
from tests.inference.fits import CutError, difference, last, settings, table

pytestmark = pytest.mark.slow

TABLE = table()
RICH = {"guide": {"local": "delta"}, "fit": {"ema": 0.9, "modality_dropout": 0.3, "schedule": "cosine", "warmup": 2}}
STEPS = {"prior": {"copula": {"family": "gaussian", "update": "ifm"}}, "fit": {"settle": True}}
PROFILE = {"prior": {"copula": {"family": "clayton", "update": "profile"}}, "fit": {"ensemble": 2, "epochs": 2}}


def cut_at(call: int, function: Callable[..., Any], after: bool = False) -> Callable[..., Any]:
    """The same function, which ends the fit at its n-th call, before or after doing its work."""
    calls = [0]

    def cut(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not after:
            raise CutError
        result = function(*args, **kwargs)
        if calls[0] == call:
            raise CutError
        return result

    return cut


def fitted(config: dict[str, Any], out: Path, **more: Any) -> CM2:
    return CM2.from_config(config).fit(TABLE, out=out, device="cpu", **more)


def cut_and_resume(config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], call: int) -> str | None:
    """How a fit that is cut at the n-th call of a function and resumed differs from one that is not."""
    fitted(config, folder / "whole")
    with monkeypatch.context() as patched:
        module, name = where
        patched.setattr(module, name, cut_at(call, getattr(module, name)))
        with pytest.raises(CutError):
            fitted(config, folder / "cut")
    fitted(config, folder / "cut", resume=True)
    return difference(folder / "whole", folder / "cut")


@pytest.mark.parametrize(
    ("changes", "step"), [({}, 1), ({}, 5), (RICH, 2), (RICH, 6), (STEPS, 8), (PROFILE, 5), (PROFILE, 8)], ids=lambda x: str(x)[:30]
)
def test_cut_before_a_step(changes: dict, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 1: nothing has been written but the set-up. Steps 4 and 7 begin epochs; with two epochs of an ensemble, 7 begins member 2."""
    assert cut_and_resume(settings(**changes), tmp_path, monkeypatch, (fit, "take_step"), step) is None


@pytest.mark.parametrize("name", ["write_best", "write_views"])
@pytest.mark.parametrize("call", [1, 3])
def test_cut_between_the_files_of_an_epoch(name: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 3 is the last: nothing is left to do but the files."""
    assert cut_and_resume(settings(), tmp_path, monkeypatch, (state, name), call) is None


@pytest.mark.parametrize("name", ["write_setup", "write_mask"])
def test_cut_in_the_set_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_and_resume(settings(), tmp_path, monkeypatch, (run, name), 1) is None


def test_a_fit_that_ended_is_resumed_to_itself(tmp_path: Path) -> None:
    """Its last step is not taken a second time, from where it led."""
    fitted(settings(**STEPS), tmp_path / "whole")
    for _ in range(2):
        fitted(settings(**STEPS), tmp_path / "again", resume=(tmp_path / "again").exists())
    assert difference(tmp_path / "whole", tmp_path / "again") is None


def test_overwriting_cut_short_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier run is gone, and no checkpoint of it is mistaken for one of the new fit."""
    fitted(settings(fit={"lr": 0.5}), tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(run.shutil, "rmtree", cut_at(1, run.shutil.rmtree))
        with pytest.raises(CutError):
            fitted(settings(), tmp_path / "run", overwrite=True)
    fitted(settings(), tmp_path / "run", resume=True)
    fitted(settings(), tmp_path / "whole")
    assert difference(tmp_path / "whole", tmp_path / "run") is None
    assert not list((tmp_path / "run").glob(".old*"))


def test_a_saved_fit_has_nothing_to_resume(tmp_path: Path) -> None:
    CM2.from_config(settings()).fit(TABLE).save(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        fitted(settings(), tmp_path / "run", resume=True)


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(fit, "take_step", cut_at(3, fit.take_step))
        with pytest.raises(CutError):
            fitted(settings(), tmp_path / "run")
    rests = [tmp_path / "run" / name for name in ("checkpoints/.last.safetensors.abcd_123.safetensors", ".metrics.jsonl.abcd1234.jsonl")]
    mine = tmp_path / "run" / "checkpoints" / ".mine.txt"
    for path in [*rests, mine]:
        path.write_text("half of")
    fitted(settings(), tmp_path / "run", resume=True)
    assert not any(path.exists() for path in rests)
    assert mine.exists()


def test_chains_that_are_done_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(guide={"globals": "nuts"}, nuts={"chains": 2, "warmup": 3, "draws": 4}, fit={"epochs": 1})
    fitted(config, tmp_path / "whole")
    sampled = []
    inner = chains.sample_chains.__globals__["_sample_chain"]
    with monkeypatch.context() as patched:
        patched.setitem(chains.sample_chains.__globals__, "_sample_chain", cut_at(2, inner))
        with pytest.raises(CutError):
            fitted(config, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoints" / "chain-1.safetensors").is_file()
    monkeypatch.setitem(chains.sample_chains.__globals__, "_sample_chain", lambda *args: sampled.append(args[-1].chain) or inner(*args))
    fitted(config, tmp_path / "cut", resume=True)
    assert sampled == [1]
    assert difference(tmp_path / "whole", tmp_path / "cut") is None
    # More epochs move the weights: draws given the old ones are not taken for draws given the new.
    config["fit"]["epochs"] = 2
    monkeypatch.setattr("cm2pyro.api.fitted.draw_chains", cut_at(1, chains.draw_chains))
    with pytest.raises(CutError):
        fitted(config, tmp_path / "cut", resume=True)
    assert CM2.load(tmp_path / "whole").program.chains is not None
    assert CM2.load(tmp_path / "cut").program.chains is None


def test_data_that_vanish(tmp_path: Path) -> None:
    """In the middle of a fit they lie in memory; a fit that goes on needs them, and what it has stays until they are back."""
    data, out = tmp_path / "manifest.csv", tmp_path / "run"
    TABLE.to_csv(data, index=False)

    def vanish(record: dict, warnings: list[str]) -> None:
        data.unlink(missing_ok=True)
        if record["epoch"] == 2:
            raise CutError

    with pytest.raises(CutError):
        CM2.from_config(settings()).fit(data, out=out, report=vanish)
    before = last(out).read_bytes()
    with pytest.raises(DataError, match=r"manifest\.csv"):
        CM2.from_config(settings()).fit(data, out=out, resume=True)
    assert last(out).read_bytes() == before
    TABLE.to_csv(data, index=False)
    assert len(CM2.from_config(settings()).fit(data, out=out, resume=True).history) == 3


def test_every_generator_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder from outside may draw from numpy or Python."""
    import random

    import numpy as np

    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (0.1 * np.random.normal() + 0.1 * random.gauss(0, 1) if self.training else 0.0)

    def go(out: Path, **more: Any) -> None:
        CM2.from_config(settings(), encoders={"a": Noisy()}).fit(TABLE, out=out, device="cpu", **more)

    go(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(fit, "take_step", cut_at(5, fit.take_step))
        with pytest.raises(CutError):
            go(tmp_path / "cut")
    np.random.seed(5)
    random.seed(5)
    go(tmp_path / "cut", resume=True)
    assert difference(tmp_path / "whole", tmp_path / "cut") is None


def test_checkpoints_inside_an_epoch_come_when_it_is_time(tmp_path: Path) -> None:
    def count(minutes: float, out: Path) -> int:
        fitted(settings(fit={"checkpoint_minutes": minutes}), out)
        return sum(json.loads(line)["event"] == "checkpoint" for line in (out / "log.jsonl").open())

    assert count(1e-9, tmp_path / "often") == 3 * (3 + 1)
    assert count(10.0, tmp_path / "seldom") == 3

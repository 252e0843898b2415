"""Losses and gradients that are not finite: named, left out or the end of the fit by a stated rule, never in a checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.errors import CM2Error, ConfigError
from cm2pyro.inference import checkpoint, fit
from cm2pyro.inference.program import Program
from tests.inference.fits import last, settings, table

TABLE = table()
Loss = Callable[[Program, Batch], Tensor]


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], how: Callable[[Program, Tensor], Tensor]) -> None:
    """Change the loss of the steps of these numbers, from 1."""
    plain, calls = Program.loss, [0]

    def loss(program: Program, batch: Batch) -> Tensor:
        calls[0] += 1
        value = plain(program, batch)
        return how(program, value) if calls[0] in steps else value

    monkeypatch.setattr(Program, "loss", loss)


def nan_gradient(program: Program, loss: Tensor) -> Tensor:
    """A finite loss whose gradient in one parameter is NaN: the derivative of a root at 0."""
    parameter = next(parameter for name, parameter in program.named_parameters() if name.startswith("guide.locals.of_a.encoder"))
    return loss + (parameter * 0).pow(0.5).sum()


def skips(out: Path) -> list[dict]:
    return [line for line in map(json.loads, (out / "log.jsonl").open()) if line["event"] == "skip"]


def test_a_step_is_left_out_and_the_gradient_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {2}, nan_gradient)
    said: list[str] = []
    fitted = CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", report=lambda record, warnings: said.extend(warnings))
    assert [record.get("skipped") for record in fitted.history] == [1, None, None]
    assert any("1 of 3 steps of epoch 1 were left out" in line for line in said)
    (line,) = skips(tmp_path / "run")
    assert (line["level"], line["epoch"], line["batch"]) == ("warning", 1, 2)
    assert line["found"].startswith("gradient of parameter guide.locals.of_a.encoder.")


def test_a_step_that_is_left_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the running statistics, which the forward pass has moved by then."""
    seen: list[dict[str, Tensor]] = []
    plain = fit.take_step

    def take_step(config, program, optimiser, batch, rate):
        if len(seen) == 0:
            seen.append({name: tensor.clone() for name, tensor in program.state_dict().items()})
        result = plain(config, program, optimiser, batch, rate)
        if len(seen) == 1:
            assert isinstance(result, str)
            seen.append({name: tensor.clone() for name, tensor in program.state_dict().items()})
            assert not optimiser.state
        return result

    monkeypatch.setattr(fit, "take_step", take_step)
    spoil(monkeypatch, {1}, lambda program, loss: loss * torch.nan)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    CM2.from_config(settings(fit={"epochs": 1}), encoders={"a": net}).fit(TABLE)
    assert any("running_mean" in name for name in seen[0])
    assert all(seen[0][name].equal(seen[1][name]) for name in seen[0])


@pytest.mark.parametrize(("skip", "left_out"), [(3, 3), (0, 0)])
def test_more_in_a_row_stop_the_fit_and_the_last_checkpoint_is_good(
    skip: int, left_out: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, set(range(5, 100)), lambda program, loss: loss * torch.nan)
    with pytest.raises(CM2Error, match=r"epoch \d, batch \d: the fit is no longer finite \(loss nan") as error:
        CM2.from_config(settings(fit={"skip": skip, "epochs": 5})).fit(TABLE, out=tmp_path / "run")
    assert "lower fit.lr, or look for extreme values" in str(error.value)
    assert len(skips(tmp_path / "run")) == left_out + 1
    tensors, header = checkpoint.read(last(tmp_path / "run"))
    assert header["progress"]["step"] == 4 + left_out
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_too_many_in_an_epoch_stop_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other step: never two in a row, but half of the data would be left out."""
    spoil(monkeypatch, set(range(1, 1000, 2)), lambda program, loss: loss * torch.inf)
    with pytest.raises(CM2Error, match=r"epoch 1, batch 9: .*loss"):
        CM2.from_config(settings(fit={"batch_size": 2, "skip": 4})).fit(TABLE)


def test_the_site_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Dataset.batch

    def batch(self: Dataset, rows: Tensor) -> Batch:
        made = plain(self, rows)
        if len(rows) == 15:
            made.inputs["b"]["vector"] = made.inputs["b"]["vector"] * torch.nan
        return made

    monkeypatch.setattr(Dataset, "batch", batch)
    with pytest.raises(CM2Error, match=r"no longer finite \((site z_b|loss nan: log density of site z_b)"):
        CM2.from_config(settings(fit={"skip": 0})).fit(TABLE)


def test_a_parameter_that_is_not_finite_reaches_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite gradient and a step that leaves the numbers' range; in the very last step, after which nobody computes a loss."""
    plain, calls = torch.optim.AdamW.step, [0]

    def step(self: torch.optim.AdamW, *args: object) -> None:
        plain(self, *args)
        calls[0] += 1
        if calls[0] == 6:
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(torch.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(CM2Error, match=r"guide\.\S+ is no longer finite; .* the last good checkpoint stays"):
        CM2.from_config(settings(fit={"epochs": 2})).fit(TABLE, out=tmp_path / "run")
    tensors, header = checkpoint.read(last(tmp_path / "run"))
    assert header["progress"]["step"] == 5
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())
    calls[0] = 0
    with pytest.raises(CM2Error, match="is no longer finite"):
        CM2.from_config(settings(fit={"epochs": 2})).fit(TABLE)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_is_never_the_best(value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = fit.validate, [0]

    def validate(*args: object) -> tuple[float | None, float | None]:
        calls[0] += 1
        return (value, None) if calls[0] == 1 else plain(*args)

    monkeypatch.setattr(fit, "validate", validate)
    fitted = CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run")
    assert fitted.history[0]["val_log_loss"] is None
    assert checkpoint.read(checkpoint.best(tmp_path / "run"))[1]["epoch"] > 1
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    monkeypatch.setattr(fit, "validate", lambda *args: (value, None))
    with pytest.raises(CM2Error, match="no epoch had a finite validation log-loss"):
        CM2.from_config(settings()).fit(TABLE)


def test_the_keys_are_checked() -> None:
    for key, value in (("skip", -1), ("checkpoint_minutes", 0)):
        with pytest.raises(ConfigError, match=rf"fit\.{key}"):
            CM2.from_config(settings(fit={key: value}))

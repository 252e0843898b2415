"""Who is told what: trackers that break, that are not there, that a user writes."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.errors import ConfigError
from cm2pyro.inference import distributed
from cm2pyro.registry import Registry
from cm2pyro.trackers import TRACKERS, Run, Tracker, register_tracker, tracking
from cm2pyro.trackers.tracking import Tracking
from tests.cli.commands import refused
from tests.inference.fits import settings, table

TABLE = table()


class Kept(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def start(self, run: Run) -> str | None:
        self.heard.append(run)
        return None

    def epoch(self, step: int, values: dict[str, float]) -> None:
        self.heard.append((step, values))

    def finish(self, values: dict[str, float] | None) -> None:
        self.heard.append(values)


class Broken(Tracker):
    """Fails in one of its methods."""

    def __init__(self, where: str) -> None:
        self.where, self.calls = where, 0

    def _fail(self, where: str) -> None:
        self.calls += 1
        if where == self.where:
            raise RuntimeError("the server is\ngone")

    def start(self, run: Run) -> str | None:
        self._fail("start")
        return None

    def epoch(self, step: int, values: dict[str, float]) -> None:
        self._fail("epoch")

    def finish(self, values: dict[str, float] | None) -> None:
        self._fail("finish")


def test_a_tracker_of_the_users_own(tmp_path: Path) -> None:
    mine = Kept()
    model = CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", trackers=[mine])
    start, *epochs, end = mine.heard
    assert (start.name, start.id, start.step) == ("run", None, 0)
    assert start.parameters["fit.lr"] == 0.01
    assert start.parameters["modalities.a.encoder"] == "mlp"
    assert {"torch", "cm2pyro", "device"} <= set(start.environment)
    assert not start.folder.exists()  # only those that ask for it have one
    assert [step for step, _ in epochs] == [1, 2, 3]
    assert [values["elbo"] for _, values in epochs] == [record["elbo"] for record in model.history]
    assert end["best/val_log_loss"] == min(record["val_log_loss"] for record in model.history)


def test_the_one_of_the_docs(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "trackers.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.partition("model = ")[0], names)
    CM2.from_config(settings(fit={"epochs": 1})).fit(TABLE, out=tmp_path / "run", trackers=[names["Prints"]()])
    start, epoch, end = capsys.readouterr().out.splitlines()
    assert start == "run 0.01"
    assert epoch.startswith("1 ")
    assert end == "1"


def test_in_memory(tmp_path: Path) -> None:
    mine, other = Kept(), Kept()
    CM2.from_config(settings()).fit(TABLE, trackers=[mine, other])
    assert mine.heard[0].folder is None
    assert len(mine.heard) == len(other.heard) == 5
    with pytest.raises(ConfigError, match="tracker tensorboard: writes into the run folder"):
        CM2.from_config(settings(fit={"trackers": ["tensorboard"]})).fit(TABLE)


@pytest.mark.parametrize(("where", "calls"), [("start", 1), ("epoch", 2), ("finish", 5)])
def test_a_tracker_that_breaks_costs_a_line(where: str, calls: int, tmp_path: Path) -> None:
    said: list[str] = []
    broken, kept = Broken(where), Kept()
    CM2.from_config(settings(), say=said.append).fit(TABLE, out=tmp_path / "run", trackers=[broken, kept])
    (line,) = (line for line in said if "tracker" in line)
    assert line.startswith("warning: tracker Broken failed (RuntimeError: the server is gone); the fit goes on without it")
    assert broken.calls == calls
    assert len(kept.heard) == 5
    assert kept.heard[-1]["best/epoch"] in (1, 2, 3)
    (event,) = (event for event in map(json.loads, (tmp_path / "run" / "log.jsonl").open()) if event["event"] == "tracker")
    assert (event["tracker"], event["kind"], event["level"]) == ("Broken", "RuntimeError", "warning")
    assert "gone" not in json.dumps(event)


def test_a_fit_that_fails_tells_it(tmp_path: Path) -> None:
    def fail(record: dict, warnings: list[str]) -> None:
        raise ValueError("of the caller")

    mine = Kept()
    with pytest.raises(ValueError, match="of the caller"):
        CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", trackers=[mine], report=fail)
    assert mine.heard[-1] is None


def test_a_tracker_that_broke_hears_the_rest_on_resume(tmp_path: Path) -> None:
    def cut(record: dict, warnings: list[str]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    class Once(Kept):
        fails = True

        def epoch(self, step: int, values: dict[str, float]) -> None:
            if self.fails and step == 2:
                raise OSError("disk full")
            super().epoch(step, values)

    mine = Once()
    with pytest.raises(KeyboardInterrupt):
        CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", trackers=[mine], report=cut)
    mine.fails = False
    CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", trackers=[mine], resume=True)
    assert [run.step for run in mine.heard if isinstance(run, Run)] == [0, 1]
    assert [heard[0] for heard in mine.heard if isinstance(heard, tuple)] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "[]", '{"id": 3}', '{"id": "a", "told": ["x"]}', '{"id": "a", "told": 4}'])
def test_a_damaged_note_of_where_it_stood_begins_anew(content: str, tmp_path: Path) -> None:
    mine = Kept()
    CM2.from_config(settings(fit={"epochs": 2})).fit(TABLE, out=tmp_path / "run", trackers=[mine])
    (tmp_path / "run" / "trackers" / "Kept.json").write_text(content)
    again = Kept()
    CM2.from_config(settings()).fit(TABLE, out=tmp_path / "run", trackers=[again], resume=True)
    assert again.heard[0].step == 0
    assert [heard[0] for heard in again.heard if isinstance(heard, tuple)] == [1, 2, 3]


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings()))
    fit = ["fit", tmp_path / "config.yaml", "--data", tmp_path / "nowhere.csv", "--out", tmp_path / "run"]
    for name in ("tensorboard", "mlflow", "wandb"):
        line = refused(capsys, 2, *fit, "--set", f"fit.trackers=[{name}]")
        assert f"fit.trackers: {name} needs the package {name}; pip install 'cm2pyro[{name}]'" in line
    assert not (tmp_path / "run").exists()


def test_a_run_is_loaded_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CM2.from_config(settings(fit={"epochs": 1, "trackers": ["tensorboard"]})).fit(TABLE, out=tmp_path / "run")
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    CM2.load(tmp_path / "run").predict(TABLE)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"fit\.trackers: unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        CM2.from_config(settings(fit={"trackers": ["tensorbord"]})).fit(TABLE, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"fit\.trackers: names one twice"):
        Config.from_dict(settings(fit={"trackers": ["wandb", "wandb"]}))
    mine: Registry[type[Tracker]] = Registry("tracker")
    monkeypatch.setattr(TRACKERS, "_entries", mine._entries)
    register_tracker("kept", Kept)
    CM2.from_config(settings(fit={"trackers": ["kept"], "epochs": 1})).fit(TABLE, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "trackers" / "kept.json").read_text()) == {"id": None, "told": [1]}


def test_of_several_processes_the_first_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.from_dict(settings())
    assert list(Tracking(config, [Kept()], None, logging.info).trackers) == ["Kept"]
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert not Tracking(config, [Kept()], None, logging.info).trackers

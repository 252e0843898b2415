"""Optuna as the one that proposes settings."""

import sys
from pathlib import Path

import pytest

from cm2pyro.errors import ConfigError
from cm2pyro.sweep.space import Axis, Choice, Range, Setting
from cm2pyro.sweep.table import Entry
from cm2pyro.sweep.tpe import Study, check_installed

AXES: tuple[Axis, ...] = (Range("x", -2.0, 2.0), Range("K", 1, 6, whole=True), Choice("family", ("a", None, {"b": 1})))


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def score(setting: Setting) -> float:
    """Best, 0, at x = 1, K = 3 and family a."""
    return -((setting["x"] - 1) ** 2) - (setting["K"] != 3) - (setting["family"] != "a")


def go_on(study: Study, most: int) -> list[Entry]:
    found = []
    while len(found) < most and (entry := study.ask()) is not None:
        entry.trials, entry.records = {0: "run"}, {0: {"status": "done"}}
        study.tell(entry, score(entry.setting))
        found.append(entry)
    return found


@pytest.mark.slow
def test_it_learns_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = go_on(Study(AXES, storage(tmp_path / "a"), "s", 0, 22), 100)
    assert len(whole) == 22
    for entry in whole:
        assert -2 <= entry.setting["x"] <= 2
        assert entry.setting["K"] in range(1, 7)
        assert entry.setting["family"] in ("a", None, {"b": 1})
    # Ten random settings, and twelve that have learned from them.
    assert max(score(entry.setting) for entry in whole) > -0.5
    assert sum(score(entry.setting) for entry in whole[12:]) / 10 > sum(score(entry.setting) for entry in whole[:10]) / 10 + 0.5
    first = go_on(Study(AXES, storage(tmp_path / "b"), "s", 0, 22), 12)
    rest = go_on(Study(AXES, storage(tmp_path / "b"), "s", 0, 22), 100)
    assert [entry.setting for entry in first + rest] == [entry.setting for entry in whole]


@pytest.mark.slow
def test_two_work_on_one_study(tmp_path: Path) -> None:
    one, other = (Study(AXES, storage(tmp_path), "s", 0, 6) for _ in range(2))
    mine = [*go_on(one, 2)]
    theirs = go_on(other, 2)
    assert {entry.number for entry in mine + theirs} == {0, 1, 2, 3}
    assert len({str(entry.setting) for entry in mine + theirs}) == 4
    asked = one.ask()
    assert asked is not None
    found = list(one.others({0, 1}))  # not those that are still under way
    assert [(entry.number, entry.setting, entry.trials) for entry in found] == [(e.number, e.setting, {0: "run"}) for e in theirs]
    assert not any(entry.ours for entry in found)
    asked.records = {0: {"status": "failed", "reason": "x"}}
    one.tell(asked, float("nan"))
    one.tell(asked, 1.0)  # as after a resume: it has been told
    assert [entry.number for entry in other.others({0, 1, 2, 3})] == [4]
    assert len(go_on(other, 9)) == 1  # six in all


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nonsense", f"sqlite:///{tmp_path / 'none' / 'study.db'}", "nosuch://x"):
        with pytest.raises(ConfigError, match=r"--storage .*expected a URL") as refused:
            Study(AXES, url, "s", 0, 1)
        assert "\n" not in str(refused.value)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"Optuna is not installed; pip install 'cm2pyro\[optuna\]'"):
        check_installed()

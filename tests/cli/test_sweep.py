"""`cm2pyro sweep` as a user types it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from cm2pyro.api import CM2
from cm2pyro.config import Config
from tests.cli.commands import call, refused
from tests.inference.fits import difference, settings, table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, and a manifest of 60 rows: 36 train, 12 val, 12 test."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = table()
    rows["split"] = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    rows.to_csv(folder / "manifest.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(fit={"epochs": 2})))
    return folder


def command(made: Path, out: Path, *further: object) -> list[object]:
    return ["sweep", made / "config.yaml", "--data", made / "manifest.csv", "--out", out, "--device", "cpu", *further]


@pytest.mark.slow
def test_a_grid_from_beginning_to_end(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    # Column c is not there, which only a fit can see.
    grid = ["--grid", "modalities.b.column=b,c", "--grid", "prior.components=1,2", "--seeds", "3,4", "--jobs", 2]
    code, said, err = call(capsys, *command(made, out, *grid))
    assert code == 0, err
    assert "4 settings, 2 seeds: 8 trials, 2 at a time" in said
    assert said.count("failed: ") == 5  # each trial, and the reason once more
    assert "4 failed: " in said
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "results.csv",
        "settings.csv",
        "best.yaml",
        "sweep.json",
        "sweep.png",
        "sweep.pdf",
        "trials",
    }
    results = pd.read_csv(out / "results.csv")
    assert results["status"].value_counts().to_dict() == {"done": 4, "failed": 4}
    assert results.loc[results["status"] == "failed", "reason"].str.contains("column 'c'").all()
    assert not any(column.startswith("test") for column in results)
    table = pd.read_csv(out / "settings.csv")
    best = table[table["chosen"] == 1].iloc[0]
    done = results[results["status"] == "done"]
    means = done.groupby("prior.components")["val_log_loss"].mean()
    assert best["prior.components"] == means.idxmin()
    assert best["val_log_loss"] == pytest.approx(means.min())
    config = Config.from_file(out / "best.yaml")
    assert (config.prior.components, config.modalities["b"].column, config.fit.seed) == (means.idxmin(), "b", 3)
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # A trial is the fit that `cm2pyro fit` makes, bit by bit, and its numbers are those of its validation rows.
    first = done.iloc[0]
    chosen = ["--set", f"prior.components={first['prior.components']}", "--set", "modalities.b.column=b", "--seed", first["seed"]]
    assert call(capsys, "fit", made / "config.yaml", "--data", made / "manifest.csv", "--out", tmp_path / "fit", *chosen)[0] == 0
    assert difference(tmp_path / "fit", Path(first["trial"])) is None
    again = CM2.load(first["trial"]).evaluate(made / "manifest.csv", split="val", bootstrap=0)
    assert again.metrics["auroc"]["value"] == pytest.approx(first["val_auroc"])

    # Finished trials are kept, failed and new ones run; test rows come when asked for, after the choice.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/metrics.jsonl")}
    assert len(stamps) == 4
    grid[3] = "prior.components=1,2,3"
    code, said, err = call(capsys, *command(made, out, *grid, "--resume", "--evaluate", "test"))
    assert code == 0, err
    assert "12 trials, 2 at a time; 4 are done, 8 to run" in said
    assert said.index("chosen on validation rows: ") < said.index("test rows:")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    results = pd.read_csv(out / "results.csv")
    assert results["test_auroc"].notna().tolist() == (results["status"] == "done").tolist() == [True] * 6 + [False] * 6
    tested = CM2.load(first["trial"]).evaluate(made / "manifest.csv", split="test", bootstrap=0)
    assert results["test_log_loss"][0] == pytest.approx(tested.metrics["log_loss"]["value"])

    assert "holds a sweep; pass --resume" in refused(capsys, 2, *command(made, out, *grid))
    assert "pass one of them" in refused(capsys, 2, *command(made, out, *grid, "--resume", "--overwrite"))
    other = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False)
    other.iloc[:-1].to_csv(tmp_path / "other.csv", index=False)
    changed = ["sweep", made / "config.yaml", "--data", tmp_path / "other.csv", "--out", out, *grid, "--resume"]
    assert "is not what the sweep in" in refused(capsys, 1, *changed)
    code, said, err = call(capsys, *command(made, out, "--grid", "missingness.mask=mcar:0,mcar:0.5", "--overwrite", "--evaluate", "test"))
    assert code == 0, err
    assert "the best of each is marked" in said
    assert not (out / "best.yaml").exists()
    assert len(list(out.glob("trials/*.json"))) == 2
    results = pd.read_csv(out / "results.csv")
    assert results["test_masked_log_loss"][0] == pytest.approx(results["test_log_loss"][0])
    assert results["test_masked_log_loss"][1] != pytest.approx(results["test_log_loss"][1])


def wait_for(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    while not done():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_that_is_stopped_and_one_that_is_killed_go_on(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, epochs = tmp_path / "out", 120
    changes = [f"fit.epochs={epochs}", "fit.patience=999", "fit.checkpoint_minutes=10"]
    arguments = command(made, out, "--grid", "prior.components=2", *(part for change in changes for part in ("--set", change)))
    line = [sys.executable, "-m", "cm2pyro", *map(str, arguments)]

    def started(*further: str) -> Any:
        return subprocess.Popen([*line, *further], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def epochs_of(trial: str) -> int:
        history = out / "trials" / trial / "metrics.jsonl"
        return len(history.read_text().splitlines()) if history.exists() else 0

    first = started()
    wait_for(first, lambda: epochs_of("0001") > 1)
    first.terminate()
    _, err = first.communicate(timeout=300)
    assert first.returncode == 143, err
    assert err.splitlines() == ["error: stopped by SIGTERM; the same command with --resume goes on"]
    cut = epochs_of("0001")
    assert cut < epochs
    assert "stopped by SIGTERM" in (out / "trials" / "0001.log").read_text()
    assert not (out / "trials" / "0001.json").exists()
    second = started("--resume")
    wait_for(second, lambda: epochs_of("0001") > cut + 1)
    second.kill()
    second.communicate(timeout=300)

    code, _, err = call(capsys, *arguments, "--resume")
    assert code == 0, err
    assert pd.read_csv(out / "results.csv")[["status", "epochs"]].to_numpy().tolist() == [["done", epochs]]
    # The bits of fits that go on are held in tests/inference; here, that it was no new fit, twice.
    assert (out / "trials" / "0001.log").read_text().count("resuming after epoch") == 2


@pytest.mark.slow
def test_a_random_search_and_optuna(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = ["--random", "fit.lr=1e-3:1e-1:log", "--grid", "prior.components=1,2", "--set", "fit.epochs=1"]
    code, said, err = call(capsys, *command(made, tmp_path / "random", *space, "--trials", 3, "--metric", "auroc"))
    assert code == 0, err
    results = pd.read_csv(tmp_path / "random" / "results.csv")
    assert len(results) == results["fit.lr"].nunique() == 3
    assert Config.from_file(tmp_path / "random" / "best.yaml").fit.lr == results.loc[results["val_auroc"].idxmax(), "fit.lr"]

    pytest.importorskip("optuna")
    optuna = [*space, "--sampler", "optuna", "--trials"]
    code, said, err = call(capsys, *command(made, tmp_path / "tpe", *optuna, 2))
    assert code == 0, err
    assert (tmp_path / "tpe" / "optuna.db").is_file()
    code, said, err = call(capsys, *command(made, tmp_path / "tpe", *optuna, 3, "--resume"))
    assert code == 0, err
    assert said.count("seed 0: val_log_loss") == 1  # one more
    # Another sweep on the same storage: the study has its three settings, and all are in its table.
    url = f"sqlite:///{tmp_path / 'tpe' / 'optuna.db'}"
    code, said, err = call(capsys, *command(made, tmp_path / "tpe2", *optuna, 4, "--storage", url))
    assert code == 0, err
    assert len(list((tmp_path / "tpe2" / "trials").glob("*.json"))) == 1
    assert len(pd.read_csv(tmp_path / "tpe2" / "results.csv")) == 4


def test_refusals_before_the_first_fit(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, grid = tmp_path / "out", ["--grid", "prior.components=1,2"]
    for wrong, message in (
        ([], "nothing is varied"),
        (["--grid", "prior.componets=1,2"], "did you mean 'components'"),
        (["--grid", "prior.components=1,none"], "prior.components=none"),
        (["--grid", "prior.copula.family=gaussian,claton"], "did you mean 'clayton'"),
        (["--random", "fit.lr=0.1:1"], "a range has no end"),
        ([*grid, "--trials", 3, "--sampler", "grid"], "--trials belongs to"),
        ([*grid, "--sampler", "random"], "needs --trials"),
        ([*grid, "--storage", "sqlite:///x.db"], "--storage belongs to"),
        ([*grid, "--seeds", "0,b"], "not a list of whole numbers"),
        ([*grid, "--metric", "test_auroc"], "validation rows alone"),
        ([*grid, "--base", made / "config.yaml"], "belongs to an experiment file"),
        (["--grid", "missingness.mask=mcar:0,mcar:0.5", "--sampler", "optuna", "--trials", 2], "no search can be guided"),
        (["--grid", "prior.components=1,2", "--threads", 1_000_000_000], "--threads"),
        (["--grid", "prior.components=1,2", "--jobs", 1_000_000], "--jobs"),
        (["--grid", "fit.seed=0,1"], "--seeds"),
    ):
        assert message in refused(capsys, 2, *command(made, out, *wrong))
    assert "holds no sweep" in refused(capsys, 1, *command(made, out, *grid, "--resume"))
    rows = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False).query("split == 'train'")
    rows.to_csv(tmp_path / "train.csv", index=False)
    only = ["sweep", made / "config.yaml", "--data", tmp_path / "train.csv", "--out", out, *grid]
    assert "nothing to choose by" in refused(capsys, 2, *only, "--set", "fit.validation=0")
    assert "no row has split 'test'" in refused(capsys, 1, *only, "--evaluate", "test")
    assert "none.csv" in refused(capsys, 1, "sweep", made / "config.yaml", "--data", tmp_path / "none.csv", "--out", out, *grid)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    assert "not empty" in refused(capsys, 2, *command(made, out, *grid))
    assert "holds sweep.json" in refused(capsys, 2, *command(made, out, *grid, "--overwrite"))
    assert os.listdir(out) == ["thesis.txt"]

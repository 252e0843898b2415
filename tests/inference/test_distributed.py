"""Two processes on one machine: the same parameters, decisions, files and lines as one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from cm2pyro.data.shards.write import write_shards
from cm2pyro.inference import checkpoint
from tests.cli.commands import call
from tests.inference.fits import difference, last, settings, table

pytestmark = pytest.mark.slow

STEPS = 21  # of the fit whose parameters are compared
DRAWS = ["--draws", "20", "--device", "cpu"]
Results = list[dict[str, Any]]


def plain(**changes: dict[str, Any]) -> dict[str, Any]:
    """Without dropout, whose masks are each process's own."""
    encoders = {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4, "dropout": 0.0} for name in ("a", "b")}
    return settings(modalities=encoders, **{"fit": {"lr": 1e-3, "epochs": 2}} | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(fit={"epochs": 2, "checkpoint_minutes": 10.0})))
    table().to_csv(folder / "manifest.csv", index=False)
    # More than two batches of a prediction, so that each process has some.
    several = [
        table().assign(sample_id=lambda t, i=i: t.sample_id + f"-{i}", subject_id=lambda t, i=i: t.subject_id + f"-{i}") for i in range(11)
    ]
    pd.concat(several).to_csv(folder / "many.csv", index=False)
    write_shards(folder / "many.csv", folder / "shards", [], None, 100)
    return folder


@pytest.fixture(scope="module")
def results(place: Path, root: Path) -> Results:
    """What the processes say of each job. They are started once: that takes longer than most jobs."""

    def fit(out: str, *more: str, data: str = "manifest.csv") -> list[str]:
        return ["fit", "config.yaml", "--data", data, "--out", out, "--device", "cpu", *more]

    jobs: dict[str, dict[str, Any]] = {
        "parity": {"parity": plain(fit={"lr": 1e-3, "epochs": STEPS // 3})},
        "hidden": {"parity": plain(fit={"modality_dropout": 0.3, "lr": 1e-3, "epochs": 2}, guide={"globals": "normal"})},
        "one row": {"parity": plain(fit={"batch_size": 1, "lr": 1e-3, "epochs": 1})},
        "own": {"parity": settings(fit={"epochs": 2}, guide={"local": "delta"})},
        "diagnose": {"arguments": ["diagnose", "whole", "--data", "manifest.csv"]},
        "whole": {"arguments": fit("whole")},
        "stopped": {"arguments": fit("stopped"), "fault": "asked_to_stop"},
        "resumed": {"arguments": fit("stopped", "--resume")},
        "not finite": {"arguments": fit("skipped"), "fault": "not_finite"},
        "bad data": {"arguments": fit("bad"), "fault": "unreadable"},
        "nuts": {"arguments": fit("nuts", "--set", "guide.globals=nuts", "--set", "fit.beta=1")},
        "filled": {"arguments": fit("whole")},
        "odd": {"arguments": fit("odd", data="shards")},
        "streamed": {"arguments": fit("streamed", "--set", "fit.batch_size=16", "--set", "fit.epochs=1", data="shards")},
        "tracked": {"arguments": fit("tracked", "--set", "fit.epochs=1", "--set", "fit.trackers=[tensorboard]")},
        "predict": {"arguments": ["predict", "whole", "--data", "many.csv", "--out", "two.csv", *DRAWS]},
        "predict shards": {"arguments": ["predict", "whole", "--data", "shards", "--out", "shards.csv", *DRAWS]},
        "evaluate": {"arguments": [*EVALUATE, "--out", "two.json"]},
    }  # fmt: skip
    (place / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("together.py")
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script), "jobs.json", "."]
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [json.loads((place / f"{rank}.json").read_text()) for rank in range(2)]


EVALUATE = [
    "evaluate",
    "whole",
    "--data",
    "many.csv",
    "--bootstrap",
    "20",
    "--draws",
    "20",
    "--missing",
    "mcar:0.5",
    "--delta=-1",
    "--device",
    "cpu",
]


def codes(results: Results, job: str) -> list[int]:
    return [result[job]["code"] for result in results]


def line(results: Results, job: str) -> str:
    """The one line that all processes together write to stderr."""
    text = "".join(result[job]["err"] for result in results)
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_two_processes_end_where_one_does(results: Results) -> None:
    """After 21 steps on batches of 15 rows, which fall to them as 7 and 8; noise, modality dropout and global draws included."""
    for job in ("parity", "hidden", "one row"):
        assert results[0][job]["largest"] <= 1e-5
        assert results[0][job]["elbo"] <= 1e-5


def test_all_processes_have_the_same_bits(results: Results) -> None:
    """Also where dropout and the statistics of normalised latents are each process's own, so that one process would end elsewhere."""
    assert all(result[job]["same"] for result in results for job in ("parity", "hidden", "one row", "own"))
    assert results[0]["own"]["largest"] > 1e-3


def test_a_signal_to_one_process_stops_all_and_resume_goes_on_to_the_same_bits(results: Results, place: Path) -> None:
    assert codes(results, "stopped") == [143, 143]
    assert "stopped by SIGTERM in epoch 2 after 2 of 3 batches" in line(results, "stopped")
    assert codes(results, "resumed") == codes(results, "whole") == [0, 0]
    assert "resuming after epoch 1, batch 2" in results[0]["resumed"]["out"]
    assert difference(place / "whole", place / "stopped") is None


def test_one_process_writes_and_prints(results: Results, place: Path) -> None:
    assert results[0]["whole"]["out"].count("epoch 1/2") == 1
    assert all(results[1][job]["out"] == "" for job in ("whole", "predict", "evaluate"))
    log = [json.loads(text)["event"] for text in (place / "whole" / "log.jsonl").read_text().splitlines()]
    assert log.count("fit") == log.count("end") == 1
    assert len((place / "whole" / "metrics.jsonl").read_text().splitlines()) == 2


def test_one_process_tells_the_trackers(results: Results, place: Path) -> None:
    assert codes(results, "tracked") == [0, 0]
    assert len(list((place / "tracked" / "trackers" / "tensorboard").iterdir())) == 1
    assert json.loads((place / "tracked" / "trackers" / "tensorboard.json").read_text())["told"] == [1]


def test_a_step_that_is_not_finite_for_one_is_left_out_by_all(results: Results, place: Path) -> None:
    assert codes(results, "not finite") == [0, 0]
    events = [json.loads(text) for text in (place / "skipped" / "log.jsonl").read_text().splitlines()]
    skips = [event for event in events if event["event"] == "skip"]
    assert [(skip["epoch"], skip["batch"]) for skip in skips] == [(1, 3), (2, 2)]
    assert skips[0]["found"].startswith("loss nan")
    assert skips[1]["found"].startswith("site z_a")
    assert checkpoint.read(last(place / "skipped"))[1]["progress"]["step"] == 6


def test_an_error_is_said_once(results: Results, place: Path) -> None:
    assert codes(results, "bad data") == [1, 1]
    assert "manifest.csv, row 7" in line(results, "bad data")
    assert not (place / "bad" / "config.yaml").exists()
    assert codes(results, "filled") == [2, 2]
    assert "the folder is not empty" in line(results, "filled")


def test_what_needs_one_process_is_refused(results: Results) -> None:
    for job, named in (("nuts", "guide.globals: nuts"), ("diagnose", "'diagnose' runs in one process"), ("odd", "fit.batch_size: 15 rows")):
        assert codes(results, job) == [2, 2]
        assert named in line(results, job)


@pytest.mark.parametrize("data", ["many.csv", "shards"])
def test_predictions_are_those_of_one_process(data: str, results: Results, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, two = ("predict shards", "shards.csv") if data == "shards" else ("predict", "two.csv")
    assert codes(results, job) == [0, 0]
    assert (
        call(capsys, "predict", place / "whole", "--data", place / data, "--out", place / "one.csv", "--draws", 20, "--device", "cpu")[0]
        == 0
    )
    assert (place / "one.csv").read_text() == (place / two).read_text()


def test_metrics_are_those_of_one_process(
    results: Results, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codes(results, "evaluate") == [0, 0]
    monkeypatch.chdir(place)
    assert call(capsys, *EVALUATE, "--out", "one.json")[0] == 0
    assert json.loads((place / "one.json").read_text()) == json.loads((place / "two.json").read_text())


def test_shards_are_read_by_each_and_fitted_by_all(results: Results, place: Path) -> None:
    """495 training rows in shards of 100: one process has three, the other two and reads some of its rows again."""
    assert codes(results, "streamed") == [0, 0]
    assert "train 495 rows" in results[0]["streamed"]["out"]
    header = checkpoint.read(last(place / "streamed"))[1]
    assert header["progress"]["step"] == 37  # ⌈295 / 8⌉: with this seed the last and smaller shard is one of the three

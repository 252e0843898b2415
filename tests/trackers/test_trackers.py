"""TensorBoard, MLflow and Weights & Biases themselves: what they have after fits that end, are cut and go on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cm2pyro.api import CM2
from cm2pyro.inference.run import flat
from cm2pyro.trackers import TRACKERS, TensorBoard
from tests.inference.fits import CutError, difference, settings, table
from tests.trackers.read import READERS

pytestmark = pytest.mark.slow

NAMES = list(READERS)
TABLE = table()


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def tracked(names: list[str] = NAMES, **fit: Any) -> dict[str, Any]:
    return settings(fit={"epochs": 3, "checkpoint_minutes": 10.0, "trackers": names, **fit})


def expected(run: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    numbers = [{key.replace(".", "/"): value for key, value in flat(line).items() if value is not None} for line in lines]
    return {line["epoch"]: found for line, found in zip(lines, numbers, strict=True)}


def same(found: dict[int, dict[str, float]], wanted: dict[int, dict[str, float]]) -> None:
    assert set(found) == set(wanted)
    for step, values in wanted.items():
        assert {name.replace("~", "-") for name in values} == {name.replace("~", "-") for name in found[step]}
        for name, value in values.items():  # TensorBoard has single precision, MLflow no tilde in a name
            assert found[step].get(name, found[step].get(name.replace("~", "-"))) == pytest.approx(value, rel=1e-6), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole` with all trackers, `plain` with none, `cut` that was cut after two epochs and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    CM2.from_config(tracked()).fit(TABLE, out=folder / "whole")
    CM2.from_config(tracked([])).fit(TABLE, out=folder / "plain")

    def cut(record: dict, warnings: list[str]) -> None:
        if record["epoch"] == 2:
            raise CutError

    with pytest.raises(CutError):
        CM2.from_config(tracked()).fit(TABLE, out=folder / "cut", report=cut)
    for name in NAMES:
        told = READERS[name](folder / "cut")
        assert set(told.epochs) == {1, 2}
        assert not told.ended
        assert not told.best
    CM2.from_config(tracked()).fit(TABLE, out=folder / "cut", resume=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_has_what_metrics_jsonl_has(name: str, runs: Path) -> None:
    run = runs / "whole"
    told, wanted = READERS[name](run), expected(run)
    same(told.epochs, wanted)
    assert {"elbo", "val_auroc", "kl", "seconds", "effective_components/a"} <= set(told.epochs[1])
    assert any(key.startswith("tau/a") for key in told.epochs[1])
    best = min(wanted.values(), key=lambda values: values["val_log_loss"])
    assert told.best["best/epoch"] == best["epoch"]
    assert told.best["best/val_log_loss"] == pytest.approx(best["val_log_loss"], rel=1e-6)
    config = flat(yaml.safe_load((run / "config.yaml").read_text()))
    assert {key: str(value) for key, value in config.items()}.items() <= told.parameters.items()
    assert told.ended in (True, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_that_goes_on_goes_on_in_the_same_run(name: str, runs: Path) -> None:
    told = READERS[name](runs / "cut")
    same(told.epochs, expected(runs / "cut"))
    assert told.times == {1: 1, 2: 1, 3: 1}
    assert len(told.ids) == 1
    assert told.ended in (True, None)
    assert "best/epoch" in told.best


def test_trackers_change_no_bit_of_a_fit(runs: Path) -> None:
    for run in ("whole", "cut"):
        for file in ("best", "last"):
            name = f"checkpoints/{file}.safetensors"
            assert difference_of(runs / run / name, runs / "plain" / name) is None


def difference_of(a: Path, b: Path) -> str | None:
    from cm2pyro.inference import checkpoint

    (tensors, _), (others, _) = checkpoint.read(a), checkpoint.read(b)
    return next((key for key in tensors if not tensors[key].equal(others[key])), None)


def test_what_a_killed_fit_did_not_tell_is_told_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after the checkpoint of the second epoch, before the tracker knows of it."""
    plain = TensorBoard.epoch

    def killed(self: TensorBoard, step: int, values: dict[str, float]) -> None:
        if step == 2:
            raise SystemExit
        plain(self, step, values)

    with monkeypatch.context() as patched:
        patched.setattr(TensorBoard, "epoch", killed)
        with pytest.raises(SystemExit):
            CM2.from_config(tracked(["tensorboard"])).fit(TABLE, out=tmp_path / "run")
    CM2.from_config(tracked(["tensorboard"])).fit(TABLE, out=tmp_path / "run", resume=True)
    told = READERS["tensorboard"](tmp_path / "run")
    same(told.epochs, expected(tmp_path / "run"))
    assert told.times == {1: 1, 2: 1, 3: 1}


def test_a_tracker_that_is_added_on_resume_is_told_all(tmp_path: Path) -> None:
    CM2.from_config(tracked([], epochs=2)).fit(TABLE, out=tmp_path / "run")
    CM2.from_config(tracked(["tensorboard"])).fit(TABLE, out=tmp_path / "run", resume=True)
    same(READERS["tensorboard"](tmp_path / "run").epochs, expected(tmp_path / "run"))


def test_members_of_an_ensemble_stand_in_one_run(tmp_path: Path) -> None:
    CM2.from_config(tracked(["tensorboard"], epochs=2, ensemble=2)).fit(TABLE, out=tmp_path / "run")
    told = READERS["tensorboard"](tmp_path / "run")
    first = expected(tmp_path / "run")
    second = expected(tmp_path / "run" / "members" / "2")
    prefixed = {step + 2: {f"members/2/{key}": value for key, value in values.items()} for step, values in second.items()}
    same(told.epochs, first | prefixed)


def test_overwrite_leaves_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    CM2.from_config(tracked(["tensorboard"])).fit(TABLE, out=tmp_path / "run")
    CM2.from_config(tracked(["tensorboard"], epochs=1)).fit(TABLE, out=tmp_path / "run", overwrite=True)
    assert set(READERS["tensorboard"](tmp_path / "run").epochs) == {1}
    CM2.from_config(tracked([], epochs=1)).fit(TABLE, out=tmp_path / "run", overwrite=True)
    CM2.from_config(tracked([], epochs=1)).fit(TABLE, out=tmp_path / "plain")
    assert difference(tmp_path / "run", tmp_path / "plain") is None


# Read by a process when it starts: it notes which hosts it looks up and connects to, beyond the machine's own sockets.
WATCH = """
import os, socket
asked, look_up, connect = os.environ["ASKED"], socket.getaddrinfo, socket.socket.connect
def note(host):
    if host not in ("127.0.0.1", "::1", "localhost"):
        with open(asked, "a") as file:
            print(host, file=file)
def noted_look_up(host, *rest, **named):
    note(host)
    return look_up(host, *rest, **named)
def noted_connect(self, address):
    if self.family != socket.AF_UNIX:
        note(address[0])
    return connect(self, address)
socket.getaddrinfo, socket.socket.connect = noted_look_up, noted_connect
"""


def test_nothing_of_a_patient_and_nobody_is_called(tmp_path: Path) -> None:
    """The files of all trackers hold no identifier, no text and no path of the data; no host is asked for anything."""
    frame = TABLE.assign(
        sample_id=[f"sample-Qx{i:03}" for i in range(len(TABLE))], subject_id=[f"subject-Wz{i:03}" for i in range(len(TABLE))]
    )
    frame["note"] = [f"Mrs Zyxwvut{i:03} of Quillbury breathes calmly" for i in range(len(frame))]
    frame.loc[frame.index[::9], "note"] = "  "  # said when the fit begins, with its row
    secret = tmp_path / "ward-Jqk7"
    secret.mkdir()
    frame.to_csv(secret / "manifest.csv", index=False)
    config = tracked(epochs=1)
    config["modalities"] |= {"note": {"kind": "text", "encoder": "bag", "max_tokens": 8, "hidden": 4}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    # MLflow reports nothing where it thinks itself tested.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "WANDB_", "PYTEST_")) and key != "CI"}
    path = os.pathsep.join([str(tmp_path / "watch"), str(Path(__file__).resolve().parents[2])])
    environment = kept | {"PYTHONPATH": path, "ASKED": str(tmp_path / "asked")}
    command = [sys.executable, "-m", "cm2pyro", "fit", "config.yaml", "--data", str(secret / "manifest.csv"), "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning: tracker" not in done.stdout
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text()
    files = [path for path in (tmp_path / "run" / "trackers").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "run" / "trackers").parts[0] for path in files} >= set(NAMES)
    assert not {path.name for path in files} & {"output.log", "wandb-metadata.json"}  # what was printed, and the command line
    for path in files:
        content = path.read_bytes().lower()
        for word in (b"sample-qx", b"subject-wz", b"zyxwvut", b"quillbury", b"calmly", b"ward-jqk7"):
            assert word not in content, f"{word!r} in {path}"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "run", "watch", secret.name}


def test_all_are_here() -> None:
    """A tracker without a test would go unnoticed."""
    assert TRACKERS.names() == sorted(READERS)

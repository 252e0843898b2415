"""Data and configs at the edge: each fits with finite numbers, or is refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.cli.commands import call, refused
from tests.inference.fits import settings, table

pytestmark = pytest.mark.slow

Change = Callable[[pd.DataFrame], pd.DataFrame]


def numbers() -> pd.DataFrame:
    """With two columns of numbers beside the vectors."""
    random = np.random.default_rng(1)
    frame = table()
    return frame.assign(x=random.normal(size=len(frame)).round(3).astype(str), y=random.normal(size=len(frame)).round(3).astype(str))


def setting(column: str, value: str, rows: slice = slice(None)) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.iloc[rows, frame.columns.get_loc(column)] = value
        return frame

    return change


def vectors(value: float, rows: slice = slice(None)) -> Change:
    return setting("a", json.dumps([value, 1.0]), rows)


def only(rows: int) -> Change:
    return lambda frame: frame.iloc[:rows]


def write(folder: Path, frame: pd.DataFrame, **changes: dict) -> list[object]:
    modalities = {
        "a": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
        "b": {"kind": "embedding", "encoder": "mlp", "hidden": 4},
        "t": {"kind": "tabular", "encoder": "mlp", "columns": ["x", "y"], "hidden": 4},
    }
    config = settings(**{"fit": {"epochs": 2}, **changes})
    config["modalities"] = changes.get("modalities", modalities)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    frame.to_csv(folder / "manifest.csv", index=False)
    return ["fit", folder / "config.yaml", "--data", folder / "manifest.csv", "--out", folder / "run"]


def fits(capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[object]) -> None:
    """The fit ends, and what it writes and predicts is finite."""
    code, _, err = call(capsys, *arguments)
    assert code == 0, err
    for line in (folder / "run" / "metrics.jsonl").open():
        record = json.loads(line, parse_constant=pytest.fail)
        assert math.isfinite(record["elbo"])
        assert math.isfinite(record["kl"])
    json.loads((folder / "run" / "mixture.json").read_text(), parse_constant=pytest.fail)
    assert call(capsys, "predict", folder / "run", "--data", folder / "manifest.csv", "--out", folder / "p.csv")[0] == 0
    predicted = pd.read_csv(folder / "p.csv")["probability"]
    assert predicted.between(0, 1).all()
    assert len(predicted) == len(pd.read_csv(folder / "manifest.csv"))


@pytest.mark.parametrize(
    "change",
    [
        setting("x", "1e30"),
        setting("x", "1e30", slice(3, 4)),
        setting("x", "1e-30"),
        setting("x", "1e-30", slice(3, 4)),
        setting("x", "-1e300", slice(50, 51)),  # of a validation row
        setting("x", "7"),
        setting("x", "nan", slice(3, 4)),  # a cell that is not there
        vectors(1e30),
        vectors(1e30, slice(3, 4)),
        vectors(1e-30),
        vectors(1e30, slice(50, 51)),
        vectors(7.0),
        setting("label", "1"),
        setting("label", "0", slice(0, 45)),
        only(1),
        only(2),
        only(3),
    ],
    ids=[
        "column of 1e30", "cell of 1e30", "column of 1e-30", "cell of 1e-30", "validation cell of -1e300", "constant column", "nan cell",
        "vectors of 1e30", "a vector of 1e30", "vectors of 1e-30", "a validation vector of 1e30", "constant vectors",
        "one class", "one class in training", "one sample", "two samples", "three samples",
    ],
)  # fmt: skip
def test_data(change: Change, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write(tmp_path, change(numbers()))
    code, _, err = call(capsys, *arguments)
    if code == 0:
        fits(capsys, tmp_path, [*arguments, "--overwrite"])
        return
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "fault of cm2pyro" not in err
    assert not (tmp_path / "run" / "checkpoints" / "best.safetensors").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"modalities": {"a": {"kind": "embedding", "encoder": "mlp", "hidden": 4}}},
        {"modalities": {"a": {"kind": "embedding", "encoder": "identity"}}, "latent": {"dim": 2}},
        {"prior": {"components": 70}},
        {"prior": {"components": 4, "coupling": "full"}},
        {"latent": {"dim": 1}},
        {"latent": {"dim": 1}, "prior": {"components": 1, "copula": {"family": "clayton"}}},
        {"fit": {"epochs": 2, "batch_size": 1}},
        {"fit": {"epochs": 2, "batch_size": 1000}},
        {"guide": {"local": "delta"}, "fit": {"epochs": 2, "batch_size": 1}},
    ],
    ids=["one modality", "one given", "K > N", "K^M tuples", "D = 1", "D = K = 1", "batches of one", "one batch", "one row normalised"],
)
def test_configs(changes: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits(capsys, tmp_path, write(tmp_path, numbers(), **changes))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (setting("x", "inf", slice(3, 4)), "inf"),
        (setting("a", "[Infinity, 1.0]", slice(3, 4)), "a"),
        (setting("a", "[NaN, 1.0]", slice(3, 4)), "a"),
        (setting("a", "[1e999, 1.0]", slice(3, 4)), "a"),
    ],
    ids=["inf", "vector inf", "vector nan", "vector overflow"],
)
def test_numbers_that_are_none(change: Change, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, 1, *write(tmp_path, change(numbers())))
    assert says in line
    assert not (tmp_path / "run").exists()

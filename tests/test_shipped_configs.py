"""Every shipped config runs, fit to prediction, on small data in the form that `prepare` and `simulate` write."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from cm2pyro.api import CM2
from cm2pyro.cli import main

pytestmark = pytest.mark.slow

N = 40
CODES = {"capillary_refill_rate": 2, "gcs_eye": 8, "gcs_motor": 12, "gcs_total": 13, "gcs_verbal": 12}
WORDS = ["chest", "clear", "effusion", "stable", "worse", "tube", "line", "oedema", "film", "patient", "calm", "tired", "bright"]
# What makes the real encoders small enough for a test: nothing of their kind is changed.
SMALL: dict[str, tuple[str, ...]] = {
    "mimic3.yaml": ("modalities.note.max_tokens=24",),
    "mimic4-cxr.yaml": ("modalities.image.size=32",),
    "mimic4.yaml": ("modalities.image.size=32", "modalities.note.max_tokens=24"),
    "covid-cxr.yaml": ("modalities.image.size=32", "modalities.note.max_tokens=24"),
}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def words(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, 30))


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The files of `prepare mimic4`, with the names and codes that its config reads; real ones are tested in tests/data/mimic."""
    out = tmp_path_factory.mktemp("mimic")
    rng = np.random.default_rng(0)
    ids = [f"{i:03}" for i in range(N)]
    config = CM2.from_config(root / "configs" / "mimic4.yaml").config
    variables: list[str] = config.modalities["ehr"].options["variables"]
    series: list[dict[str, Any]] = []
    for sample in ids:
        for hour in sorted(rng.uniform(0, 48, 6)):
            for name in variables:
                value = rng.integers(CODES[name]) if name in CODES else rng.normal(80, 10)
                series.append({"sample_id": sample, "hours": hour, "variable": name, "value": float(value)})
    pd.DataFrame(series).to_parquet(out / "vitals.parquet")
    notes = [{"sample_id": sample, "hours": hour, "text": words(rng)} for sample in ids[: N // 2] for hour in rng.uniform(0, 48, 2)]
    pd.DataFrame(notes).to_parquet(out / "notes.parquet")
    static = {"age": rng.normal(60, 10, N), "gender": rng.choice(["M", "F"], N)}
    pd.DataFrame({"sample_id": ids} | static).to_parquet(out / "static.parquet")
    manifest = frame(ids)
    manifest["label_mortality"] = manifest["label"]
    manifest["image"] = pictures(out, ids[::3], rng).reindex(ids).fillna("").tolist()
    manifest.to_csv(out / "manifest.csv", index=False)
    for name in ("labs", "gases"):  # the tables of `prepare physionet2012` have the same form
        pd.DataFrame(series[:: len(variables)]).to_parquet(out / f"{name}.parquet")
    return out / "manifest.csv"


@pytest.fixture(scope="module")
def covid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("covid")
    rng = np.random.default_rng(0)
    ids = [f"{i:03}" for i in range(N)]
    columns = {name: rng.normal(40, 5, N) for name in ("age", "offset", "temperature")}
    kinds = {"sex": rng.choice(["M", "F"], N), "view": rng.choice(["PA", "AP"], N)}
    pd.DataFrame({"sample_id": ids} | columns | kinds).to_parquet(out / "static.parquet")
    manifest = frame(ids)
    manifest["image"] = pictures(out, ids, rng).tolist()
    manifest["note"] = [words(rng) if i % 3 else "" for i in range(N)]
    manifest.to_csv(out / "manifest.csv", index=False)
    return out / "manifest.csv"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    assert run("simulate", str(out / "data"), "--samples", "120") == 0
    return out / "data" / "manifest.csv"


def frame(ids: list[str]) -> pd.DataFrame:
    split = np.where(np.arange(N) % 5 == 3, "val", np.where(np.arange(N) % 5 == 4, "test", "train"))
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": np.arange(N) // 5 % 2})


def pictures(out: Path, ids: list[str], rng: np.random.Generator) -> pd.Series:
    (out / "images").mkdir()
    for sample in ids:
        Image.fromarray(rng.integers(0, 256, (50, 45), dtype=np.uint8)).save(out / "images" / f"{sample}.png")
    return pd.Series([f"images/{sample}.png" for sample in ids], index=ids)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mimic3.yaml", "mimic"),
        ("mimic4-cxr.yaml", "mimic"),
        ("mimic4.yaml", "mimic"),
        ("mimic-demo.yaml", "mimic"),
        ("physionet2012.yaml", "mimic"),
        ("covid-cxr.yaml", "covid"),
        ("simulated.yaml", "simulated"),
        ("simulated-embedding.yaml", "simulated"),
        ("simulated-fusion.yaml", "simulated"),
    ],
)
def test_runs(name: str, data: str, root: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    manifest = str(request.getfixturevalue(data))
    settings = [part for setting in ("fit.epochs=1", *SMALL.get(name, ())) for part in ("--set", setting)]
    folder = str(tmp_path / "run")
    assert run("fit", str(root / "configs" / name), "--data", manifest, "--out", folder, "--threads", "1", *settings) == 0
    printed = capsys.readouterr().out
    modalities = CM2.from_config(root / "configs" / name).config.modalities
    for modality, part in modalities.items():
        scratch = f"modality {modality}: encoder {part.encoder} starts from scratch (weights: none)"
        assert (scratch in printed) == (part.options.get("weights") == "none")
    texts = [modality for modality, part in modalities.items() if part.kind == "text"]
    assert [path.name for path in (tmp_path / "run").glob("tokenizer*.json")] == ["tokenizer.json"] * len(texts)
    for _ in texts:
        assert Tokenizer.from_file(str(tmp_path / "run" / "tokenizer.json")).encode("calm patient").tokens[0] == "[CLS]"
    assert run("predict", folder, "--data", manifest, "--out", str(tmp_path / "p.csv")) == 0
    predicted = pd.read_csv(tmp_path / "p.csv", dtype={"sample_id": str}, keep_default_na=False)
    assert predicted.probability.between(0, 1).all()
    rows = pd.read_csv(manifest, dtype=str)
    assert predicted.sample_id.tolist() == rows.sample_id.tolist()
    assert set(";".join(predicted.observed).split(";")) - {""} == set(modalities)


@pytest.mark.parametrize(
    ("name", "threads"),
    [("covid-cxr.yaml", 1), ("simulated.yaml", 1), ("physionet2012.yaml", 1), ("mimic3.yaml", 7), ("mimic4-cxr.yaml", 7)],
)
def test_small_encoders_take_one_thread(name: str, threads: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert run("fit", str(root / "configs" / name), "--data", "nowhere.csv", "--out", "nowhere") == 1
    assert taken == [threads]


def test_all_are_here(root: Path) -> None:
    """A config without a test would go unnoticed."""
    here = {mark.args[1][i][0] for mark in test_runs.pytestmark for i in range(len(mark.args[1]))}  # type: ignore[attr-defined]
    assert {path.name for path in (root / "configs").glob("*.yaml")} == here


def test_the_grid_of_mimic_has_76_columns(mimic: Path, root: Path) -> None:
    model = CM2.from_config(root / "configs" / "mimic3.yaml", overrides=("fit.epochs=1", *SMALL["mimic3.yaml"]))
    model.fit(mimic)
    assert model.preparation.kinds["ehr"].shapes()["binned"] == (24, 76)

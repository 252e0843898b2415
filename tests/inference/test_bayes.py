"""Posteriors of the global sites through the whole program: fit, save, load, predict."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.errors import ConfigError
from tests.inference.fits import CutError, cut_after

NAMES = ("a", "b")
HEAD = {"head": {"dist": "Normal", "loc": 0, "scale": 2}}
NUTS = {"guide": {"globals": "nuts"}, "nuts": {"chains": 2, "warmup": 15, "draws": 10}}


def config(**changes: dict) -> dict:
    sections = {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in NAMES},
        "latent": {"dim": 1},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "layers": 0},
        "fit": {"epochs": 2, "batch_size": 32, "validation": 0, "beta": 1.0},
    }
    return {key: {**sections.get(key, {}), **changes.get(key, {})} for key in {*sections, *changes}}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = 2 * random.choice([-1, 1], size=(60, 1)) + random.normal(size=(60, 2))
    cells = {name: [json.dumps([v]) if random.random() < 0.8 else "" for v in x[:, m]] for m, name in enumerate(NAMES)}
    label = (random.random(60) < 1 / (1 + np.exp(-x.sum(1)))).astype(int).astype(str)
    ids = [f"s{i}" for i in range(60)]
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": label} | cells)


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[CM2, Path]:
    run = tmp_path_factory.mktemp("nuts") / "run"
    return CM2.from_config(config(priors=HEAD, **NUTS)).fit(table, out=run), run


@pytest.mark.slow
def test_chains_are_drawn_and_stored(fitted: tuple[CM2, Path]) -> None:
    model, run = fitted
    chains = model.program.chains
    assert chains is not None
    shapes = {name: tuple(value.shape) for name, value in chains.values.items()}
    assert shapes == {
        "weights": (2, 10, 2),
        "locs": (2, 10, 2, 2, 1),
        "scales": (2, 10, 2, 2, 1),
        "copula": (2, 10, 1, 2, 2),
        "head": (2, 10, 1, 2),
        "head_bias": (2, 10, 1),
    }
    assert all(bool(torch.isfinite(value).all()) for value in chains.values.values())
    read = CM2.load(run).program.chains
    assert (read.divergences, read.warmup, read.draws) == (chains.divergences, 15, 20)
    for name, value in chains.values.items():
        torch.testing.assert_close(read.values[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_predictions_are_the_same_after_a_load(table: pd.DataFrame, fitted: tuple[CM2, Path], tmp_path: Path) -> None:
    model, run = fitted
    expected = model.predict(table, draws=40)
    assert bool(np.isfinite(expected[["probability", "sd", "q05", "q95"]].to_numpy()).all())
    pd.testing.assert_frame_equal(CM2.load(run).predict(table, draws=40), expected)
    model.save(tmp_path / "again")
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "again").predict(table, draws=40), expected)


@pytest.mark.slow
def test_predictions_are_means_over_the_chains(table: pd.DataFrame, fitted: tuple[CM2, Path]) -> None:
    """Of rows with nothing missing and given latents the prediction is the mean over draws of the head, by hand."""
    model, _ = fitted
    complete = table[(table["a"] != "") & (table["b"] != "")]
    drawn = model.program.draw_globals(20)
    assert len(drawn) == 20
    assert len(model.program.draw_globals(7)) == 7
    assert len(model.program.draw_globals(500)) == 20  # no more than there are
    x = np.array([[json.loads(row.a)[0], json.loads(row.b)[0]] for row in complete.itertuples()])
    raw = model.impute(complete, draws=1)["z"].to_numpy()[0, ..., 0]
    assert raw.shape == x.shape
    logits = np.stack([raw @ one["head"][0].numpy() + one["head_bias"].numpy() for one in drawn])
    p = 1 / (1 + np.exp(-logits))
    found = model.predict(complete, draws=20)
    np.testing.assert_allclose(found["probability"], p.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["sd"], p.std(0), atol=1e-5)


@pytest.mark.slow
def test_resuming_samples_again_what_was_cut(table: pd.DataFrame, tmp_path: Path) -> None:
    asked = config(guide={"globals": "nuts"}, nuts={"chains": 1, "warmup": 5, "draws": 2}, prior={"components": 1})
    model = CM2.from_config(asked).fit(table)
    run = tmp_path / "run"

    with pytest.raises(CutError):
        CM2.from_config(asked).fit(table, out=run, report=cut_after(1))
    said: list[str] = []
    CM2.load(run, say=said.append)
    assert any("holds no draws of the global sites" in line for line in said)
    resumed = CM2.from_config(asked).fit(table, out=run, resume=True)
    pd.testing.assert_frame_equal(resumed.predict(table, draws=10), model.predict(table, draws=10))


def test_a_new_fit_leaves_no_chains_behind(table: pd.DataFrame, fitted: tuple[CM2, Path], tmp_path: Path) -> None:
    model, _ = fitted
    model.save(tmp_path / "run")
    CM2.from_config(config(priors=HEAD)).fit(table, out=tmp_path / "run", overwrite=True)
    assert CM2.load(tmp_path / "run").program.chains is None
    assert not list((tmp_path / "run").rglob("chains*"))


@pytest.mark.slow
def test_members_have_chains_of_their_own(table: pd.DataFrame, tmp_path: Path) -> None:
    asked = config(
        guide={"globals": "nuts"}, nuts={"chains": 1, "warmup": 5, "draws": 2}, prior={"components": 1}, fit={"ensemble": 2, "epochs": 1}
    )
    model = CM2.from_config(asked).fit(table, out=tmp_path / "run")
    first, second = (program.chains.values["locs"] for program in model.programs)
    assert not torch.equal(first, second)
    loaded = CM2.load(tmp_path / "run")
    for before, after in zip(model.programs, loaded.programs, strict=True):
        torch.testing.assert_close(after.chains.values["locs"], before.chains.values["locs"], rtol=0, atol=0)
    pd.testing.assert_frame_equal(loaded.predict(table, draws=10), model.predict(table, draws=10))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "normal", "lowrank", "flow"])
@pytest.mark.parametrize("ensemble", [1, 2])
def test_heads_with_priors_predict(table: pd.DataFrame, tmp_path: Path, kind: str, ensemble: int) -> None:
    fit = {"ensemble": ensemble, "epochs": 2 if ensemble == 1 else 1}
    model = CM2.from_config(config(guide={"globals": kind}, priors=HEAD, fit=fit)).fit(table, out=tmp_path / "run")
    assert model.program.model.head is None
    found = model.predict(table, draws=40)
    assert bool(np.isfinite(found[["probability", "sd", "q05", "q95"]].to_numpy()).all())
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "run").predict(table, draws=40), found)
    if ensemble > 1:
        return
    complete = ((table["a"] != "") & (table["b"] != "")).to_numpy()
    sd = found["sd"].to_numpy()[complete]
    # Given latents, nothing missing: only a posterior of the head can spread a prediction.
    assert (sd < 1e-6).all() if kind == "delta" else (sd > 1e-4).all()


@pytest.mark.slow
def test_resuming_a_fit_with_a_head(table: pd.DataFrame, tmp_path: Path) -> None:
    asked = {"guide": {"globals": "flow"}, "priors": HEAD}
    whole = CM2.from_config(config(**asked)).fit(table)

    with pytest.raises(CutError):
        CM2.from_config(config(**asked)).fit(table, out=tmp_path / "run", report=cut_after(1))
    resumed = CM2.from_config(config(**asked)).fit(table, out=tmp_path / "run", resume=True)
    pd.testing.assert_frame_equal(resumed.predict(table, draws=10), whole.predict(table, draws=10))


def test_weight_decay_leaves_a_head_with_a_prior_alone(table: pd.DataFrame) -> None:
    """The prior takes its place; both would shrink twice."""
    program = CM2.from_config(config(priors=HEAD)).fit(table).program
    decayed = {id(p) for p in program.regularised()}
    assert not any(id(p) in decayed for p in program.guide.head.parameters())
    with pytest.raises(ValueError, match="has a prior"):
        program.model.outputs(torch.zeros(1, 2, 1))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"guide": {"globals": "nuts", "missing": "marginal"}}, "nuts needs guide.missing conditional, found marginal"),
        ({"guide": {"globals": "nuts"}, "prior": {"coupling": "full"}}, "nuts needs prior.coupling shared, found full"),
        ({"guide": {"globals": "nuts"}, "missingness": {"model": "selection"}}, "nuts needs missingness.model ignorable"),
        ({"nuts": {"chains": 0}}, "nuts.chains"),
        ({"nuts": {"draws": 0}}, "nuts.draws"),
        ({"priors": {"head_bias": HEAD["head"]}}, "head_bias has a prior, head has none"),
        ({"guide": {"globals": "hmc"}}, "guide.globals"),
    ],
)
def test_refusals(changes: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        CM2.from_config(config(**changes))
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)

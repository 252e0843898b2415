"""Fits: recovery of a known truth, no collapse, checkpoints."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.errors import CheckpointError, ConfigError, DataError

DOUBLE = torch.float64


def vectors(z: np.ndarray, observed: np.ndarray | None = None) -> list[str]:
    return [json.dumps(row.tolist()) if observed is None or observed[i] else "" for i, row in enumerate(z)]


def manifest(z: np.ndarray, observed: np.ndarray, seed: int, val: float = 0.2) -> pd.DataFrame:
    """z (N, M, D) as given vectors m0, m1, …; the label depends on every modality."""
    random = np.random.default_rng(seed)
    n = len(z)
    logit = (z - z.mean(0)).sum((1, 2)) / z.std()
    split = np.where(np.arange(n) < n * (1 - val), "train", "val")
    ids = [f"s{i}" for i in range(n)]
    label = (random.random(n) < 1 / (1 + np.exp(-logit))).astype(int).astype(str)
    columns = {f"m{m}": vectors(z[:, m], observed[:, m]) for m in range(z.shape[1])}
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": split, "label": label, **columns})


def small(**changes: dict) -> dict:
    """A config that fits in seconds."""
    config = {
        "modalities": {f"m{m}": {"kind": "embedding", "encoder": "mlp", "hidden": 16} for m in range(3)},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 8},
        "fit": {"epochs": 3, "batch_size": 32, "lr": 0.01, "patience": 50},
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return config


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.normal(size=(200, 3, 2)) + 2 * random.integers(0, 2, size=(200, 1, 1))
    return manifest(z, random.random((200, 3)) < 0.7, 1)


# --- recovery -------------------------------------------------------------------------------------------------------

LOCS = torch.tensor(
    [[[-4.0, 4.0], [0.0, 0.0], [4.0, -4.0]], [[3.5, 0.0], [-3.5, -3.5], [0.0, 3.5]], [[0.0, -3.0], [3.0, 3.0], [-3.0, 0.0]]]
)
SCALES = torch.tensor([[[1.0, 0.8], [0.9, 1.0], [1.1, 0.7]], [[0.8, 1.0], [1.0, 0.9], [0.7, 1.0]], [[0.9, 0.8], [0.8, 0.9], [0.9, 0.8]]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.2, 0.5, 0.7])
def test_recovery_of_the_truth_from_given_latents(tau: float) -> None:
    """4,000 samples, D = 2, K = 3, centres at least 3 sd apart and in different orders per modality.

    Locations and scales are within 5 standard errors of a component's own mean and sd, weights within 5 of a
    binomial share, tau within 0.05.
    """
    n = 4000
    torch.manual_seed(11)
    truth = CopulaMixture(
        WEIGHTS.log().to(DOUBLE),
        torch.arange(3)[:, None].expand(3, 3),
        LOCS.to(DOUBLE),
        SCALES.to(DOUBLE),
        make_copula("gaussian", 3, tau=tau, dtype=DOUBLE),
    )
    z = truth.rsample((n + 200,)).numpy()
    data = manifest(z, np.ones((len(z), 3), dtype=bool), 0, val=200 / len(z))
    config = Config.from_file(Path(__file__).parents[2] / "configs" / "simulated-embedding.yaml").to_dict()
    config["modalities"] = {f"m{m}": {"kind": "embedding", "encoder": "identity"} for m in range(3)}
    fitted = CM2.from_config(config).fit(data)
    p = fitted.mixture()
    scaling = [kind.scaling for kind in fitted.preparation.kinds.values()]
    locs = np.stack([scaling[m].inverse(p.locs[m].numpy()) for m in range(3)])
    scales = np.stack([p.scales[m].numpy() * scaling[m].scale for m in range(3)])
    order = min(itertools.permutations(range(3)), key=lambda o: np.abs(locs[:, list(o)] - LOCS.numpy()).sum())
    order = list(order)
    weights = p.log_weights.exp().numpy()[order]
    counts = n * WEIGHTS.numpy()
    assert (np.abs(weights - WEIGHTS.numpy()) < 5 * np.sqrt(WEIGHTS.numpy() * (1 - WEIGHTS.numpy()) / n)).all()
    assert (np.abs(locs[:, order] - LOCS.numpy()) < 5 * SCALES.numpy() / np.sqrt(counts)[:, None]).all()
    assert (np.abs(scales[:, order] / SCALES.numpy() - 1) < 5 / np.sqrt(2 * counts)[:, None]).all()
    learned = p.copula.tau().numpy()
    for a, b in itertools.combinations(range(3), 2):
        assert (np.abs(learned[:, a, b] - tau) < 0.05).all()


@pytest.mark.slow
def test_deterministic_representations_do_not_collapse() -> None:
    """The paper's objective with learned encoders, a strong prior and many epochs: its optimum without the three
    safeguards is sd 0 and an infinite density."""
    random = np.random.default_rng(3)
    z = random.normal(size=(300, 3, 2)) + 3 * random.integers(0, 2, size=(300, 1, 1))
    data = manifest(z, random.random((300, 3)) < 0.8, 1)
    config = small(guide={"local": "delta"}, fit={"epochs": 250, "beta": 0.5, "batch_size": 80, "patience": 250, "lr": 0.02})
    fitted = CM2.from_config(config).fit(data)
    records = fitted.history
    assert len(records) == 250
    assert min(records[-1]["latent_sd"].values()) > 0.5
    assert all(math.isfinite(record["elbo"]) for record in records)
    # Bounded: with sd floor 0.1 the log density of 6 coordinates is at most 6 log(1 / (0.1 sqrt(2 pi))) + the copula's share.
    late = [record["elbo"] for record in records[-50:]]
    assert max(late) < 0.5 * (6 * math.log(1 / (0.1 * math.sqrt(2 * math.pi))) + 2 * 2 * 4.2)
    p = fitted.mixture()
    assert float(p.scales.min()) > 0.1
    assert float((p.copula.tau() - torch.eye(3)).abs().max()) <= 0.99
    assert fitted.predict(data)["probability"].std() > 0.05


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guide", [{"local": "normal"}, {"local": "delta"}, {"globals": "normal"}, {"missing": "marginal"}, {"missing": "amortized"}]
)
def test_save_load_predict_gives_identical_numbers(tmp_path: Path, table: pd.DataFrame, guide: dict) -> None:
    fitted = CM2.from_config(small(guide=guide)).fit(table, out=tmp_path / "run")
    before = fitted.predict(table)
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "run").predict(table), before, check_exact=True)
    fitted.save(tmp_path / "copy")
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "copy").predict(table), before, check_exact=True)
    assert before["probability"].nunique() > 100


def test_a_prediction_does_not_depend_on_the_other_rows(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small()).fit(table)
    together = fitted.predict(table).set_index("sample_id")
    alone = fitted.predict(table.iloc[[7]]).set_index("sample_id")
    for name in ("probability", "sd", "q05", "q95", "typicality"):
        assert alone.loc["s7", name] == pytest.approx(together.loc["s7", name], abs=1e-6)


class CutError(Exception):
    pass


@pytest.mark.parametrize(
    "changes", [{}, {"guide": {"local": "delta"}, "fit": {"ema": 0.9, "modality_dropout": 0.3, "schedule": "cosine", "warmup": 3}}]
)
def test_a_resumed_fit_ends_where_an_undisturbed_one_does(tmp_path: Path, table: pd.DataFrame, changes: dict) -> None:
    config = small(**changes)
    config["fit"]["epochs"] = 4
    CM2.from_config(config).fit(table, out=tmp_path / "whole")

    def cut(record: dict, warnings: list[str]) -> None:
        if record["epoch"] == 2:
            raise CutError

    with pytest.raises(CutError):
        CM2.from_config(config).fit(table, out=tmp_path / "cut", report=cut)
    CM2.from_config(config).fit(table, out=tmp_path / "cut", resume=True)
    for name in ("best", "last"):
        whole, again = ((tmp_path / folder / "checkpoints" / f"{name}.safetensors").read_bytes() for folder in ("whole", "cut"))
        header = int.from_bytes(whole[:8], "little") + 8
        assert whole[header:] == again[int.from_bytes(again[:8], "little") + 8 :]
    lines = [[json.loads(x) for x in (tmp_path / f / "metrics.jsonl").read_text().splitlines()] for f in ("whole", "cut")]
    assert [{k: v for k, v in record.items() if k != "seconds"} for record in lines[0]] == [
        {k: v for k, v in record.items() if k != "seconds"} for record in lines[1]
    ]


def test_resume_refuses_another_config_or_other_data_and_takes_more_epochs(tmp_path: Path, table: pd.DataFrame) -> None:
    run = tmp_path / "run"
    CM2.from_config(small()).fit(table, out=run)
    with pytest.raises(ConfigError, match=r"fit\.lr is 0\.5, and the run .* has 0\.01"):
        CM2.from_config(small(fit={"lr": 0.5})).fit(table, out=run, resume=True)
    with pytest.raises(DataError, match="not those that the run"):
        CM2.from_config(small()).fit(table.iloc[10:], out=run, resume=True)
    longer = CM2.from_config(small(fit={"epochs": 5})).fit(table, out=run, resume=True)
    assert len(longer.history) == 5
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["epochs"] == 5


def test_a_module_given_from_python_is_an_encoder(tmp_path: Path, table: pd.DataFrame) -> None:
    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh())

    fitted = CM2.from_config(small(), encoders={"m1": net()}).fit(table, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="pass encoders="):
        CM2.load(tmp_path / "run")
    loaded = CM2.load(tmp_path / "run", encoders={"m1": net()})
    pd.testing.assert_frame_equal(loaded.predict(table), fitted.predict(table), check_exact=True)
    with pytest.raises(ConfigError, match="no such modality"):
        CM2.from_config(small(), encoders={"m9": net()})
    with pytest.raises(ConfigError, match="cannot read the view"):
        CM2.from_config(small(), encoders={"m1": torch.nn.Linear(7, 2)}).fit(table)
    with pytest.raises(ConfigError, match=r"\(n, width\)"):
        CM2.from_config(small(), encoders={"m1": torch.nn.Unflatten(1, (2, 1))}).fit(table)


def test_a_run_folder_holds_what_the_interface_says(tmp_path: Path, table: pd.DataFrame) -> None:
    run = tmp_path / "run"
    CM2.from_config(small()).fit(table, out=run)
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["epochs"] == 3
    env = json.loads((run / "env.json").read_text())
    assert {"python", "torch", "pyro-ppl", "seed", "device"} <= set(env)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {"epoch", "elbo", "outcome", "kl", "val_log_loss", "val_auroc", "effective_components", "tau", "seconds"}
    assert len(records) == 3
    assert all(keys <= set(record) for record in records)
    assert set(records[0]["effective_components"]) == {"m0", "m1", "m2"}
    assert not list(run.rglob("*.pkl"))
    assert not list(run.rglob("*.pt"))


def test_early_stopping_keeps_the_best_epoch(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small(fit={"epochs": 60, "patience": 2, "lr": 0.05})).fit(table)
    losses = [record["val_log_loss"] for record in fitted.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 60
    val = fitted.evaluate(table, split="val", bootstrap=0, draws=20)
    assert val.metrics["log_loss"]["value"] == pytest.approx(losses[best], abs=1e-6)


@pytest.mark.slow
def test_a_second_start_moves_the_mixture_and_keeps_an_earlier_best(table: pd.DataFrame) -> None:
    """An overfitting fit is at its best before the second start, which must not touch what was kept."""
    settings = {"epochs": 16, "lr": 0.1, "patience": 50, "warmup": 15}
    plain = CM2.from_config(small(fit={**settings, "warmup": 0})).fit(table)
    again = CM2.from_config(small(fit=settings)).fit(table)
    assert plain.history[13] | {"seconds": 0} == again.history[13] | {"seconds": 0}
    assert plain.history[15]["tau"] != again.history[15]["tau"]
    losses = [record["val_log_loss"] for record in again.history]
    assert int(np.argmin(losses)) < 13
    assert again.evaluate(table, split="val", bootstrap=0, draws=20).metrics["log_loss"]["value"] == pytest.approx(min(losses), abs=1e-6)


def test_subjects_are_held_out_where_there_is_no_val(tmp_path: Path, table: pd.DataFrame) -> None:
    data = table.assign(split="train", subject_id=[f"p{i // 2}" for i in range(len(table))])
    said: list[str] = []
    fitted = CM2.from_config(small(), say=said.append).fit(data, out=tmp_path / "run")
    held = json.loads((tmp_path / "run" / "holdout.json").read_text())
    assert len(held["subjects"]) == 20
    assert len(held["samples"]) == 40
    assert any("held out" in line for line in said)
    assert fitted.holdout == held


def test_refusals(tmp_path: Path, table: pd.DataFrame) -> None:
    model = CM2.from_config(small())
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="has not been fitted"):
        model.predict(table)
    with pytest.raises(CheckpointError, match="no run folder"):
        CM2.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        model.fit(table, out=run, resume=True)
    with pytest.raises(DataError, match="no row has split 'train'"):
        model.fit(table.assign(split="val"), out=run)
    with pytest.raises(DataError, match="subject_id"):
        model.fit(table.drop(columns="subject_id"), out=run)
    with pytest.raises(DataError, match="missing in every training row"):
        model.fit(table.assign(m1=""), out=run)
    assert not run.exists()
    model.fit(table, out=run)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        model.fit(table, out=run)
    with pytest.raises(DataError, match="label is '7'"):
        CM2.from_config(small()).fit(table.assign(label="7"), out=run, overwrite=True)
    # A refused fit leaves the earlier run as it was.
    assert (run / "metrics.jsonl").read_bytes() == before
    last = run / "checkpoints" / "best.safetensors"
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cut short"):
        CM2.load(run)


def test_a_loss_that_is_not_finite_stops_the_fit(table: pd.DataFrame) -> None:
    from cm2pyro.errors import CM2Error

    with pytest.raises(CM2Error, match="no longer finite"):
        CM2.from_config(small(fit={"lr": 1e30, "clip": 1e30})).fit(table)


def test_modalities_may_have_the_names_of_methods(table: pd.DataFrame) -> None:
    data = table.rename(columns={"m0": "keys", "m1": "type", "m2": "forward"})
    config = small()
    config["modalities"] = {name: {"kind": "embedding", "encoder": "mlp"} for name in ("keys", "type", "forward")}
    assert len(CM2.from_config(config).fit(data).predict(data)) == len(data)


def test_multiclass(tmp_path: Path, table: pd.DataFrame) -> None:
    random = np.random.default_rng(0)
    data = table.assign(label=random.choice(["low", "mid", "high"], len(table)))
    fitted = CM2.from_config(small(task={"type": "multiclass"})).fit(data, out=tmp_path / "run")
    frame = CM2.load(tmp_path / "run").predict(data)
    assert list(frame.columns[:4]) == ["sample_id", "probability_high", "probability_low", "probability_mid"]
    np.testing.assert_allclose(frame.filter(like="probability_").sum(axis=1), 1, atol=1e-6)
    assert fitted.evaluate(data, bootstrap=10).metrics["auroc"]["value"] is not None


def test_predict_without_labels_splits_and_a_modality(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(small()).fit(table)
    frame = fitted.predict(table[["sample_id", "m0", "m1"]])
    assert len(frame) == len(table)
    assert all("m2" in missing.split(";") for missing in frame["missing"])
    nothing = frame["observed"] == ""
    assert nothing.any()
    assert frame.loc[nothing, "typicality"].isna().all()
    assert frame.loc[~nothing, "typicality"].between(0, 100).all()
    assert frame.loc[nothing, "probability"].nunique() == 1
    assert (frame["q05"] <= frame["probability"]).mean() > 0.95
    with pytest.raises(DataError, match="label"):
        fitted.evaluate(table[["sample_id", "m0"]])

"""Several labels and numbers through fit, prediction and evaluation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import DataError
from cm2pyro.inference.program import Program
from cm2pyro.inference.validate import validate

pytestmark = pytest.mark.slow

LABELS = ["sepsis", "shock"]


def table(n: int = 120, seed: int = 0, missing: float = 0.3) -> pd.DataFrame:
    """Two vectors, a number and two labels that depend on both; some cells empty."""
    random = np.random.default_rng(seed)
    z = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=n)
    los = 50 + 8 * (z[:, 0] + 0.5 * z[:, 1]) + 4 * random.normal(size=n)
    columns = {"sample_id": [f"s{i:04}" for i in range(n)], "subject_id": [f"p{i // 2:04}" for i in range(n)]}
    columns["split"] = np.where(np.arange(n) < 0.6 * n, "train", np.where(np.arange(n) < 0.8 * n, "val", "test"))
    columns["los"] = ["" if i % 11 == 10 else repr(float(value)) for i, value in enumerate(los)]
    for j, (name, weight) in enumerate(zip(LABELS, (1.5, -1.0), strict=True)):
        value = (random.random(n) < 1 / (1 + np.exp(-weight * z.sum(1)))).astype(int)
        columns[f"full_{name}"] = value.astype(str)
        columns[name] = ["" if i % 7 == j or i % 13 == 12 else str(v) for i, v in enumerate(value)]
    for j, name in enumerate("ab"):
        columns[name] = ["" if random.random() < missing and i > 3 else json.dumps([float(z[i, j])]) for i in range(n)]
    return pd.DataFrame(columns)


def config(task: dict, encoder: str = "mlp", **sections: dict) -> dict:
    modality = {"kind": "embedding", "encoder": encoder} | ({} if encoder == "identity" else {"hidden": 4})
    return {
        "task": task,
        "modalities": {"a": modality, "b": modality},
        "latent": {"dim": 1},
        "prior": {"components": 2} | sections.pop("prior", {}),
        "fusion": {"kind": "mlp", "hidden": 4} | sections.pop("fusion", {}),
        "fit": {"epochs": 3, "batch_size": 32, "lr": 0.01} | sections.pop("fit", {}),
        **sections,
    }


MULTILABEL, REGRESSION = {"type": "multilabel", "labels": LABELS}, {"type": "regression", "label": "los"}
BOTH = pytest.mark.parametrize("task", [MULTILABEL, REGRESSION], ids=["multilabel", "regression"])


def test_one_label_is_a_binary_task() -> None:
    data = table()
    binary = CM2.from_config(config({"label": "full_sepsis"})).fit(data)
    one = CM2.from_config(config({"type": "multilabel", "labels": ["full_sepsis"]})).fit(data)
    left, right = binary.predict(data, draws=10), one.predict(data, draws=10)
    for name in ("probability", "sd", "q05", "q95"):
        np.testing.assert_allclose(right[f"{name}_full_sepsis"], left[name], rtol=1e-5, atol=1e-6)
    for then, now in zip(binary.history, one.history, strict=True):
        for key in ("elbo", "outcome", "kl", "val_log_loss", "val_auroc"):
            assert now[key] == pytest.approx(then[key], rel=1e-5), key
    there = binary.evaluate(data, bootstrap=20, patterns=True, missing=("without:a",)).metrics
    here = one.evaluate(data, bootstrap=20, patterns=True, missing=("without:a",)).metrics
    for metric in ("auroc", "auprc", "log_loss", "brier", "accuracy"):
        for first, second in ((there, here), (there["missing"]["without:a"], here["missing"]["without:a"])):
            assert second[metric] == pytest.approx(first[metric], rel=1e-5)


@BOTH
@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_the_outcome_has_one_density_a_row_and_every_parameter_a_finite_gradient(task: dict, coupling: str) -> None:
    model = CM2.from_config(config(task, prior={"coupling": coupling}))
    data = read_manifest(table())
    dataset = model.preparation.fit(data, np.arange(72))
    torch.manual_seed(0)
    program = Program(model.config, {name: kind.shapes() for name, kind in model.preparation.kinds.items()}, len(model.classes))
    batch = dataset.batch(torch.arange(72))
    assert not batch.observed.all()
    program.loss(batch).backward()
    log_prob = program.trace_elbo.traces[0].nodes["outcome"]["log_prob"]
    assert log_prob.shape == (72,)
    assert (log_prob[~batch.labelled] == 0).all()
    assert (log_prob[batch.labelled] != 0).all()
    for name, parameter in program.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if task is REGRESSION:
        assert program.model.likelihood.raw_scale.grad.abs() > 0


def test_an_empty_label_teaches_its_own_head_nothing() -> None:
    """With latents given and everything observed, the gradient of a label's head is that of the rows that have the label."""
    model = CM2.from_config(config(MULTILABEL, "identity", prior={"components": 1}))
    data = table(missing=0.0)
    dataset = model.preparation.fit(read_manifest(data), np.arange(72))
    torch.manual_seed(0)
    program = Program(model.config, {name: kind.shapes() for name, kind in model.preparation.kinds.items()}, 2)
    rows = torch.arange(72)
    program.loss(dataset.batch(rows)).backward()
    z = torch.stack([dataset.inputs[name]["vector"][rows] for name in "ab"], 1)
    p = program.model.outputs(z).sigmoid()
    labels = dataset.labels[rows]
    residual = torch.where(labels >= 0, p - labels, torch.zeros(()))
    torch.testing.assert_close(program.model.head.bias.grad, residual.sum(0) / len(rows))
    features = program.model.fusion(z)
    torch.testing.assert_close(program.model.head.weight.grad, residual.mT @ features / len(rows))


def test_units_of_the_label_change_nothing_but_units() -> None:
    data = table()
    rescaled = data.assign(los=["" if cell == "" else repr(1000 * float(cell) - 7) for cell in data["los"]])
    one, two = (CM2.from_config(config(REGRESSION)).fit(frame) for frame in (data, rescaled))
    left, right = one.predict(data, draws=20), two.predict(rescaled, draws=20)
    for name in ("mean", "q05", "q95"):
        np.testing.assert_allclose(right[name], 1000 * left[name] - 7, rtol=1e-4)
    np.testing.assert_allclose(right["sd"], 1000 * left["sd"], rtol=1e-4)
    assert (left["q05"] < left["mean"]).all()
    assert (left["mean"] < left["q95"]).all()
    here, there = (model.evaluate(frame, bootstrap=0).metrics for model, frame in ((one, data), (two, rescaled)))
    assert there["r2"]["value"] == pytest.approx(here["r2"]["value"], abs=1e-4)
    # Standardised labels are the same, so is what stops the fit; the log score is of the label in its own units.
    assert two.history[-1]["val_log_loss"] == pytest.approx(one.history[-1]["val_log_loss"], abs=1e-4)
    assert there["log_score"]["value"] == pytest.approx(here["log_score"]["value"] - np.log(1000), abs=1e-4)


def test_the_log_score_is_the_log_density_of_the_label_in_its_own_units() -> None:
    """With latents given and everything observed the prediction is one normal."""
    data = table(missing=0.0)
    model = CM2.from_config(config(REGRESSION, "identity", prior={"components": 1})).fit(data)
    rows = data[(data["split"] == "test") & (data["los"] != "")]
    frame = model.predict(rows)
    y = rows["los"].astype(float).to_numpy()
    found = model.evaluate(data, bootstrap=0).metrics
    assert found["n"] == len(rows)
    assert found["log_score"]["value"] == pytest.approx(norm(frame["mean"], frame["sd"]).logpdf(y).mean(), abs=1e-6)
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(np.mean((y - frame["mean"]) ** 2)), rel=1e-6)
    np.testing.assert_allclose(frame["q95"] - frame["mean"], norm.ppf(0.95) * frame["sd"], rtol=1e-6)


@BOTH
def test_what_stops_a_fit_is_the_mean_negative_log_score(task: dict) -> None:
    data = table()
    model = CM2.from_config(config(task)).fit(data)
    val = data[data["split"] == "val"]
    dataset = model.preparation.transform(read_manifest(val), labels=True)
    loss, auroc = validate(model.program, dataset, 0)
    best = min(model.history, key=lambda record: record["val_log_loss"])
    assert loss == pytest.approx(best["val_log_loss"], abs=1e-6)
    found = model.evaluate(val, bootstrap=0, draws=20).metrics
    if task is REGRESSION:
        assert auroc is None
        assert loss == pytest.approx(-found["log_score"]["value"] - np.log(model.preparation.scaling.scale[0]))
        return
    frame = model.predict(val, draws=20)
    cells = [(val[name].to_numpy(), frame[f"probability_{name}"].to_numpy()) for name in LABELS]
    known = [(y[y != ""].astype(int), p[y != ""]) for y, p in cells]
    expected = -np.log(np.concatenate([np.where(y == 1, p, 1 - p) for y, p in known])).mean()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert auroc == pytest.approx(np.mean([roc_auc_score(y, p) for y, p in known]))
    assert auroc == pytest.approx(found["auroc"]["value"])
    one_value = val.assign(**dict.fromkeys(LABELS, "1"))
    assert validate(model.program, model.preparation.transform(read_manifest(one_value), labels=True), 0)[1] is None
    none = val.assign(**dict.fromkeys(LABELS, ""))
    assert validate(model.program, model.preparation.transform(read_manifest(none), labels=True), 0) == (None, None)


@BOTH
def test_a_run_is_saved_loaded_and_resumed(task: dict, tmp_path: Path) -> None:
    data = table()
    whole = CM2.from_config(config(task, fit={"epochs": 4})).fit(data, tmp_path / "whole")
    CM2.from_config(config(task, fit={"epochs": 2})).fit(data, tmp_path / "part")
    resumed = CM2.from_config(config(task, fit={"epochs": 4})).fit(data, tmp_path / "part", resume=True)
    expected = whole.predict(data, draws=10)
    pd.testing.assert_frame_equal(resumed.predict(data, draws=10), expected)
    pd.testing.assert_frame_equal(CM2.load(tmp_path / "whole").predict(data, draws=10), expected)
    whole.save(tmp_path / "saved")
    pd.testing.assert_frame_equal(
        CM2.load(tmp_path / "saved").predict(data[["sample_id", "a"]], draws=10), whole.predict(data[["sample_id", "a"]], draws=10)
    )
    if task is REGRESSION:  # other training labels, other units
        changed = data.assign(los=[cell and repr(float(cell) + 1) for cell in data["los"]])
        again = CM2.from_config(config(task, fit={"epochs": 6}))
        with pytest.raises(DataError, match="not those that the run"):
            again.fit(changed, tmp_path / "part", resume=True)


def test_columns_and_notes_of_several_labels() -> None:
    lines: list[str] = []
    data = table().assign(rare="0")
    task = {"type": "multilabel", "labels": [*LABELS, "rare"]}
    model = CM2.from_config(config(task), say=lines.append).fit(data)
    warned = "warning: label 'rare' is 0 in every training row that has it; it can only learn that base rate"
    assert lines.count(warned) == 1
    frame = model.predict(data, draws=5)
    names = [*LABELS, "rare"]
    assert list(frame.columns) == [
        "sample_id",
        *(f"probability_{name}" for name in names),
        *(f"{what}_{name}" for name in names for what in ("sd", "q05", "q95")),
        "typicality",
        "observed",
        "missing",
        "sd_missing",
        "sd_encoder",
        "sd_global",
        "pays_most",
        "reduction_a",
        "reduction_b",
    ]
    squares = frame[[f"sd_{name}" for name in names]].pow(2).sum(axis=1)
    np.testing.assert_allclose(frame[["sd_missing", "sd_encoder", "sd_global"]].pow(2).sum(axis=1), squares, rtol=1e-9)
    assert lines.count(warned) == 1
    longer = CM2.from_config(config(task, fit={"epochs": 12, "lr": 0.1}), say=lines.append).fit(data)
    assert longer.predict(data, draws=5)["probability_rare"].max() < 0.05
    assert lines.count(warned) == 2
    model.fit(data)
    assert lines.count(warned) == 3


def test_rows_without_any_label_inform_the_latents_only() -> None:
    lines: list[str] = []
    data = table()
    model = CM2.from_config(config(MULTILABEL), say=lines.append).fit(data)
    train = data[data["split"] == "train"]
    none = int(((train["sepsis"] == "") & (train["shock"] == "")).sum())
    assert none > 0
    assert f"{none} training rows have no label: they inform the latents only" in lines
    test = data[data["split"] == "test"]
    metrics = model.evaluate(data, bootstrap=0).metrics
    assert metrics["n"] == int(((test["sepsis"] != "") | (test["shock"] != "")).sum())
    assert metrics["labels"]["shock"]["n"] == int((test["shock"] != "").sum())
    with pytest.raises(DataError, match="none of the 24 rows has a label in 'sepsis', 'shock'; evaluate needs some"):
        model.evaluate(test.assign(sepsis="", shock=""))


def closed_form(model: CM2, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """log p(y | z_a) where b is missing, one component, a linear head: everything is normal. z (n,) of a, y (n,)."""
    p, program = model.mixture(), model.program
    rho = torch.sin(torch.pi / 2 * p.copula.tau()[..., 0, 1]).squeeze()
    loc_a, loc_b, scale_a, scale_b = p.locs[0, 0, 0], p.locs[1, 0, 0], p.scales[0, 0, 0], p.scales[1, 0, 0]
    given = loc_b + rho * scale_b * (z - loc_a) / scale_a
    (weights,), (bias,) = program.model.head.weight.detach(), program.model.head.bias.detach()
    noise = program.model.likelihood.scale.detach()
    sd = torch.sqrt(noise**2 + (weights[1] * scale_b) ** 2 * (1 - rho**2))
    return torch.distributions.Normal(weights[0] * z + weights[1] * given + bias, sd).log_prob(y)


def test_many_draws_of_what_is_missing_reach_the_density_of_the_outcome() -> None:
    """The log of a mean over draws rises to log p(y | z_observed); the latents' own density stays as with one draw."""
    data = table(missing=0.0)
    sections = {"prior": {"components": 1}, "fusion": {"layers": 0}, "fit": {"lr": 0.05}}
    model = CM2.from_config(config(REGRESSION, "identity", **sections)).fit(data)
    program = model.program
    dataset = model.preparation.transform(read_manifest(data.assign(b="")), labels=True)
    dataset = dataset.take(dataset.labelled.nonzero()[:, 0].tolist())
    batch = dataset.batch(torch.arange(len(dataset)))
    exact = closed_form(model, batch.inputs["a"]["vector"][:, 0], batch.labels.float())
    found, latent = {}, {}
    torch.manual_seed(0)
    with torch.no_grad():
        for draws in (1, 20, 5000):
            values = []
            for _ in range(20 if draws < 100 else 1):
                program.elbo(batch, completions=draws)
                trace = program.trace_elbo.traces[0]
                values.append(trace.nodes["outcome"]["log_prob"])
                assert trace.nodes["z_b"]["value"].shape == (draws, len(batch), 1)
            found[draws], latent[draws] = torch.stack(values).mean(0), trace.nodes["z_a"]["log_prob_sum"]
    # The standard error of the log of a mean over 5,000 draws is about 0.02.
    torch.testing.assert_close(found[5000], exact, rtol=0, atol=0.12)
    assert found[1].mean() < found[20].mean() - 0.01 < exact.mean()
    torch.testing.assert_close(latent[5000], latent[1])
    assert Program.loss(program, batch).isfinite()
    assert program.trace_elbo.traces[0].nodes["z_b"]["value"].shape[0] == program.model.likelihood.completions == 20


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_hold_the_share_that_they_say(missing: float) -> None:
    """Latents given, one component, a linear truth: 90% intervals hold 90% of 2,000 new outcomes, whatever is hidden from
    them, and whatever was missing in training.

    Within 4 standard errors: of the binomial share, and of what an error of the observation scale (1 / sqrt(2 n)) moves it by.
    """
    n, train = 3200, 1000
    data = table(n, seed=5, missing=missing)
    data["split"] = np.where(np.arange(n) < train, "train", np.where(np.arange(n) < 1200, "val", "test"))
    data.loc[1200:, ["a", "b"]] = table(n, seed=5, missing=0.0).loc[1200:, ["a", "b"]]
    fit = {"epochs": 15, "lr": 0.05, "global_lr": 0.05, "batch_size": 64, "patience": 15, "schedule": "cosine", "beta": 1.0}
    sections = {"prior": {"components": 1}, "fusion": {"layers": 0}, "fit": fit}
    model = CM2.from_config(config(REGRESSION, "identity", **sections)).fit(data)
    sd = model.program.model.likelihood.scale.item() * model.preparation.scaling.scale[0]
    complete = int(((data["split"] == "train") & (data["a"] != "") & (data["b"] != "")).sum())
    assert sd == pytest.approx(4, rel=4 / np.sqrt(2 * complete))
    metrics = model.evaluate(data, missing=("without:a", "without:b", "mcar:0.5"), bootstrap=0, draws=400).metrics
    z = norm.ppf(0.95)
    shift = 2 * z * norm.pdf(z) / np.sqrt(2 * complete)
    for values in (metrics, *metrics["missing"].values()):
        tolerance = 4 * np.hypot(np.sqrt(0.09 / values["n"]), shift)
        assert values["coverage"]["value"] == pytest.approx(0.9, abs=tolerance)
    # Exact: without b its conditional sd, 0.8, adds to the noise.
    expected = np.hypot(4, 8 * 0.5 * 0.8)
    assert metrics["missing"]["without:b"]["rmse"]["value"] == pytest.approx(expected, rel=4 / np.sqrt(2 * complete))

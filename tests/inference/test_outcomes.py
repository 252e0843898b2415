"""Several labels and numbers through fit, prediction and evaluation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import DataError
from cm2pyro.inference.program import Program
from cm2pyro.inference.validate import validate
from tests.inference.outcomes import LABELS, MULTILABEL, REGRESSION, config, table

pytestmark = pytest.mark.slow

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

"""Metrics of several labels: per label those of a binary task on the rows that have it, and their means."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from cm2pyro.diagnostics.calibration import CALIBRATION
from cm2pyro.diagnostics.metrics import METRICS, evaluate
from cm2pyro.diagnostics.metrics_multilabel import evaluate_labels
from cm2pyro.errors import DataError

LABELS = ["sepsis", "shock", "rare"]
NAMES = ["series", "image"]


def case(n=300, seed=0, empty=0.2):
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(size=(n, 3)) - [0, -1, -2]))
    labels = (rng.random((n, 3)) < p).astype(int)
    labels[:, 1:][rng.random((n, 2)) < empty] = -1
    return labels, p.round(3), np.array([f"s{i // 3}" for i in range(n)]), rng.random((n, 2)) < 0.6


def call(labels, p, subjects, observed, **options):
    return evaluate_labels(labels, p, LABELS[: labels.shape[1]], subjects, observed, NAMES, **options)


def test_each_label_equals_a_binary_task_on_its_rows():
    labels, p, subjects, observed = case()
    found = call(labels, p, subjects, observed, bootstrap=0)
    for j, name in enumerate(LABELS):
        rows = labels[:, j] >= 0
        own = found["labels"][name]
        binary = evaluate(labels[rows, j], p[rows, j], subjects[rows], observed[rows], NAMES, bootstrap=0)
        assert own["n"] == rows.sum()
        assert own["prevalence"] == binary["prevalence"]
        for metric in METRICS:
            assert own[metric] == pytest.approx(binary[metric])
        assert own["auroc"]["value"] == pytest.approx(roc_auc_score(labels[rows, j], p[rows, j]))
        assert own["auprc"]["value"] == pytest.approx(average_precision_score(labels[rows, j], p[rows, j]))
    for metric in METRICS:
        assert found[metric]["value"] == pytest.approx(np.mean([found["labels"][name][metric]["value"] for name in LABELS]))
    assert (found["n"], found["subjects"], found["ranked"]) == (300, 100, 3)


def test_macro_of_complete_labels_equals_scikit_learn():
    labels, p, subjects, observed = case(empty=0.0)
    found = call(labels, p, subjects, observed, bootstrap=0)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(labels, p, average="macro"))
    assert found["auprc"]["value"] == pytest.approx(average_precision_score(labels, p, average="macro"))
    assert found["log_loss"]["value"] == pytest.approx(np.mean([log_loss(labels[:, j], p[:, j]) for j in range(3)]))
    assert found["brier"]["value"] == pytest.approx(((p - labels) ** 2).mean())


def test_one_label_equals_a_binary_task_intervals_included():
    labels, p, subjects, observed = case(empty=0.0)
    found = call(labels[:, :1], p[:, :1], subjects, observed, bootstrap=200, seed=3, patterns=True)
    binary = evaluate(labels[:, 0], p[:, 0], subjects, observed, NAMES, bootstrap=200, seed=3, patterns=True)
    for metric in METRICS:
        assert found[metric] == pytest.approx(binary[metric])
        assert found["labels"]["sepsis"][metric] == pytest.approx(binary[metric])
        for pattern in binary["patterns"]:
            assert found["patterns"][pattern][metric] == pytest.approx(binary["patterns"][pattern][metric])
    assert list(found["patterns"]) == list(binary["patterns"])


@pytest.mark.slow
def test_macro_intervals_resample_whole_subjects_with_all_their_labels():
    labels, p, subjects, observed = case(n=150)
    found = call(labels, p, subjects, observed, bootstrap=100, seed=5)
    rng = np.random.default_rng(5)
    codes = np.unique(subjects, return_inverse=True)[1]
    drawn = rng.integers(50, size=(100, 50))
    macro = []
    for row in drawn:
        rows = np.concatenate([np.flatnonzero(codes == s) for s in row])
        y, q = labels[rows], p[rows]
        macro.append(np.mean([roc_auc_score(y[y[:, j] >= 0, j], q[y[:, j] >= 0, j]) for j in range(3)]))
    low, high = np.quantile(macro, (0.025, 0.975))
    assert found["auroc"]["low"] == pytest.approx(low)
    assert found["auroc"]["high"] == pytest.approx(high)


def test_a_label_without_both_values_is_left_out_of_the_ranks():
    labels, p, subjects, observed = case()
    labels[:, 2] = np.where(labels[:, 2] < 0, -1, 0)
    labels[:, 1] = -1
    found = call(labels, p, subjects, observed, bootstrap=50, patterns=True)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    rare, none = found["labels"]["rare"], found["labels"]["shock"]
    assert rare["auroc"] == {"value": None, "low": None, "high": None}
    assert rare["log_loss"]["value"] is not None
    assert none == {"n": 0, "prevalence": None, **{key: {"value": None, "low": None, "high": None} for key in METRICS + CALIBRATION}}
    assert found["ranked"] == 1
    assert found["auroc"]["value"] == found["labels"]["sepsis"]["auroc"]["value"]
    assert found["brier"]["value"] == pytest.approx((found["labels"]["sepsis"]["brier"]["value"] + rare["brier"]["value"]) / 2)


def test_no_label_has_both_values():
    found = call(np.zeros((4, 2), int), np.full((4, 2), 0.1), list("abcd"), np.ones((4, 2), bool), bootstrap=10)
    assert found["auroc"] == {"value": None, "low": None, "high": None}
    assert found["brier"]["value"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("labels", "p", "says"),
    [
        ([[0, 2]], [[0.1, 0.1]], "labels: row 0"),
        ([[0, 1], [-1, -1]], [[0.1, 0.1]] * 2, "labels: row 1"),
        ([[0, 1]], [[0.1, 1.2]], "probabilities: row 0"),
        ([[0, 1]], [[0.1, np.nan]], "probabilities: row 0"),
        ([0, 1], [0.1, 0.2], "shapes"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "shapes"),
    ],
)
def test_what_does_not_fit_is_refused(labels, p, says):
    with pytest.raises(DataError, match=says) as caught:
        evaluate_labels(labels, p, ["a", "b"], ["s"] * len(labels), np.ones((len(labels), 2), bool), NAMES)
    assert len(str(caught.value).splitlines()) == 1

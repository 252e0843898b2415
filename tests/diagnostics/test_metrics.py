"""Metrics against scikit-learn, and intervals against what a bootstrap over subjects must do."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, log_loss, roc_auc_score

from cm2pyro.diagnostics.metrics import Ranking, evaluate
from cm2pyro.diagnostics.resampling import pattern_keys
from cm2pyro.errors import DataError

METRICS = ("auroc", "auprc", "log_loss", "brier", "accuracy", "ece")
NAMES = ["series", "image"]


def simulated(n, seed=0, slope=1.0, subjects=None):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-slope * score))).astype(int)
    ids = np.array([f"s{i}" for i in (np.arange(n) if subjects is None else rng.integers(subjects, size=n))])
    return labels, 1 / (1 + np.exp(-score)), ids, rng.random((n, 2)) < 0.6


def values(result):
    return {name: result[name]["value"] for name in METRICS}


@st.composite
def tied(draw):
    """Labels of both classes, scores with many ties, weights of which some are 0."""
    n = draw(st.integers(2, 40))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    scores = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 6
    weights = np.array(draw(st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0, 7.5]), min_size=n, max_size=n)))
    labels[:2], weights[:2] = (0, 1), (1.0, 2.0)
    return labels, scores, weights


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(tied())
def test_weighted_ranks_equal_scikit_learn(case):
    labels, scores, weights = case
    auroc, auprc = Ranking.of(labels == 1, scores).metrics(np.stack([weights, np.ones_like(weights)]))
    for i, w in enumerate((weights, None)):
        assert auroc[i] == pytest.approx(roc_auc_score(labels, scores, sample_weight=w), abs=1e-12)
        assert auprc[i] == pytest.approx(average_precision_score(labels, scores, sample_weight=w), abs=1e-12)


def test_weighted_ranks_equal_scikit_learn_on_many_rows():
    labels, scores, _, _ = simulated(3000)
    weights = np.random.default_rng(1).integers(0, 4, size=(5, 3000)).astype(float)
    for rounded in (scores, scores.round(2)):
        auroc, auprc = Ranking.of(labels == 1, rounded).metrics(weights)
        for i, w in enumerate(weights):
            assert auroc[i] == pytest.approx(roc_auc_score(labels, rounded, sample_weight=w), abs=1e-12)
            assert auprc[i] == pytest.approx(average_precision_score(labels, rounded, sample_weight=w), abs=1e-12)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(tied())
def test_binary_values_equal_scikit_learn(case):
    labels, p, _ = case
    found = values(evaluate(labels, p, np.arange(len(p)).astype(str), np.ones((len(p), 2), bool), NAMES, bootstrap=0))
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, p), abs=1e-12)
    assert found["auprc"] == pytest.approx(average_precision_score(labels, p), abs=1e-12)
    # Looser: scikit-learn takes 1 - (1 - 1e-7), which has lost nine digits.
    assert found["log_loss"] == pytest.approx(log_loss(labels, clipped, labels=[0, 1]), abs=1e-8)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, p), abs=1e-12)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, p >= 0.5), abs=1e-12)


def multiclass(n=400, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.7), n).round(2)
    p /= p.sum(axis=1, keepdims=True)
    return np.array([rng.choice(classes, p=row) for row in p]), p


def test_multiclass_values_equal_scikit_learn():
    labels, p = multiclass()
    result = evaluate(labels, p, np.arange(400).astype(str), np.ones((400, 2), bool), NAMES, bootstrap=50)
    hot = np.eye(4)[labels]
    found = values(result)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"), abs=1e-12)
    assert found["auprc"] == pytest.approx(average_precision_score(hot, p, average="macro"), abs=1e-12)
    likelihood = np.clip(p[np.arange(400), labels], 1e-7, 1 - 1e-7)
    assert found["log_loss"] == pytest.approx(-np.log(likelihood).mean(), abs=1e-12)
    assert found["brier"] == pytest.approx(((p - hot) ** 2).sum(axis=1).mean(), abs=1e-12)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(axis=1)), abs=1e-12)
    assert result["class_shares"] == pytest.approx(hot.mean(axis=0))
    assert "prevalence" not in result
    assert all(result[name]["low"] < result[name]["value"] < result[name]["high"] for name in METRICS if name != "ece")


def test_two_columns_agree_with_one():
    labels, p, ids, observed = simulated(200)
    one = evaluate(labels, p, ids, observed, NAMES, bootstrap=100)
    two = evaluate(labels, np.column_stack([1 - p, p]), ids, observed, NAMES, bootstrap=100)
    for name in ("auroc", "log_loss", "accuracy"):
        assert two[name] == pytest.approx(one[name], abs=1e-9)
    assert two["brier"]["value"] == pytest.approx(2 * one["brier"]["value"])


def test_multiclass_without_one_class_has_no_rank_metrics():
    labels, p = multiclass()
    rows = labels != 3
    result = evaluate(labels[rows], p[rows], np.arange(rows.sum()), np.ones((rows.sum(), 2), bool), NAMES, bootstrap=50)
    assert result["auroc"] == result["auprc"] == {"value": None, "low": None, "high": None}
    assert result["class_shares"][3] == 0.0
    assert result["log_loss"]["low"] is not None


def test_bootstrap_equals_scikit_learn_on_the_same_resamples():
    labels, p, ids, observed = simulated(120, subjects=40)
    result = evaluate(labels, p, ids, observed, NAMES, bootstrap=200, seed=3)
    subjects = np.unique(ids)
    draws = np.random.default_rng(3).integers(len(subjects), size=(200, len(subjects)))
    aurocs, losses = [], []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(ids == subjects[s]) for s in draw])
        aurocs.append(roc_auc_score(labels[rows], p[rows]))
        losses.append(log_loss(labels[rows], p[rows]))
    assert result["subjects"] == len(subjects)
    assert (result["auroc"]["low"], result["auroc"]["high"]) == pytest.approx(np.quantile(aurocs, (0.025, 0.975)), abs=1e-12)
    assert (result["log_loss"]["low"], result["log_loss"]["high"]) == pytest.approx(np.quantile(losses, (0.025, 0.975)), abs=1e-12)


def test_repeating_every_subject_does_not_narrow_the_interval():
    labels, p, ids, observed = simulated(150)
    once = evaluate(labels, p, ids, observed, NAMES, bootstrap=400)
    again = [np.tile(column, 4) for column in (labels, p, ids)]
    clustered = evaluate(*again, np.tile(observed, (4, 1)), NAMES, bootstrap=400)
    naive = evaluate(*again[:2], np.arange(600).astype(str), np.tile(observed, (4, 1)), NAMES, bootstrap=400)
    for name in METRICS:
        assert clustered[name] == pytest.approx(once[name], abs=1e-12)
        assert clustered[name]["high"] - clustered[name]["low"] > 1.5 * (naive[name]["high"] - naive[name]["low"])


@pytest.mark.slow
def test_intervals_cover_the_truth_with_clustered_subjects():
    """A subject's rows share half their score and the label: intervals over rows would cover far too rarely."""

    def draw(seed, subjects):
        rng = np.random.default_rng(seed)
        own = np.repeat(np.arange(subjects), 3)
        labels = rng.integers(2, size=subjects)[own]
        score = labels + rng.normal(size=subjects)[own] + 0.3 * rng.normal(size=3 * subjects)
        return labels, 1 / (1 + np.exp(-score)), own.astype(str)

    truth = roc_auc_score(*draw(0, 200_000)[:2])
    hits = naive_hits = 0
    for seed in range(1, 151):
        labels, p, ids = draw(seed, 100)
        seen = np.ones((300, 2), bool)
        found = evaluate(labels, p, ids, seen, NAMES, bootstrap=300, seed=seed)["auroc"]
        naive = evaluate(labels, p, np.arange(300).astype(str), seen, NAMES, bootstrap=300, seed=seed)["auroc"]
        hits += found["low"] <= truth <= found["high"]
        naive_hits += naive["low"] <= truth <= naive["high"]
    assert hits >= 0.89 * 150  # 95% less three standard errors
    assert naive_hits < 0.85 * 150


def test_seed_row_order_and_json():
    labels, p, ids, observed = simulated(100, subjects=30)
    result = evaluate(labels, p, ids, observed, NAMES, bootstrap=100, seed=5, patterns=True)
    order = np.random.default_rng(0).permutation(100)
    shuffled = evaluate(labels[order], p[order], ids[order], observed[order], NAMES, bootstrap=100, seed=5)
    for name in METRICS:
        assert shuffled[name] == pytest.approx(result[name], abs=1e-12)
    assert evaluate(labels, p, ids, observed, NAMES, bootstrap=100, seed=5, patterns=True) == result
    assert evaluate(labels, p, ids, observed, NAMES, bootstrap=100, seed=6)["auroc"] != result["auroc"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_no_bootstrap_gives_no_interval():
    result = evaluate(*simulated(50), NAMES, bootstrap=0)
    assert all(result[name]["low"] is None and result[name]["high"] is None for name in METRICS)
    assert all(value is not None for value in values(result).values())


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(label):
    _, p, ids, observed = simulated(40)
    result = evaluate(np.full(40, label), p, ids, observed, NAMES, bootstrap=50)
    assert result["auroc"] == result["auprc"] == {"value": None, "low": None, "high": None}
    assert result["prevalence"] == label
    assert all(None not in result[name].values() for name in ("log_loss", "brier", "accuracy"))


def test_resamples_of_one_class_are_ignored():
    labels = np.r_[np.ones(2, int), np.zeros(10, int)]
    p = np.linspace(0.9, 0.1, 12)
    result = evaluate(labels, p, np.arange(12).astype(str), np.ones((12, 2), bool), NAMES, bootstrap=300)
    assert result["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_mostly_undefined_resamples_give_no_interval():
    # Both classes are drawn in half of the resamples of two subjects, within chance; this seed gives fewer.
    few = [evaluate([0, 1], [0.2, 0.7], ["a", "b"], np.ones((2, 2), bool), NAMES, bootstrap=101, seed=seed) for seed in range(20)]
    assert all(result["auroc"]["value"] == 1.0 for result in few)
    assert {result["auroc"]["low"] for result in few} == {None, 1.0}
    assert all(result["log_loss"]["low"] is not None for result in few)


def test_perfect_and_constant_predictions():
    labels, _, ids, observed = simulated(60)
    perfect = evaluate(labels, labels.astype(float), ids, observed, NAMES, bootstrap=50)
    assert values(perfect) == pytest.approx({"auroc": 1, "auprc": 1, "log_loss": 1e-7, "brier": 0, "accuracy": 1, "ece": 0}, abs=1e-9)
    wrong = evaluate(labels, 1.0 - labels, ids, observed, NAMES, bootstrap=0)
    assert wrong["auroc"]["value"] == 0.0
    assert wrong["log_loss"]["value"] == pytest.approx(-np.log(1e-7))
    constant = evaluate(labels, np.full(60, 0.3), ids, observed, NAMES, bootstrap=50)
    assert constant["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert constant["auprc"]["value"] == pytest.approx(labels.mean())


def test_single_row_and_single_subject():
    result = evaluate([1], [0.7], ["a"], [[True, False]], NAMES, patterns=True)
    assert (result["n"], result["subjects"], result["prevalence"]) == (1, 1, 1.0)
    assert result["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert result["log_loss"]["value"] == pytest.approx(-np.log(0.7))
    assert list(result["patterns"]) == ["series"]
    labels, p, _, observed = simulated(30)
    assert evaluate(labels, p, ["a"] * 30, observed, NAMES)["auroc"]["low"] is None


def test_half_counts_as_class_one():
    assert evaluate([1, 0], [0.5, 0.5], ["a", "b"], np.ones((2, 2), bool), NAMES, bootstrap=0)["accuracy"]["value"] == 0.5
    assert evaluate([1], [0.5], ["a"], [[True, True]], NAMES)["accuracy"]["value"] == 1.0


def test_patterns_are_what_evaluate_gives_on_their_rows():
    labels, p, ids, observed = simulated(400, subjects=150)
    result = evaluate(labels, p, ids, observed, NAMES, bootstrap=60, seed=2, patterns=True)
    keys = pattern_keys(observed, NAMES, 400)
    assert set(result["patterns"]) == {"series;image", "series", "image", "none"}
    counts = [part["n"] for part in result["patterns"].values()]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == 400
    for key, part in result["patterns"].items():
        rows = keys == key
        assert part == evaluate(labels[rows], p[rows], ids[rows], observed[rows], NAMES, bootstrap=60, seed=2)
    assert "patterns" not in evaluate(labels, p, ids, observed, NAMES, bootstrap=0)


def test_pattern_keys_follow_the_order_of_names():
    seen = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], bool)
    assert pattern_keys(seen, ["z", "b", "a"], 4).tolist() == ["z;a", "none", "z;b;a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [], "probabilities": [], "subjects": [], "observed": np.ones((0, 2), bool)}, "there are no rows"),
        ({"labels": [], "probabilities": np.ones((0, 3)), "subjects": [], "observed": np.ones((0, 2), bool)}, "there are no rows"),
        ({"labels": [0, 1, 1]}, r"shapes are \(3,\) and \(2,\)"),
        ({"probabilities": [[0.5], [0.5]]}, "is expected"),
        ({"labels": [0, 2]}, "labels: row 1 is 2; an integer from 0 to 1"),
        ({"labels": [0, 0.5]}, "labels: row 1 is 0.5"),
        ({"labels": [float("nan"), 1]}, "labels: row 0 is nan"),
        ({"labels": ["dead", "alive"]}, "not numbers"),
        ({"probabilities": [0.5, 1.2]}, "probabilities: row 1 is 1.2"),
        ({"probabilities": [float("nan"), 0.2]}, "probabilities: row 0 is nan"),
        ({"probabilities": [[0.5, 0.5], [0.5, 0.6]]}, "row 1 sums to 1.1"),
        ({"subjects": ["a", ""]}, "subjects: row 1 has no id"),
        ({"subjects": [None, "a"]}, "subjects: row 0 has no id"),
        ({"subjects": [float("nan"), "a"]}, "subjects: row 0 has no id"),
        ({"subjects": ["a"]}, r"subjects: shape is \(1,\)"),
        ({"observed": np.ones((2, 3), bool)}, "observed: is bool of shape"),
        ({"observed": np.ones((2, 2))}, "observed: is float64"),
        ({"names": ["series", "none"]}, "'none' cannot name a modality"),
        ({"names": ["a;b", "c"]}, "'a;b' cannot name a modality"),
        ({"names": ["a", "a"]}, "'a' cannot name a modality"),
        ({"bootstrap": -1}, "bootstrap: is -1"),
    ],
)
def test_refusals_are_one_line(change, message):
    good = {"labels": [0, 1], "probabilities": [0.2, 0.7], "subjects": ["a", "b"], "observed": np.ones((2, 2), bool), "names": NAMES}
    with pytest.raises(DataError, match=message) as caught:
        evaluate(**{**good, **change}, patterns=True)
    assert "\n" not in str(caught.value)


def test_single_precision_is_taken():
    labels, p, ids, observed = simulated(100)
    p32 = p.astype(np.float32)
    p32[0] = np.float32(1) + np.finfo(np.float32).eps
    assert evaluate(labels, p32, ids, observed, NAMES, bootstrap=10)["auroc"]["value"] is not None
    rows, probabilities = multiclass()
    evaluate(rows.astype(float), probabilities.astype(np.float32), np.arange(400), np.ones((400, 2), bool), NAMES, bootstrap=0)

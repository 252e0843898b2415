"""The challenge's scores against a plain loop over its definition, and by hand."""

import numpy as np
import pytest

from cm2pyro.diagnostics.challenge import PhysioNet2012, challenge_scores, check_challenge
from cm2pyro.errors import ConfigError


def event1_by_hand(labels, p, threshold):
    called = p >= threshold
    found = (called & (labels == 1)).sum()
    return min(found / labels.sum(), found / called.sum() if called.any() else 0.0)


def event2_by_hand(labels, p):
    rows = sorted(range(len(p)), key=lambda i: p[i])
    size = len(p) // 10
    h, means = 0.0, []
    for g in range(10):
        group = rows[g * size : (g + 1) * size]
        mean = sum(p[i] for i in group) / size
        h += (sum(labels[i] for i in group) - size * mean) ** 2 / (size * mean * (1 - mean) + 0.001)
        means.append(mean)
    return h / (means[9] - means[0])


def case(n, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 5, n)
    return (rng.random(n) < p).astype(int), p


def under(labels, p, threshold=0.3, weights=None):
    return PhysioNet2012(labels, p, threshold).under(np.ones((1, len(p))) if weights is None else weights)


@pytest.mark.parametrize("n", [10, 57, 400])
def test_scores_equal_a_plain_loop(n):
    labels, p = case(n)
    labels[0] = 1
    assert under(labels, p)[0] == pytest.approx([event1_by_hand(labels, p, 0.3), event2_by_hand(labels, p)], abs=1e-10)


def test_event2_by_hand():
    # One row a group: 0.05, 0.15 … 0.95; the deaths are the upper five.
    p = np.arange(0.05, 1, 0.1)
    labels = (p > 0.5).astype(int)
    expected = 2 * sum(q**2 / (q * (1 - q) + 0.001) for q in (0.05, 0.15, 0.25, 0.35, 0.45)) / 0.9
    assert under(labels, p)[0, 1] == pytest.approx(expected)


def test_a_row_that_counts_twice_is_two_rows():
    labels, p = case(230)
    weights = np.random.default_rng(1).integers(0, 4, size=(5, 230)).astype(float)
    found = under(labels, p, weights=weights)
    for row, w in zip(found, weights.astype(int), strict=True):
        y, q = np.repeat(labels, w), np.repeat(p, w)
        assert row == pytest.approx([event1_by_hand(y, q, 0.3), event2_by_hand(y, q)], abs=1e-9)


def test_threshold_is_called_positive_and_nobody_called_scores_nothing():
    labels, p = np.array([1, 1, 0, 0]), np.array([0.5, 0.2, 0.5, 0.1])
    assert under(labels, p, 0.5)[0, 0] == 0.5
    assert under(labels, p, 0.9)[0, 0] == 0.0
    assert np.isnan(under(np.zeros(4), p)[0, 0])


def test_event2_undefined_below_ten_rows_and_for_equal_predictions():
    assert np.isnan(under(*case(9))[0, 1])
    assert np.isnan(under(case(50)[0], np.full(50, 0.2))[0, 1])


def test_intervals_and_shape():
    labels, p = case(600)
    found = challenge_scores("physionet2012", labels, p, 0.3, np.arange(600).astype(str), bootstrap=200, seed=0)
    assert (found["name"], found["threshold"]) == ("physionet2012", 0.3)
    assert found["event1"]["low"] < found["event1"]["value"] < found["event1"]["high"]
    assert found["event2"]["low"] >= 0.0
    assert found["event2"]["value"] == pytest.approx(event2_by_hand(labels, p))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("physionet2021", "binary", 0.3), "did you mean 'physionet2012'"),
        (("physionet2012", "multiclass", None), "scores a binary outcome"),
        (("physionet2012", "binary", None), "cm2pyro recalibrate"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_challenge(*arguments)

"""Calibration against scikit-learn, root finding and sums by hand; with no finite answer where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cm2pyro.diagnostics.calibration import CLIP, BinnedError, LogisticRecalibration, bins_for, equal_mass
from cm2pyro.diagnostics.metrics import evaluate, reliability
from cm2pyro.diagnostics.resampling import measured, reflected


def case(n, intercept=0.0, slope=1.0, seed=0, spread=1.5):
    """Labels whose true logit is intercept + slope times the predicted one."""
    rng = np.random.default_rng(seed)
    x = spread * rng.normal(size=n) - 1
    return (rng.random(n) < expit(intercept + slope * x)).astype(int), expit(x)


def measure(labels, p, bootstrap=0, **options):
    return evaluate(labels, p, np.arange(len(p)).astype(str), np.ones((len(p), 1), bool), ["a"], bootstrap=bootstrap, **options)


def slope_by_scikit_learn(labels, p, weights=None):
    x = logit(np.clip(p, CLIP, 1 - CLIP))[:, None]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return model.fit(x, labels, sample_weight=weights).coef_[0, 0]


def intercept_by_root(labels, p, weights=None):
    x, w = logit(np.clip(p, CLIP, 1 - CLIP)), np.ones(len(p)) if weights is None else weights
    return brentq(lambda a: w @ (labels - expit(a + x)), -60, 60, xtol=1e-12)


@pytest.mark.parametrize(("intercept", "slope", "spread"), [(0, 1, 1.5), (0.3, 0.8, 1.5), (-1, 2, 0.4), (2, 0.1, 3), (0, -1, 1)])
def test_slope_and_intercept_equal_scikit_learn_and_root_finding(intercept, slope, spread):
    labels, p = case(500, intercept, slope, spread=spread)
    weights = np.random.default_rng(1).integers(0, 4, size=(20, 500)).astype(float)
    weights[0] = 1.0
    slopes, intercepts = LogisticRecalibration.of(labels, p).under(weights)
    for i, w in enumerate(weights):
        assert slopes[i] == pytest.approx(slope_by_scikit_learn(labels, p, w), abs=1e-6)
        assert intercepts[i] == pytest.approx(intercept_by_root(labels, p, w), abs=1e-7)


def test_almost_separated_labels_have_a_steep_slope():
    x = np.linspace(-2, 2, 60)
    labels = (x > 0).astype(int)
    labels[[29, 30]] = 1, 0
    slopes, _ = LogisticRecalibration.of(labels, expit(x)).under(np.ones((1, 60)))
    assert slopes[0] == pytest.approx(slope_by_scikit_learn(labels, expit(x)), rel=1e-5)
    assert slopes[0] > 10


@pytest.mark.parametrize(
    ("labels", "p", "slope", "intercept"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], False, True),  # separated
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], False, True),  # the wrong way round
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.4], False, True),  # tied at the threshold: still no maximum
        ([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], True, True),
        ([0, 1, 0, 1], [0.3] * 4, False, True),  # nothing to regress on
        ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], False, False),
        ([0, 1, 0, 1], [0.0, 0.0, 1.0, 1.0], True, True),  # sure and half of them wrong
    ],
)
def test_none_where_no_finite_solution_exists(labels, p, slope, intercept):
    found = measure(labels, p)
    assert (found["calibration_slope"]["value"] is not None) == slope
    assert (found["calibration_intercept"]["value"] is not None) == intercept


def test_resamples_that_separate_are_ignored():
    labels, p = case(200)
    weights = np.ones((3, 200))
    weights[1] = (labels == 1) & (p > 0.5) | (labels == 0) & (p < 0.5)
    weights[2] = labels == 0
    slopes, intercepts = LogisticRecalibration.of(labels, p).under(weights)
    assert np.isfinite(slopes).tolist() == [True, False, False]
    assert np.isfinite(intercepts).tolist() == [True, True, False]


def test_intervals_equal_refits_on_the_same_resamples():
    labels, p = case(150, 0.5, 0.7)
    found = measure(labels, p, bootstrap=100, seed=3)
    order = np.argsort(np.arange(150).astype(str))  # subjects are numbered by name
    draws = order[np.random.default_rng(3).integers(150, size=(100, 150))]
    slopes = [slope_by_scikit_learn(labels[rows], p[rows]) for rows in draws]
    intercepts = [intercept_by_root(labels[rows], p[rows]) for rows in draws]
    for name, refits in (("calibration_slope", slopes), ("calibration_intercept", intercepts)):
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(np.quantile(refits, (0.025, 0.975)), abs=1e-6)


def test_perfect_calibration_is_inside_the_intervals_and_a_known_tilt_outside():
    labels, p = case(4000)
    good = measure(labels, p, bootstrap=200)
    assert good["calibration_slope"]["low"] < 1 < good["calibration_slope"]["high"]
    assert good["calibration_intercept"]["low"] < 0 < good["calibration_intercept"]["high"]
    labels, p = case(4000, 0.5, 0.6)
    tilted = measure(labels, p, bootstrap=200)
    assert tilted["calibration_slope"]["low"] < 0.6 < tilted["calibration_slope"]["high"] < 1
    assert tilted["calibration_intercept"]["low"] > 0
    assert tilted["ece"]["value"] > 3 * good["ece"]["value"]


@st.composite
def tied(draw):
    n = draw(st.integers(1, 60))
    return (
        np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))),
        np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 8,
        np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))),
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(tied())
def test_ece_equals_the_sum_over_the_bins_of_the_picture(rows):
    labels, p, subjects = rows
    curve = {key: np.array(column) for key, column in reliability(labels, p, bins_for(len(p))).items()}
    expected = (np.abs(curve["observed"] - curve["predicted"]) * curve["n"]).sum() / len(p)
    error = BinnedError.of(labels, p, subjects, 6)
    assert error.under(np.ones((1, 6)))[0] == pytest.approx(expected, abs=1e-12)
    counts = np.random.default_rng(0).integers(0, 3, size=(4, 6)).astype(float)
    index = equal_mass(p, bins_for(len(p)))
    for count, found in zip(counts, error.under(counts), strict=True):
        w = count[subjects]
        by_hand = sum(abs((w * (labels - p))[index == b].sum()) for b in range(index.max() + 1))
        assert found == pytest.approx(by_hand / w.sum(), abs=1e-12) if w.sum() else np.isnan(found)


def test_ece_by_hand():
    # Below 20 rows there is one bin, so that errors of opposite sign cancel; from 20 on two.
    assert measure([0, 1], [0.25, 0.5])["ece"]["value"] == pytest.approx(0.125)
    p = np.repeat([0.2, 0.8], 10)
    assert measure(np.repeat([0, 1], 10), p)["ece"]["value"] == pytest.approx(0.2)
    assert measure(np.repeat([1, 0], 10), p)["ece"]["value"] == pytest.approx(0.8)


def test_ece_of_calibrated_predictions_is_that_of_chance():
    """E|Σ(y − p)| of a bin is √(2 Σ p(1 − p) / π) for many rows; the mean of 200 draws lies within 4 standard errors."""
    p = np.sort(expit(1.5 * np.random.default_rng(0).normal(size=2000)))
    sums = [part @ (1 - part) for part in np.split(p, 10)]
    expected = np.sqrt(2 * np.array(sums) / np.pi).sum() / 2000
    rng = np.random.default_rng(1)
    every, rows = np.ones((1, 2000)), np.arange(2000)
    found = [BinnedError.of(rng.random(2000) < p, p, rows, 2000).under(every)[0] for _ in range(200)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(200))


def test_basic_interval_of_ece_covers_where_percentiles_do_not():
    """The truth is that of the bins; a mean over 100 data sets of 500 rows with a mild tilt."""
    rng = np.random.default_rng(0)
    x = 1.5 * rng.normal(size=400_000) - 1
    truth = np.abs(np.bincount(equal_mass(x, 10), weights=expit(0.1 + 0.9 * x) - expit(x))).sum() / len(x)
    hits = percentile_hits = 0
    for seed in range(100):
        error = BinnedError.of(*case(500, 0.1, 0.9, seed=seed), np.arange(500), 500)
        (percentile,) = measured(lambda counts, error=error: error.under(counts)[:, None], 500, 500, 200, seed)
        basic = reflected(percentile)
        hits += basic["low"] <= truth <= basic["high"]
        percentile_hits += percentile["low"] <= truth <= percentile["high"]
    assert hits >= 77  # 0.87 measured on 200 others, less three standard errors
    assert percentile_hits < 20


def test_multiclass_ece_is_the_mean_over_classes_and_has_no_slope():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 300)
    labels = np.array([rng.choice(3, p=row) for row in p])
    found = measure(labels, p)
    each = [measure((labels == c).astype(int), p[:, c])["ece"]["value"] for c in range(3)]
    assert found["ece"]["value"] == pytest.approx(np.mean(each))
    assert "calibration_slope" not in found


@pytest.mark.parametrize(("rows", "bins"), [(1, 1), (19, 1), (20, 2), (99, 9), (100, 10), (5000, 10)])
def test_bins_for(rows, bins):
    assert bins_for(rows) == bins
    index = equal_mass(np.random.default_rng(0).random(rows), bins)
    assert np.ptp(np.bincount(index)) <= 1
    assert index.max() == bins - 1

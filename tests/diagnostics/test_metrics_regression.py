"""Metrics of numbers against scikit-learn, their intervals against resamples made by hand."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from cm2pyro.diagnostics.metrics_regression import REGRESSION_METRICS, evaluate_numbers
from cm2pyro.errors import DataError

NAMES = ["series", "image"]


def case(n=240, seed=0, loc=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=n)
    y = mean + 0.5 * rng.normal(size=n)
    columns = [y, mean, mean - 0.5 * 1.645, mean + 0.5 * 1.645, norm(mean, 0.5).logpdf(y) - np.log(scale)]
    columns = [loc + scale * column for column in columns[:4]] + columns[4:]
    return columns, np.array([f"s{i // 3}" for i in range(n)]), rng.random((n, 2)) < 0.6


def direct(y, mean, low, high, score):
    return {
        "rmse": mean_squared_error(y, mean) ** 0.5,
        "mae": mean_absolute_error(y, mean),
        "r2": r2_score(y, mean),
        "coverage": np.mean((low <= y) & (y <= high)),
        "width": np.mean(high - low),
        "log_score": np.mean(score),
    }


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1e8, 1e-2), (-3.0, 1e80)])
def test_values_equal_scikit_learn_in_any_units(loc, scale):
    columns, subjects, observed = case(loc=loc, scale=scale)
    found = evaluate_numbers(*columns, subjects, observed, NAMES, bootstrap=0)
    for name, value in direct(*columns).items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-5), name
        assert found[name]["low"] is None
    assert found["label_mean"] == pytest.approx(columns[0].mean())
    assert found["label_sd"] == pytest.approx(columns[0].std())
    assert (found["n"], found["subjects"]) == (240, 80)


def test_intervals_resample_whole_subjects():
    columns, subjects, observed = case()
    found = evaluate_numbers(*columns, subjects, observed, NAMES, bootstrap=200, seed=4)
    codes = np.unique(subjects, return_inverse=True)[1]
    draws = []
    for row in np.random.default_rng(4).integers(80, size=(200, 80)):
        rows = np.concatenate([np.flatnonzero(codes == s) for s in row])
        draws.append(list(direct(*(column[rows] for column in columns)).values()))
    for name, low, high in zip(REGRESSION_METRICS, *np.quantile(draws, (0.025, 0.975), axis=0), strict=True):
        assert found[name]["low"] == pytest.approx(low), name
        assert found[name]["high"] == pytest.approx(high), name


def test_patterns_are_measured_apart():
    columns, subjects, observed = case()
    found = evaluate_numbers(*columns, subjects, observed, NAMES, bootstrap=20, patterns=True)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    rows = observed[:, 0] & ~observed[:, 1]
    alone = evaluate_numbers(*(column[rows] for column in columns), subjects[rows], observed[rows], NAMES, bootstrap=20)
    assert found["patterns"]["series"] == alone
    assert sum(part["n"] for part in found["patterns"].values()) == 240


def test_labels_all_alike_have_no_r2():
    for value in (3.0, 1e-9, 0.0):
        y = np.full(5, value)
        found = evaluate_numbers(y, y + 1, y - 1, y + 2, -y, list("abcde"), np.ones((5, 2), bool), NAMES, bootstrap=20)
        assert found["r2"] == {"value": None, "low": None, "high": None}
        assert found["rmse"]["value"] == pytest.approx(1)
        assert found["coverage"]["value"] == 1


def test_ends_of_an_interval_belong_to_it():
    found = evaluate_numbers([0, 1, 2], [0, 1, 2], [0, 0, 3], [1, 1, 4], [0, 0, 0], list("abc"), np.ones((3, 2), bool), NAMES, bootstrap=0)
    assert found["coverage"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [({1: [0.0, np.nan]}, "mean: row 1 is nan"), ({4: [np.inf, 0.0]}, "log_score: row 0 is inf"), ({3: [1.0]}, r"high: shape is \(1,\)")],
)
def test_what_is_no_number_is_refused(change, says):
    columns = {i: [0.0, 1.0] for i in range(5)} | change
    with pytest.raises(DataError, match=says) as caught:
        evaluate_numbers(*columns.values(), ["a", "b"], np.ones((2, 2), bool), NAMES)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(DataError, match="at least one row"):
        evaluate_numbers([], [], [], [], [], [], np.ones((0, 2), bool), NAMES)

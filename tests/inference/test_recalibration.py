"""Recalibration against scikit-learn and against known distortions; what is written is what is read."""

import json

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.inference.recalibration import FILE, Isotonic, Recalibration, Temperature, best_threshold, check_recalibration


def binary(n, temperature=1.0, seed=0):
    """Probabilities that are too sure by a temperature, and labels."""
    rng = np.random.default_rng(seed)
    x = 1.5 * rng.normal(size=n) - 1
    p = expit(temperature * x)
    return np.column_stack([1 - p, p]), (rng.random(n) < expit(x)).astype(np.int64)


def multiclass(n, temperature, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return softmax(temperature * logits, axis=1), labels


def test_temperature_equals_a_logistic_regression_without_intercept():
    p, labels = binary(800, 2.0)
    (found,) = Temperature.fit("binary", p, labels).parameters
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-10).fit(logit(p[:, 1:]), labels)
    assert found[0] == pytest.approx(1 / oracle.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_of_classes_is_found_and_undone(temperature):
    p, labels = multiclass(4000, temperature)
    fitted = Temperature.fit("multiclass", p, labels)
    assert fitted.parameters[0][0] == pytest.approx(temperature, rel=0.1)  # standard error of log T about 0.025
    after = fitted(torch.from_numpy(p)).numpy()
    assert after == pytest.approx(softmax(np.log(np.clip(p, 1e-7, 1)) / fitted.parameters[0][0], axis=1), abs=1e-9)
    assert (after.argmax(1) == p.argmax(1)).all()


def test_binary_temperature_is_that_of_two_classes():
    p, labels = binary(300, 2.0)
    one, two = Temperature.fit("binary", p, labels), Temperature.fit("multiclass", p, labels)
    assert one.parameters == two.parameters
    draws = torch.from_numpy(p).reshape(3, 100, 2)
    assert torch.allclose(one(draws), two(draws), atol=1e-12)


def test_each_label_has_its_own_and_a_label_of_one_value_stays():
    (p0, y0), (p1, y1) = binary(500, 3.0), binary(500, 0.5, seed=1)
    p = np.column_stack([p0[:, 1], p1[:, 1], p1[:, 1]])
    labels = np.column_stack([y0, np.where(np.arange(500) < 100, -1, y1), np.zeros(500, np.int64)])
    fitted = Temperature.fit("multilabel", p, labels)
    alone = Temperature.fit("binary", p1[100:], y1[100:])
    assert fitted.parameters[0][0] > 2 > 1 > fitted.parameters[1][0]
    assert fitted.parameters[1] == pytest.approx(alone.parameters[0])
    assert fitted.parameters[2] is None
    after = fitted(torch.from_numpy(p)).numpy()
    assert after[:, 1] == pytest.approx(alone(torch.from_numpy(p1)).numpy()[:, 1])
    assert (after[:, 2] == p[:, 2]).all()


def test_isotonic_equals_scikit_learn_away_from_the_ends_and_never_falls():
    p, labels = binary(400, 2.0)
    fitted = Isotonic.fit("binary", p, labels)
    new = np.linspace(0, 1, 1001)
    found = fitted(torch.from_numpy(np.column_stack([1 - new, new]))).numpy()
    oracle = np.clip(IsotonicRegression(out_of_bounds="clip").fit(p[:, 1], labels).predict(new), 1 / 402, 401 / 402)
    knots = np.array(fitted.parameters[0]).reshape(2, -1)
    inner = np.abs(np.interp(new, *knots) - oracle) < 1e-12  # clipped between knots the two differ next to an end
    assert inner.mean() > 0.9
    assert found[:, 1] == pytest.approx(np.interp(new, *knots), abs=1e-12)
    assert (np.diff(found[:, 1]) >= 0).all()
    assert found.sum(1) == pytest.approx(1)
    assert 0 < found.min() < found.max() < 1


def test_isotonic_with_a_single_knot_is_level():
    p = np.full((10, 2), 0.5)
    fitted = Isotonic.fit("binary", p, np.arange(10) % 2)
    assert fitted(torch.tensor([[0.9, 0.1]], dtype=torch.float64)).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_recalibration_helps_other_rows(method):
    """Twice too sure: the log-loss of 2,000 new rows falls by about 0.13; without distortion it changes by less than 0.02."""
    for temperature, least in ((3.0, 0.05), (1.0, -0.02)):
        made = Recalibration.fit(method, "binary", *binary(1000, temperature))
        p, labels = binary(2000, temperature, seed=1)
        after = made.recalibrator(torch.from_numpy(p)).numpy()
        rows = np.arange(2000)
        assert np.mean(np.log(after[rows, labels]) - np.log(np.clip(p[rows, labels], 1e-7, 1))) > least


def test_best_threshold_equals_a_search():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p, labels = rng.integers(0, 12, 40) / 12, rng.integers(0, 2, 40)
        labels[0] = 1

        def score(threshold, p=p, labels=labels):
            called = p >= threshold
            return min(labels[called].sum() / labels.sum(), labels[called].mean()) if called.any() else 0.0

        found = best_threshold(labels, p)
        assert score(found) == pytest.approx(max(score(t) for t in np.unique(p)))


def test_written_is_read(tmp_path):
    p, labels = binary(200, 2.0)
    assert Recalibration.read(tmp_path) is None
    for method in ("temperature", "isotonic", "none"):
        made = Recalibration.fit(method, "binary", p, labels)
        made.write(tmp_path)
        assert Recalibration.read(tmp_path) == made
        assert 0 < made.threshold < 1
        assert (made.recalibrator is None) == (method == "none")
    assert made.log_loss["before"] == made.log_loss["after"]
    many = Recalibration.fit("temperature", "multilabel", p, np.column_stack([labels, np.zeros_like(labels)]))
    many.write(tmp_path)
    assert Recalibration.read(tmp_path) == many
    assert many.threshold is None


@pytest.mark.parametrize("change", ["{", "[]", {"method": "tempratur"}, {"parameters": []}, {"parameters": [["a"]]}, {"more": 1}])
def test_a_broken_file_is_refused(tmp_path, change):
    Recalibration.fit("temperature", "binary", *binary(50)).write(tmp_path)
    path = tmp_path / FILE
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=FILE) as caught:
        Recalibration.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        ("temprature", "binary", "did you mean 'temperature'"),
        ("isotonic", "multiclass", "isotonic is for tasks binary, multilabel"),
        ("temperature", "regression", "a regression has none"),
    ],
)
def test_wrong_methods_are_refused(method, task, message):
    with pytest.raises(ConfigError, match=message):
        check_recalibration(method, task)


def test_rows_of_one_class_are_refused():
    with pytest.raises(DataError, match="5 validation rows have a label, and none has two values"):
        Recalibration.fit("temperature", "binary", binary(5)[0], np.zeros(5, np.int64))

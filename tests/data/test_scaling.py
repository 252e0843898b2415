"""Scalings against scikit-learn and SciPy, at their edges, and through JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.preprocessing import StandardScaler

from cm2pyro.data.scaling import QuantileNormal, Standard, curved

VALUES = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")), st.sampled_from([0.0, 1.0, 36.6]))
MATRICES = st.tuples(st.integers(0, 12), st.integers(1, 3)).flatmap(lambda shape: arrays(np.float64, shape, elements=VALUES))


def sample(n: int, seed: int, gaps: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.lognormal(size=(n, 4)) * [1, 1e-9, 1e6, 5] + [0, 0, -3e6, 100]
    return np.where(rng.random(x.shape) < gaps, np.nan, x)


def test_standard_agrees_with_scikit_learn() -> None:
    x = sample(200, 0)
    reference = StandardScaler().fit(x)
    scaling = Standard.fit(x)
    np.testing.assert_allclose(scaling.loc, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaling(x), reference.transform(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaling.inverse(scaling(x)), x, rtol=1e-12, atol=1e-6 * 1e-9)
    np.testing.assert_array_equal(np.isnan(scaling(x)), np.isnan(x))


@pytest.mark.parametrize("value", [0.0, 0.1, 36.6, -1e9, 1e-12, 1 / 3])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_constant_columns_become_zero_whatever_comes_later(value: float, n: int) -> None:
    x = np.full((n, 1), value)
    assert Standard.fit(x)(np.array([[value], [value + 5]])).tolist() == [[0], [0]]
    assert QuantileNormal.fit(x)(np.array([[value], [value + 5], [value - 5]])).tolist() == [[0], [0], [0]]


def test_small_units_are_not_taken_for_constants() -> None:
    x = np.array([[1e-12], [2e-12], [3e-12]])
    np.testing.assert_allclose(Standard.fit(x)(x), StandardScaler().fit_transform(x * 1e12))


def test_columns_without_values_teach_nothing() -> None:
    x = np.array([[np.nan, 1.0], [np.nan, 2.0]])
    standard = Standard.fit(x)
    assert standard.loc[0] == 0
    assert np.isfinite(standard(np.ones((1, 2)))).all()
    scores = QuantileNormal.fit(x)(np.array([[7.0, 2.0]]))
    assert np.isnan(scores[0, 0])
    assert np.isfinite(scores[0, 1])
    for empty in (x[:0], x[:, :0]):
        assert Standard.fit(empty)(empty).shape == empty.shape
        assert QuantileNormal.fit(empty)(empty).shape == empty.shape


def test_normal_scores_agree_with_ranks() -> None:
    x = np.round(sample(150, 1)[:, [0, 3]], 1)  # ties
    scores = QuantileNormal.fit(x)(x)
    for j in range(2):
        seen = np.isfinite(x[:, j])
        # Ties share the middle of their ranks: rank r of n stands at (r − ½) / n.
        expected = ndtri((rankdata(x[seen, j]) - 0.5) / seen.sum())
        np.testing.assert_allclose(scores[seen, j], expected, atol=1e-12)
        assert np.isnan(scores[~seen, j]).all()


def test_normal_scores_of_many_values_are_thinned_but_stay_close() -> None:
    n = 5000
    x = np.random.default_rng(2).exponential(size=(n, 1))
    scaling = QuantileNormal.fit(x)
    assert len(scaling.columns[0][0]) <= 256
    expected = np.clip(ndtri((rankdata(x) - 0.5) / n), -3, 3)
    error = np.abs(scaling(x)[:, 0] - expected)
    # Knots are 1/255 apart in rank. Inside, the score's slope is at most 1/φ(1.65); in the first and last gap it runs from
    # the extreme score to that of rank 1/255 and is off by less than their distance.
    assert error[np.abs(expected) < 1.65].max() < 1 / 255 / 0.1
    assert error.max() < ndtri(1 / 255) - ndtri(0.5 / n)
    assert scaling(np.array([[-1.0], [1e9]])).tolist() == [[scaling(x).min()], [scaling(x).max()]]


def test_normal_scores_are_clipped_at_three() -> None:
    x = np.arange(10_000.0)[:, None]  # the extreme rank is at Φ⁻¹(1/20 000) = −3.9
    scores = QuantileNormal.fit(x)(x)
    assert (scores.min(), scores.max()) == (-3, 3)


@settings(max_examples=80, deadline=None)
@given(MATRICES, arrays(np.float64, (8, 3), elements=st.floats(-1e7, 1e7)))
def test_scores_are_monotone_bounded_and_finite(x: np.ndarray, new: np.ndarray) -> None:
    new = np.sort(new[:, : x.shape[1]], axis=0)
    for scaling in (Standard.fit(x), QuantileNormal.fit(x)):
        scores = scaling(new)
        assert not np.isinf(scores).any()
        # Columns that had values order what comes as the values do.
        known = np.isfinite(x).any(0)
        # Interpolation rounds scores of at most 3 a few times.
        rounding = 1e-14 if isinstance(scaling, QuantileNormal) else 0
        assert (np.diff(scores[:, known], axis=0) >= -rounding).all()
        if isinstance(scaling, QuantileNormal):
            assert (np.abs(scores[:, known]) <= 3).all()


@settings(max_examples=80, deadline=None)
@given(MATRICES)
def test_state_survives_json_exactly(x: np.ndarray) -> None:
    new = np.vstack([x, np.linspace(-50, 50, 7)[:, None] * np.ones(x.shape[1])])
    for fitted in (Standard.fit(x), QuantileNormal.fit(x)):
        text = json.dumps(fitted.state(), allow_nan=False)
        again = type(fitted).from_state(json.loads(text))
        np.testing.assert_array_equal(again(new), fitted(new))
        assert again.state() == fitted.state()


def test_infinite_values_are_left_out_of_the_fit() -> None:
    x = np.array([[1.0], [2.0], [np.inf], [-np.inf], [3.0]])
    for cls in (Standard, QuantileNormal):
        assert cls.fit(x).state() == cls.fit(x[[0, 1, 4]]).state()


def test_curved_has_centred_squares_and_zeros_for_gaps() -> None:
    scores = np.array([[0.0, 2.0], [np.nan, -1.0]])
    assert curved(scores).tolist() == [[0, 2, -0.5, 1.5], [0, -1, 0, 0]]

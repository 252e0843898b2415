"""The picture of a regression: its size, and what it shows read off the axes."""

import struct

import numpy as np
import pytest

from cm2pyro.diagnostics.plots_regression import predicted_and_patterns
from cm2pyro.errors import DataError


def case(n, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.normal(100, 20, n)
    return mean + 5 * rng.normal(size=n), mean, mean - 8, mean + 8, rng.random((n, 2)) < 0.6, ["series", "image"]


@pytest.mark.parametrize("n", [1, 25, 20_000])
def test_png_of_the_promised_size(tmp_path, n):
    predicted_and_patterns(*case(n), tmp_path / "picture.png", "A title with $x^{ and\nmore")
    data = (tmp_path / "picture.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 500)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_points_and_errors_are_those_of_the_rows(tmp_path, figures):
    y, mean, low, high, observed, names = case(200)
    predicted_and_patterns(y, mean, low, high, observed, names, tmp_path / "a.png", "title")
    points, errors = figures[0].axes
    cloud = next(line for line in points.lines if line.get_label() == "a row")
    np.testing.assert_array_equal(cloud.get_xdata(), mean)
    np.testing.assert_array_equal(cloud.get_ydata(), y)
    texts = [text.get_text() for text in errors.get_yticklabels()]
    dots = errors.lines[0].get_xdata()
    both = texts.index("series + image")
    rows = observed.all(1)
    assert dots[both] == pytest.approx(np.abs(y - mean)[rows].mean())
    assert errors.collections[1].get_offsets()[both, 0] == pytest.approx(np.abs(y[rows] - np.median(y[rows])).mean())
    assert len(texts) == 4


def test_nothing_is_left_of_a_picture_that_failed(tmp_path):
    y, mean, low, high, observed, names = case(20)
    mean[3] = np.nan
    with pytest.raises(DataError, match="mean: row 3"):
        predicted_and_patterns(y, mean, low, high, observed, names, tmp_path / "a.png", "title")
    with pytest.raises(DataError, match="cannot be written"):
        predicted_and_patterns(*case(20), tmp_path / "none" / "a.png", "title")
    assert not list(tmp_path.iterdir())

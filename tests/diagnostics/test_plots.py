"""The picture is a whole PNG of the promised size, or there is no file; what it shows is read off the axes. And the curve it draws."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import binomtest

from cm2pyro.diagnostics import plots
from cm2pyro.diagnostics.metrics import evaluate, reliability, wilson
from cm2pyro.diagnostics.plots import reliability_and_patterns
from cm2pyro.errors import DataError


def case(n, modalities=2, classes=None, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"modality_{i}" for i in range(modalities)]
    observed = rng.random((n, modalities)) < 0.6
    if classes:
        p = rng.dirichlet(np.ones(classes), n)
        return np.array([rng.choice(classes, p=row) for row in p]), p, observed, names
    p = rng.beta(1, 3, n)
    return (rng.random(n) < p).astype(int), p, observed, names


def size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"IEND" in data[-12:]
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize(
    "arrays",
    [
        case(1),
        case(25),
        case(2000),
        case(2000, modalities=7),
        case(300, modalities=1),
        case(500, classes=5),
        case(3, classes=5),
        ([0, 0], [0.0, 0.0], np.zeros((2, 2), bool), ["a", "b"]),
        ([1, 1], [1.0, 1.0], np.ones((2, 2), bool), ["a", "b"]),
        ([0, 1], [0.0, 1.0], np.ones((2, 2), bool), ["a$^{", "b" * 300]),
    ],
    ids=["row", "small", "large", "many patterns", "one modality", "multiclass", "few of many", "zeros", "ones", "odd names"],
)
def test_png_of_the_promised_size(tmp_path, arrays):
    path = tmp_path / "picture.png"
    reliability_and_patterns(*arrays, path, "A title with $x^{ and\nmore " + 200 * "w")
    assert size(path) == (1200, 500)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_user_style_does_not_change_the_size(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"savefig.dpi": 37, "savefig.bbox": "tight", "figure.dpi": 55}):
        reliability_and_patterns(*case(50), tmp_path / "picture.png", "title")
    assert size(tmp_path / "picture.png") == (1200, 500)


def test_pyplot_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    reliability_and_patterns(*case(50), tmp_path / "picture.png", "title")
    assert plt.get_fignums() == before


def test_nothing_half_written_remains(tmp_path, monkeypatch):
    def breaks(self, filename, **kwargs):
        with open(filename, "wb") as file:
            file.write(b"\x89PNG half")
        raise RuntimeError("disk full")

    old = tmp_path / "old.png"
    reliability_and_patterns(*case(50), old, "title")
    before = old.read_bytes()
    monkeypatch.setattr(FigureCanvasAgg, "print_png", breaks)
    for path in (old, tmp_path / "new.png"):
        with pytest.raises(RuntimeError, match="disk full"):
            reliability_and_patterns(*case(50), path, "title")
    assert [file.name for file in tmp_path.iterdir()] == ["old.png"]
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([], [], np.ones((0, 2), bool), ["a", "b"]), "there are no rows"),
        (([0, 2], [0.1, 0.2], np.ones((2, 2), bool), ["a", "b"]), "labels: row 1"),
        (([0, 1], [0.1, 0.2], np.ones((2, 3), bool), ["a", "b"]), "observed"),
    ],
)
def test_refusals_leave_no_file(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        reliability_and_patterns(*arrays, tmp_path / "picture.png", "title")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        reliability_and_patterns(*case(10), tmp_path / "absent" / "picture.png", "title")


def panel(figure):
    """The pattern axes, its labels and its dots (accuracy, row)."""
    axes = figure.subfigs[1].axes[0]
    dots = next(line for line in axes.lines if line.get_marker() == "o")
    return axes, [label.get_text() for label in axes.get_yticklabels()], np.column_stack(dots.get_data())


def test_patterns_by_count_with_accuracy_commonest_and_n(tmp_path, figures):
    observed = np.array([[1, 1]] * 3 + [[0, 0]] * 2 + [[1, 0]], bool)
    labels, p = [1, 1, 0, 0, 1, 1], [0.9, 0.2, 0.7, 0.3, 0.5, 0.1]
    reliability_and_patterns(labels, p, observed, ["series", "image"], tmp_path / "picture.png", "title")
    axes, texts, dots = panel(figures[0])
    assert texts == ["series + image", "nothing observed", "series"]
    np.testing.assert_allclose(dots, [[1 / 3, 0], [1, 1], [0, 2]])
    ticks = next(drawn for drawn in axes.collections if drawn.get_label() == "always the commonest class")
    np.testing.assert_allclose(ticks.get_offsets(), [[2 / 3, 0], [1 / 2, 1], [1, 2]])
    assert [text.get_text() for text in axes.texts] == ["3", "2", "1", "n"]
    assert axes.yaxis_inverted()


@pytest.mark.slow
@pytest.mark.parametrize(("patterns", "rows", "last"), [(12, 12, None), (13, 12, "other (2 patterns)"), (16, 12, "other (5 patterns)")])
def test_rare_patterns_are_lumped(tmp_path, figures, patterns, rows, last):
    names = ["a", "b", "c", "d"]
    kinds = np.array([[bit == "1" for bit in f"{i:04b}"] for i in range(patterns)])
    observed = np.repeat(kinds, np.arange(patterns, 0, -1), axis=0)
    labels = np.ones(len(observed), int)
    reliability_and_patterns(labels, np.full(len(labels), 0.8), observed, names, tmp_path / "picture.png", "title")
    axes, texts, _ = panel(figures[0])
    assert len(texts) == rows
    counts = [int(text.get_text()) for text in axes.texts[:-1]]
    assert sum(counts) == len(labels)
    if last:
        assert texts[-1] == last
        assert counts[-1] == sum(range(1, patterns - 10))


@pytest.mark.parametrize("recalibrated", [False, True])
@pytest.mark.parametrize("arrays", [case(3000, modalities=4), case(3000, modalities=8), case(25), case(500, classes=5)])
def test_no_texts_overlap(tmp_path, figures, arrays, recalibrated):
    reliability_and_patterns(*arrays, tmp_path / "picture.png", "A title " * 20, arrays[1] if recalibrated else None)
    figure = figures[0]
    renderer = figure.canvas.get_renderer()
    texts = [figure._suptitle]
    for part in figure.subfigs:
        texts += part.legends[0].get_texts()
        for axes in part.axes:
            texts += [axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
            for axis in (axes.xaxis, axes.yaxis):
                # Matplotlib keeps ticks beyond the limits, which it does not draw.
                first, last = sorted(axis.get_view_interval())
                texts += [tick.label1 for tick in axis.get_major_ticks() if tick.label1.get_visible() and first <= tick.get_loc() <= last]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_calibration_is_said_and_both_curves_are_drawn(tmp_path, figures):
    labels, p, observed, names = case(2000)
    before = p**2
    reliability_and_patterns(labels, p, observed, names, tmp_path / "picture.png", "title", before)
    curve = figures[0].subfigs[0].axes[0]
    found = {}
    for name, drawn in (("before", before), ("recalibrated", p)):
        metrics = evaluate(labels, drawn, np.arange(2000), observed, names, bootstrap=0)
        ece, slope, intercept = (metrics[key]["value"] for key in ("ece", "calibration_slope", "calibration_intercept"))
        found[name] = f"{name}: ECE {ece:.3f}, slope {slope:.3f}, intercept {intercept:.3f}"
    assert curve._right_title.get_text() == "\n".join(found.values())
    points = [line.get_data() for line in curve.lines if line.get_marker() in ("s", "o")]
    for drawn, (x, y) in zip((before, p), points, strict=True):
        bins = reliability(labels, drawn)
        assert (list(x), list(y)) == (bins["predicted"], bins["observed"])


def test_long_patterns_are_named_by_what_is_absent():
    names = [f"a_long_modality_name_{i}" for i in range(6)]
    assert plots._pattern_text(";".join(names), names) == "all 6 modalities"
    assert plots._pattern_text(";".join(names[1:]), names) == "all but a_long_modality_name_0"
    assert max(len(line) for line in plots._pattern_text(";".join(names[:3]), names).split("\n")) <= 32
    assert plots._pattern_text("none", names) == "nothing observed"


@given(st.integers(1, 500), st.data())
def test_wilson_equals_scipy(n, data):
    hits = data.draw(st.integers(0, n))
    low, high = wilson(hits, n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= hits / n <= high <= 1


def test_reliability_without_ties_has_equal_counts():
    labels, p, _, _ = case(1003)
    result = reliability(labels, p)
    assert sum(result["n"]) == 1003
    assert max(result["n"]) - min(result["n"]) <= 1
    parts = np.array_split(np.sort(p), 10)
    assert result["predicted"] == pytest.approx([part.mean() for part in parts], abs=0.02)
    assert np.average(result["observed"], weights=result["n"]) == pytest.approx(labels.mean())
    json.dumps(result, allow_nan=False)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40), st.integers(1, 12))
def test_reliability_keeps_ties_together(rows, bins):
    labels, p = np.array(rows).T
    p = p / 6
    result = reliability(labels, p, bins)
    order = np.random.default_rng(0).permutation(len(p))
    shuffled = reliability(labels[order], p[order], bins)
    assert all(shuffled[key] == pytest.approx(result[key]) for key in result)
    assert sum(result["n"]) == len(p)
    assert 1 <= len(result["n"]) <= min(bins, len(np.unique(p)))
    assert np.all(np.diff(result["predicted"]) > 0)
    low, high = wilson(np.array(result["observed"]) * result["n"], result["n"])
    assert result["low"] == pytest.approx(low, abs=1e-9)
    assert result["high"] == pytest.approx(high, abs=1e-9)


def test_reliability_refuses():
    with pytest.raises(DataError, match="there are no rows"):
        reliability([], [])
    with pytest.raises(DataError, match="bins: is 0"):
        reliability([0, 1], [0.2, 0.3], bins=0)
    with pytest.raises(DataError, match="one column"):
        reliability([0, 1], [[0.2, 0.8], [0.3, 0.7]])

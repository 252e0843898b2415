"""The summaries of time series against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cm2pyro.data.series import Events
from cm2pyro.data.timeseries import summaries
from tests.data.events import events_of

SUMMARIES = ("min", "max", "mean", "sd", "first", "last", "slope", "first half", "second half", "last sixth", "change")


def slow_summary(x: NDArray[np.float64], h: NDArray[np.float64], window: float) -> list[float]:
    def mean(part: NDArray[np.float64]) -> float:
        return float(np.mean(part)) if len(part) else np.nan

    slope = float(np.polyfit(h, x, 1)[0]) if len(set(h.tolist())) > 1 else 0.0
    return [
        *(x.min(), x.max(), mean(x), x.std(), x[0], x[-1], slope),
        *(mean(x[h < window / 2]), mean(x[h >= window / 2]), mean(x[h >= window * 5 / 6]), x[-1] - x[0]),
    ]


# --- summaries -------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from("uv"), st.integers(0, 24).map(lambda i: i * 2.0), st.floats(-100, 100).map(lambda v: round(v, 3))
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_summaries_agree_with_a_slow_loop(rows: list[tuple[int, str, float, float]]) -> None:
    n, window = 5, 48.0
    events = events_of(rows, n)
    values, counts, recency = summaries(events, window)
    V = len(events.names)
    assert values.shape == (n, 11 * V)
    for sample in range(n):
        for v in range(V):
            cell = (events.samples == sample) & (events.variables == v)
            assert counts[sample, v] == cell.sum()
            found = values[sample, 11 * v : 11 * (v + 1)]
            if not cell.any():
                assert np.isnan(found).all()
                assert np.isnan(recency[sample, v])
                continue
            x, h = events.values[cell], events.hours[cell]
            assert recency[sample, v] == window - h.max()
            expected = slow_summary(x, h, window)
            for name, one, other in zip(SUMMARIES, found, expected, strict=True):
                assert one == pytest.approx(other, abs=1e-9, nan_ok=True), name


def test_equal_measurements_have_exactly_their_value_no_spread_and_no_slope() -> None:
    # Rounding would otherwise rank patients by it: 3 × 36.6 / 3 is not 36.6, and equal times gave slopes of any size.
    for value in (36.6, 0.1, 1 / 3, 98.7):
        for k in (1, 3, 7, 10):
            for step in (0.0, 0.7):
                rows = [(0, "v", 0.1 + step * i, value) for i in range(k)]
                found, _, _ = summaries(events_of(rows, 1), 48)
                assert found[0, [0, 1, 2, 4, 5]].tolist() == [value] * 5
                assert found[0, [3, 6, 10]].tolist() == [0, 0, 0]
    same_time, _, _ = summaries(events_of([(0, "v", 0.1, x) for x in (1.0, 5.0, 7.1)], 1), 48)
    assert same_time[0, 6] == 0


def test_no_events_at_all() -> None:
    none = Events(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), ("a",), 2)
    values, counts, recency = summaries(none, 48)
    assert values.shape == (2, 11)
    assert np.isnan(values).all()
    assert counts.tolist() == [[0], [0]]
    assert np.isnan(recency).all()

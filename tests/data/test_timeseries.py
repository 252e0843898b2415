"""The grid of time series against a slow loop, and what the views may depend on."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.series import Events
from cm2pyro.data.timeseries import TimeSeries
from tests.data.events import events_of


def kind(views: tuple[str, ...] = ("binned", "summary"), **options: Any) -> TimeSeries:
    return TimeSeries("ehr", Modality(kind="timeseries", encoder="lstm", **options), views)


def random_events(n: int, seed: int, window: float = 48, per_cell: int = 4) -> Events:
    rng = np.random.default_rng(seed)
    rows = []
    for sample in range(n):
        for name in "abc":
            for _ in range(rng.integers(0, per_cell + 1)):
                rows.append((sample, name, float(np.round(rng.uniform(0, window), 1)), float(rng.normal())))
    return events_of(rows, n)


def alone(events: Events, sample: int) -> Events:
    keep = events.samples == sample
    seen = sorted(set(events.variables[keep].tolist()))
    picked = Events(np.zeros(keep.sum(), np.int64), events.variables[keep], events.hours[keep], events.values[keep], events.names, 1)
    return picked.select(tuple(events.names[v] for v in seen))


# --- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "bin_hours", "bins"), [(48, 2, 24), (48, 5, 10), (1, 2, 1), (0.3, 0.1, 3), (24, 24, 1)])
def test_the_grid_agrees_with_a_slow_loop(hours: float, bin_hours: float, bins: int) -> None:
    series = kind(("binned",), hours=hours, bin_hours=bin_hours)
    events = random_events(6, 3, window=hours)
    series.fit(events, np.arange(4))
    grid = series.transform(events)["binned"].numpy()
    V = len(series.names)
    assert series.shapes() == {"binned": (bins, 2 * V)}
    assert grid.shape == (6, bins, 2 * V)
    means = np.full((6, bins, V), np.nan)
    for sample in range(6):
        for v in range(V):
            for t in range(bins):
                after = events.hours >= t * bin_hours
                before = (events.hours < (t + 1) * bin_hours) | (t == bins - 1)
                cell = (events.samples == sample) & (events.variables == v) & after & before
                if cell.any():
                    means[sample, t, v] = events.values[cell].mean()
    train = means[:4].reshape(-1, V)
    scaled = np.clip((means - np.nanmean(train, 0)) / np.nanstd(train, 0), -5, 5)
    for sample in range(6):
        carried = pd.DataFrame(scaled[sample]).ffill().fillna(0).to_numpy()
        np.testing.assert_allclose(grid[sample, :, :V], carried, atol=1e-5)
        np.testing.assert_array_equal(grid[sample, :, V:], np.isfinite(means[sample]))


def test_the_last_bin_holds_the_end_of_the_window() -> None:
    series = kind(("binned",), hours=48, bin_hours=2)
    events = events_of([(0, "v", 48.0, 1.0), (1, "v", 46.0, 3.0), (1, "v", 48.0, 5.0), (2, "v", 45.9, 2.0)], 3)
    series.fit(events, np.arange(3))
    mask = series.transform(events)["binned"][:, :, 1].numpy()
    assert [row.nonzero()[0].tolist() for row in mask] == [[23], [23], [22]]


def test_far_values_are_clipped_on_the_grid() -> None:
    series = kind(("binned",))
    train = [(i, "v", 1.0, float(i % 2)) for i in range(10)]
    events = events_of([*train, (10, "v", 1.0, 1e300)], 11)
    series.fit(events, np.arange(10))
    assert series.transform(events)["binned"][10, :, 0].tolist() == [5.0] * 24


# --- the kind --------------------------------------------------------------------------------------------------------


def test_default_window_and_shapes() -> None:
    series = kind()
    events = random_events(5, 0)
    series.fit(events, np.arange(5))
    assert series.shapes() == {"binned": (24, 6), "summary": (75,)}
    views = series.transform(events)
    assert {name: tuple(view.shape[1:]) for name, view in views.items()} == series.shapes()
    assert series.inputs() == ["a", "b", "c"]


def test_only_training_rows_count() -> None:
    events = random_events(12, 1)
    other = random_events(12, 2)
    train = np.array([0, 2, 3, 7])
    keep, swap = np.isin(events.samples, train), ~np.isin(other.samples, train)
    rows = [(int(s), events.names[v], h, x) for s, v, h, x in zip(*(a[keep] for a in columns(events)), strict=True)]
    rows += [
        (int(s), "new" if v == 0 else other.names[v], h, 1e3 * x) for s, v, h, x in zip(*(a[swap] for a in columns(other)), strict=True)
    ]
    changed = events_of(rows, 12)
    one, two = kind(), kind()
    one.fit(events, train)
    two.fit(changed, train)
    assert one.state() == two.state()
    for view, tensor in one.transform(events).items():
        assert tensor[train].equal(two.transform(changed)[view][train])
    # And the training rows do count.
    one.fit(events, np.arange(12))
    assert one.state() != two.state()


def columns(events: Events) -> tuple[NDArray[Any], ...]:
    return events.samples, events.variables, events.hours, events.values


def test_a_row_is_transformed_as_if_it_were_alone() -> None:
    events = random_events(15, 4, per_cell=40)
    series = kind()
    series.fit(events, np.arange(8))
    together = series.transform(events)
    for sample in range(15):
        single = alone(events, sample)
        for view, tensor in series.transform(single).items():
            assert tensor[0].equal(together[view][sample]), (view, sample)
        assert series.observed(single)[0] == series.observed(events)[sample]


def test_unknown_variables_are_ignored_and_count_as_nothing() -> None:
    series = kind()
    series.fit(random_events(6, 5), np.arange(6))
    known = [(0, "a", 3.0, 1.0), (0, "c", 5.0, 2.0)]
    events = events_of([*known, (0, "zzz", 1.0, 9.0), (1, "zzz", 1.0, 9.0)], 3)
    assert series.observed(events).tolist() == [True, False, False]
    for view, tensor in series.transform(events).items():
        assert tensor[0].equal(series.transform(events_of(known, 3))[view][0])
        assert not tensor[1:].any()
        assert tensor.isfinite().all()


def test_variables_that_training_lacks_are_left_out() -> None:
    events = events_of([(0, "a", 1.0, 1.0), (1, "b", 1.0, 1.0), (2, "a", 2.0, 5.0)], 3)
    series = kind()
    series.fit(events, np.array([0, 2]))
    assert series.names == ("a",)
    assert series.observed(events).tolist() == [True, False, True]


@pytest.mark.parametrize("views", [("binned",), ("summary",), ("binned", "summary")])
def test_state_survives_json_exactly(views: tuple[str, ...]) -> None:
    events = random_events(10, 6)
    fitted, loaded = kind(views), kind(views)
    fitted.fit(events, np.arange(7))
    loaded.load(json.loads(json.dumps(fitted.state(), allow_nan=False)))
    assert loaded.shapes() == fitted.shapes()
    for view, tensor in fitted.transform(events).items():
        assert loaded.transform(events)[view].equal(tensor)


def test_the_summary_view_says_what_was_measured() -> None:
    events = events_of([(0, "a", 1.0, 1.0), (1, "a", 2.0, 2.0), (1, "b", 2.0, 2.0), (2, "b", 4.0, 1.0), (2, "b", 40.0, 3.0)], 4)
    series = kind(("summary",))
    series.fit(events, np.arange(4))
    view = series.transform(events)["summary"]
    V = 2
    assert view[:, 44 : 44 + V].tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert not view[3].any()
    # Last measurements at hours 1 and 2 of a: the later one has the shorter time to the end.
    assert view[0, 48] > view[1, 48]

"""The grid and the summaries of time series against slow loops, and what the views may depend on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.series import Events
from cm2pyro.data.timeseries import TimeSeries, summaries
from cm2pyro.errors import ConfigError, DataError

SUMMARIES = ("min", "max", "mean", "sd", "first", "last", "slope", "first half", "second half", "last sixth", "change")


def kind(views: tuple[str, ...] = ("binned", "summary"), **options: Any) -> TimeSeries:
    return TimeSeries("ehr", Modality(kind="timeseries", encoder="lstm", **options), views)


def events_of(rows: list[tuple[int, str, float, float]], n: int) -> Events:
    names = tuple(sorted({name for _, name, _, _ in rows}))
    samples, variables = np.array([r[0] for r in rows], np.int64), np.array([names.index(r[1]) for r in rows], np.int64)
    hours, values = np.array([r[2] for r in rows], np.float64), np.array([r[3] for r in rows], np.float64)
    order = np.lexsort((hours, variables, samples))
    return Events(samples[order], variables[order], hours[order], values[order], names, n)


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


# --- categories, fixed variables -------------------------------------------------------------------------------------

NUMBERS = [f"n{i:02d}" for i in range(12)]
CODES = {"c0": 2, "c1": 8, "c2": 12, "c3": 13, "c4": 12}  # as the 17 variables of mimic3-benchmarks


def clinical_events(n: int, seed: int) -> Events:
    rng = np.random.default_rng(seed)
    rows = []
    for sample in range(n):
        for name in [*NUMBERS, *CODES]:
            for hour in np.round(rng.uniform(0, 48, rng.integers(0, 9)), 1):
                rows.append((sample, name, float(hour), float(rng.integers(CODES[name])) if name in CODES else float(rng.normal(3, 5))))
    return events_of(rows, n)


def test_seventeen_variables_have_76_columns_as_a_slow_loop_makes_them() -> None:
    n, T = 7, 24
    order = [name for pair in zip(NUMBERS, [*CODES, *[""] * 7], strict=True) for name in pair if name]  # categories between numbers
    series = kind(("binned", "measured"), hours=48, bin_hours=2)
    series = TimeSeries("ehr", series.modality, ("binned", "measured"), variables=order, categories=CODES)
    events = clinical_events(n, 5)
    series.fit(events, np.arange(5))
    views = series.transform(events)
    assert series.shapes() == {"binned": (24, 76), "measured": (24,)}
    binned = views["binned"].numpy()
    assert binned.shape == (n, T, 76)

    def cell(sample: int, name: str, t: int) -> list[tuple[float, float]]:
        found = []
        for i in range(len(events.values)):
            if events.samples[i] == sample and events.names[events.variables[i]] == name and min(int(events.hours[i] // 2), T - 1) == t:
                found.append((float(events.hours[i]), float(events.values[i])))
        return sorted(found, key=lambda pair: pair[0])

    column = 0
    for name in [name for name in order if name not in CODES]:
        means = np.array([[np.mean([x for _, x in cell(s, name, t)] or [np.nan]) for t in range(T)] for s in range(n)])
        train = means[:5][np.isfinite(means[:5])]
        for s in range(n):
            last = 0.0
            for t in range(T):
                if np.isfinite(means[s, t]):
                    last = float(np.clip((means[s, t] - train.mean()) / train.std(), -5, 5))
                assert binned[s, t, column] == pytest.approx(last, abs=1e-5)
        column += 1
    for name in [name for name in order if name in CODES]:
        for s in range(n):
            code = -1
            for t in range(T):
                if cell(s, name, t):
                    code = int(cell(s, name, t)[-1][1])
                assert binned[s, t, column : column + CODES[name]].tolist() == [float(code == c) for c in range(CODES[name])]
        column += CODES[name]
    assert column == 12 + 47
    for name in order:
        for s in range(n):
            assert binned[s, :, column].tolist() == [float(bool(cell(s, name, t))) for t in range(T)]
        column += 1
    assert column == 76
    np.testing.assert_array_equal(views["measured"].numpy(), binned[..., 59:].max(-1))


def coded(views: tuple[str, ...] = ("binned",), **options: Any) -> TimeSeries:
    return TimeSeries("ehr", Modality(kind="timeseries", encoder="lstm", hours=8, bin_hours=2), views, **options)


def test_the_last_code_of_a_bin_wins_and_is_carried() -> None:
    series = coded(categories={"g": 3})
    # Sample 0: 2 then 1 in bin 0, nothing in bin 1, 0 in bin 2. Of two at the same hour the later line. Sample 2 has none.
    rows = [(0, "g", 0.5, 2.0), (0, "g", 1.9, 1.0), (0, "g", 4.0, 0.0), (1, "g", 3.0, 1.0), (1, "g", 3.0, 2.0), (2, "v", 1.0, 5.0)]
    events = events_of(rows, 3)
    series.fit(events, np.arange(3))
    binned = series.transform(events)["binned"]
    codes = binned[..., 1:4]  # after the one numeric variable
    assert codes[0].tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert codes[1].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert not codes[2].any()
    assert binned[0, :, 4:].tolist() == [[1, 0], [0, 0], [1, 0], [0, 0]]  # masks in the order of the variables: g, v


def test_categories_alone_and_categories_that_nobody_has() -> None:
    events = events_of([(0, "g", 0.5, 1.0), (1, "g", 7.0, 0.0)], 2)
    for options in ({"categories": {"g": 2}}, {"categories": {"g": 2, "absent": 9}}):
        series = coded(("binned", "measured", "summary"), **options)
        series.fit(events, np.arange(2))
        assert series.shapes() == {"binned": (4, 3), "measured": (4,), "summary": (4,)}
        views = series.transform(events)
        assert views["binned"][0].tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]]
        assert views["summary"].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_the_summary_view_with_categories() -> None:
    rows = [(0, "g", 0.0, 2.0), (0, "g", 1.0, 0.0), (0, "g", 1.5, 0.0), (0, "g", 7.0, 1.0), (1, "v", 2.0, 1.0), (2, "g", 3.0, 2.0)]
    series = coded(("summary",), categories={"g": 3})
    events = events_of(rows, 4)
    series.fit(events, np.arange(4))
    view = series.transform(events)["summary"]
    assert tuple(view.shape[1:]) == series.shapes()["summary"] == (25 + 6,)
    assert view[0, 25:].tolist() == [0.5, 0.25, 0.25, 0, 1, 0]
    assert view[1, 25:].tolist() == [0] * 6
    assert view[2, 25:].tolist() == [0, 0, 1, 0, 0, 1]
    assert not view[3].any()
    # The numeric part is that of the numeric variable alone.
    alone_ = coded(("summary",))
    numeric = events_of([row for row in rows if row[1] == "v"], 4)
    alone_.fit(numeric, np.arange(4))
    assert view[1, :25].equal(alone_.transform(numeric)["summary"][1])


@pytest.mark.parametrize("value", [-1.0, 3.0, 1.5, 1e18])
def test_a_wrong_code_is_refused_with_sample_and_hour(tmp_path: Path, value: float) -> None:
    (tmp_path / "t.csv").write_text(f"sample_id,hours,variable,value\na,0,g,2\nb,3.5,v,99\nb,3.5,g,{value}\n")
    (tmp_path / "m.csv").write_text("sample_id\na\nb\n")
    series = TimeSeries("ehr", Modality(kind="timeseries", encoder="lstm", table="t.csv"), ("binned",), categories={"g": 3})
    with pytest.raises(DataError) as caught:
        series.read(read_manifest(tmp_path / "m.csv"))
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in ("modality ehr, sample_id b, hour 3.5, variable 'g'", f"found {value:g}", "expected a code from 0 to 2"):
        assert part in text


def test_variables_fix_the_columns_and_their_order() -> None:
    events = events_of([(0, "a", 1.0, 1.0), (1, "b", 1.0, 1.0), (1, "z", 1.0, 1.0), (2, "b", 3.0, 5.0)], 3)
    series = coded(("binned", "summary"), variables=["b", "never", "a"])
    series.fit(events, np.array([1, 2]))  # training has no a either
    assert series.names == ("b", "never", "a")
    assert series.shapes() == {"binned": (4, 6), "summary": (75,)}
    views = series.transform(events)
    assert all(bool(view.isfinite().all()) for view in views.values())
    assert views["binned"][:, :, 3:].sum((0, 1)).tolist() == [2, 0, 1]
    assert series.observed(events).tolist() == [True, True, True]
    # Before a fit too, a sample with none of them does not count.
    assert coded(variables=["a"]).observed(events).tolist() == [True, False, False]
    loaded = coded(("binned", "summary"), variables=["b", "never", "a"])
    loaded.load(json.loads(json.dumps(series.state(), allow_nan=False)))
    assert loaded.transform(events)["binned"].equal(views["binned"])


def test_a_category_that_is_not_among_variables_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities\.ehr\.categories: 'g' is not among variables"):
        coded(variables=["a"], categories={"g": 3})


@pytest.mark.parametrize("options", [{"categories": {"g": 1}}, {"categories": {"g": 1001}}, {"variables": []}, {"categories": ["g"]}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"modalities\.ehr\."):
        make_kind("ehr", Modality(kind="timeseries", encoder="lstm", **options), ("binned",))


def test_a_variable_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities\.ehr\.variables: 'a'"):
        coded(variables=["a", "b", "a"])

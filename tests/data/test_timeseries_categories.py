"""Time series with categories, and with the variables that a config fixes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cm2pyro.config import Modality
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.series import Events
from cm2pyro.data.timeseries import TimeSeries
from cm2pyro.errors import ConfigError, DataError
from tests.data.events import events_of

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
    modality = Modality(kind="timeseries", encoder="lstm", hours=48, bin_hours=2)
    series = TimeSeries("ehr", modality, ("binned", "measured"), variables=order, categories=CODES)
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

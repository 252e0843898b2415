"""Comparing fits by their log scores."""

from dataclasses import replace
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize_scalar

from cm2pyro.diagnostics import comparison
from cm2pyro.diagnostics.comparison import Scores, compare, read_scores, stacking_weights
from cm2pyro.diagnostics.inference_data import write_groups
from cm2pyro.errors import DataError

N = 200
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, N).astype(float)


def scores(pointwise: np.ndarray, unseen: bool = True, point: bool = False) -> Scores:
    return Scores(np.array([f"s{i:03}" for i in range(N)]), LABELS, pointwise, np.full(N, unseen), np.full(N, np.nan), point)


def test_differences_are_paired() -> None:
    base = RNG.normal(-1, 1, N)
    found = compare({"a": scores(base), "b": scores(base - 0.1 + RNG.normal(0, 0.01, N))}).table
    assert found["run"].tolist() == ["a", "b"]
    assert found["elpd"][0] == pytest.approx(base.sum())
    assert found["difference"][1] == pytest.approx(-0.1 * N, abs=4 * 0.01 * np.sqrt(N))
    assert found["se"][0] == pytest.approx(np.sqrt(N * base.var(ddof=1)))
    assert found["se_difference"][1] == pytest.approx(0.01 * np.sqrt(N), rel=0.25)  # not that of the sums: sd of sd is 1 / sqrt(2 N)


def test_rows_may_stand_in_another_order() -> None:
    one = scores(RNG.normal(size=N))
    turned = replace(one, ids=one.ids[::-1], labels=one.labels[::-1], pointwise=one.pointwise[::-1], unseen=one.unseen[::-1])
    assert compare({"a": one, "b": turned}).table["difference"].tolist() == [0, 0]


def test_weights_of_two_fits_are_those_of_a_line_search() -> None:
    p = RNG.uniform(0.05, 1, (N, 2))
    best = minimize_scalar(lambda w: -np.log(p @ [w, 1 - w]).sum(), bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
    assert stacking_weights(np.log(p)) == pytest.approx([best, 1 - best], abs=1e-4)
    assert stacking_weights(np.log(np.stack([p[:, 0], 0.5 * p[:, 0]], 1)))[0] > 0.999


def test_what_cannot_be_compared_is_refused() -> None:
    one = scores(RNG.normal(size=N))
    for other, says in (
        (replace(one, ids=np.array([f"t{i}" for i in range(N)])), "same manifest"),
        (replace(one, labels=1 - LABELS), "labels differ"),
        (replace(one, pointwise=np.full(N, -np.inf)), "not finite"),
    ):
        with pytest.raises(DataError, match=says):
            compare({"a": one, "b": other})
    with pytest.raises(DataError, match="two or more"):
        compare({"a": one})
    with pytest.raises(DataError, match="point estimates"):
        compare({"a": scores(one.pointwise, unseen=False), "b": scores(one.pointwise, unseen=False, point=True)})


def posterior(path: Path, each: np.ndarray, trained: np.ndarray, split: str = "test") -> Path:
    ids = np.array([f"s{i:03}" for i in range(N)], dtype=object)
    groups = {
        "log_likelihood": xr.Dataset({"outcome": (("chain", "draw", "sample_id"), each[None])}, {"sample_id": ids}),
        "observed_data": xr.Dataset({"outcome": (("sample_id",), LABELS)}, {"sample_id": ids}),
        "constant_data": xr.Dataset(
            {"trained": (("sample_id",), trained), "split": (("sample_id",), np.where(trained, "train", split).astype(object))},
            {"sample_id": ids},
        ),
    }
    write_groups(groups, path)
    return path


@pytest.mark.slow
def test_rows_that_were_learned_from_are_left_out_as_arviz_does(tmp_path: Path) -> None:
    each = RNG.normal(-1, 0.3, (100, N))
    found = read_scores(posterior(tmp_path / "posterior.nc", each, np.full(N, True)))
    data = az.from_dict(log_likelihood={"outcome": each[None]})
    expected = az.loo(data, pointwise=True, reff=1.0)
    np.testing.assert_allclose(found.pointwise, expected.loo_i.values, atol=1e-6)
    np.testing.assert_allclose(found.k, expected.pareto_k.values, atol=1e-6)
    assert not found.unseen.any()


@pytest.mark.slow
def test_unseen_rows_need_nothing_left_out(tmp_path: Path) -> None:
    each, trained = RNG.normal(-1, 0.3, (50, N)), np.arange(N) < 120
    found = read_scores(posterior(tmp_path / "posterior.nc", each, trained))
    np.testing.assert_allclose(found.pointwise[120:], np.log(np.exp(each[:, 120:]).mean(0)))
    assert found.unseen.sum() == 80
    # Rows that stopped the fit are better than none.
    assert read_scores(posterior(tmp_path / "val.nc", each, trained, "val")).unseen.sum() == 80


@pytest.mark.slow
def test_a_missing_or_foreign_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cm2pyro diagnose RUN"):
        read_scores(tmp_path / "posterior.nc")
    (tmp_path / "posterior.nc").write_text("no netCDF")
    with pytest.raises(DataError, match="run 'cm2pyro diagnose' again"):
        read_scores(tmp_path / "posterior.nc")


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["loops", "crashes"])
def test_a_file_on_which_the_library_loops_or_crashes_is_refused(fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "xarray.py").write_text("while True: pass" if fate == "loops" else "import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.setattr(comparison, "SECONDS", 1)
    (tmp_path / "posterior.nc").write_bytes(b"x")
    with pytest.raises(DataError, match="hangs or fails"):
        comparison.read_scores(tmp_path / "posterior.nc")

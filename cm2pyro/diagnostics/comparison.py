"""Which of several fits predicts better: log scores on identical rows, their standard errors, stacking weights."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from cm2pyro.diagnostics import read_groups
from cm2pyro.errors import CM2Error, DataError
from cm2pyro.registry import one_line

Array = NDArray[np.float64]
_BYTES, _BYTES_EACH = 256 << 20, 200  # that a group may take in memory: so many, or so many for each byte of the file
_GROUPS = ("log_likelihood", "observed_data", "constant_data")
SECONDS = 120  # of a processor, to read them
_BAD_K = 0.7
_SHARE = 0.02  # of rows with a larger Pareto shape, from which leave-one-out is not to be believed
_FEW = 30  # unseen rows; with fewer the comparison says so


@dataclass(frozen=True)
class Scores:
    """One fit on rows with a label.

    Attributes:
        ids: (n,). labels: (n, …). pointwise: (n,) log predictive density; of rows that the fit did not learn from as it is, of the others
            leave-one-out. unseen: (n,) bool, rows that the fit neither learned from nor was stopped by (if there are no such rows, those
            that stopped it). k: (n,) Pareto shapes, NaN where there was nothing to leave out. point: whether the fit has point
            estimates only.
    """

    ids: NDArray[np.str_]
    labels: Array
    pointwise: Array
    unseen: NDArray[np.bool_]
    k: Array
    point: bool


def read_scores(path: str | Path) -> Scores:
    """Scores from a posterior.nc. Raises DataError: no such file, or one without a likelihood."""
    where = Path(path)
    if not where.is_file():
        raise DataError(f"{where}: is not there; expected the posterior of a run; write it with 'cm2pyro diagnose RUN --data MANIFEST'")
    try:
        return _scores(_arrays(where))
    except CM2Error:
        raise
    except Exception as error:  # of a foreign file anything can be missing or of another kind
        raise DataError(
            f"{where}: holds no likelihood of labelled rows ({one_line(error)}); run 'cm2pyro diagnose' again on a manifest with labels"
        ) from error


def _scores(arrays: Mapping[str, NDArray[Any]]) -> Scores:
    import arviz as az

    ids = arrays["log_likelihood/sample_id"].astype(str)
    who, labels = arrays["constant_data/sample_id"].astype(str), arrays["observed_data/outcome"]
    trained = pd.Series(arrays["constant_data/trained"], who).reindex(ids).to_numpy(dtype=bool)
    each = arrays["log_likelihood/outcome"].reshape(-1, len(ids)).astype(np.float64)
    plain = np.logaddexp.reduce(each, 0) - np.log(len(each))
    pointwise, k = plain.copy(), np.full(len(ids), np.nan)
    if len(each) > 4 and trained.any():
        weights, shapes = az.psislw(-each[:, trained].T.copy())
        left = np.logaddexp.reduce(np.asarray(weights) + each[:, trained].T, 1)
        pointwise[trained], k[trained] = left, np.asarray(shapes)
    split = pd.Series(arrays["constant_data/split"], who).reindex(ids).to_numpy(dtype=str)
    unseen = ~trained & (split != "val")
    return Scores(ids, labels, pointwise, unseen if unseen.any() else ~trained, k, len(each) == 1)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """group/variable -> values, read in a process of its own, see `read_groups`."""
    most = max(_BYTES, _BYTES_EACH * path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "groups.npz"
        command = [sys.executable, read_groups.__file__, str(path), str(out), str(SECONDS), str(most), *_GROUPS]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=5 * SECONDS)
        except subprocess.TimeoutExpired:
            done = None
        if done is not None and done.returncode == 3:
            raise ValueError(done.stdout)
        if done is None or done.returncode < 0:
            raise DataError(f"{path}: the HDF5 library hangs or fails on it; expected a whole file; run 'cm2pyro diagnose' again")
        if done.returncode:
            raise CM2Error(f"{path}: cannot be read; {one_line(done.stderr[-200:])}")
        with np.load(out, allow_pickle=False) as arrays:
            return dict(arrays)


@dataclass(frozen=True)
class Comparison:
    """table: a row a fit, best first. notes: how it is to be taken. rows: compared. unseen: whether no fit learned from them."""

    table: pd.DataFrame
    notes: list[str]
    rows: int
    unseen: bool


def compare(scores: Mapping[str, Scores]) -> Comparison:
    """Sum of log predictive densities (elpd) of each fit over the same rows, differences to the best with their standard errors, and
    stacking weights (Yao, Vehtari, Simpson & Gelman 2018).

    Rows that no fit learned from are used if there are any: their density is out of sample as it is, encoders included. Else it is
    leave-one-out over the draws of the global sites (PSIS), which leaves encoders as they are; refused for point estimates.

    Raises:
        DataError: fewer than two fits, rows or labels that differ, or nothing that can be compared.
    """
    order = _aligned(scores)
    use, unseen, notes = _rows(scores, order)
    pointwise = {name: s.pointwise[order[name]][use] for name, s in scores.items()}
    matrix = np.stack(list(pointwise.values()), 1)
    if not np.isfinite(matrix).all():
        bad = [name for name, column in pointwise.items() if not np.isfinite(column).all()]
        raise DataError(f"{bad[0]}: holds a log density that is not finite; diagnose the run again, and look at its fit")
    weights = stacking_weights(matrix)
    best = int(matrix.sum(0).argmax())
    rows = []
    for i, (name, s) in enumerate(scores.items()):
        difference = matrix[:, i] - matrix[:, best]
        shapes = s.k[order[name]][use]
        high = float((shapes[np.isfinite(shapes)] > _BAD_K).mean()) if np.isfinite(shapes).any() else 0.0
        if high > _SHARE:
            notes.append(f"{name}: Pareto k above {_BAD_K} for {high:.0%} of rows; its leave-one-out is not to be believed")
        rows.append(
            {
                "run": name,
                "elpd": matrix[:, i].sum(),
                "se": _se(matrix[:, i]),
                "difference": difference.sum(),
                "se_difference": _se(difference),
                "weight": weights[i],
                "k_high": high,
            }
        )
    table = pd.DataFrame(rows).sort_values("elpd", ascending=False, kind="stable").reset_index(drop=True)
    notes.append(_verdict(table, len(matrix)))
    return Comparison(table, notes, len(matrix), unseen)


def _aligned(scores: Mapping[str, Scores]) -> dict[str, NDArray[np.int64]]:
    """The order of every fit's rows by id. Raises DataError: fewer than two fits, rows or labels that differ."""
    if len(scores) < 2:
        raise DataError(f"compare: found {len(scores)} run, expected two or more; name another")
    first, one = next(iter(scores.items()))
    order = {name: np.argsort(s.ids, kind="stable") for name, s in scores.items()}
    for name, s in scores.items():
        if len(s.ids) != len(one.ids) or (s.ids[order[name]] != one.ids[order[first]]).any():
            raise DataError(
                f"{name}: its posterior is about {len(s.ids)} labelled rows, that of {first} about {len(one.ids)}, or about others; "
                "run 'cm2pyro diagnose' on the same manifest for each"
            )
        if s.labels.shape != one.labels.shape or not np.allclose(s.labels[order[name]], one.labels[order[first]], equal_nan=True):
            raise DataError(f"{name}: labels differ from those of {first}; only fits of one task and one manifest can be compared")
    return order


def _rows(scores: Mapping[str, Scores], order: Mapping[str, NDArray[np.int64]]) -> tuple[NDArray[np.bool_], bool, list[str]]:
    """(n,) which rows, in their order, are compared; whether no fit learned from them; what is to be said of that."""
    unseen = np.logical_and.reduce([s.unseen[order[name]] for name, s in scores.items()])
    if unseen.any():
        notes = [f"{unseen.sum()} rows that no run learned from; elpd is their log predictive density, out of sample as it is"]
        if unseen.sum() < _FEW:
            notes.append(f"fewer than {_FEW} rows: differences mean little")
        return unseen, True, notes
    for name, s in scores.items():
        if s.point:
            raise DataError(
                f"{name}: every row was learned from, and point estimates have nothing to leave one out of; diagnose a manifest with "
                "unseen rows, or fit with guide.globals normal or nuts"
            )
    note = "every row was learned from by some run: elpd is leave-one-out of the global sites alone, encoders stay; expect it too good"
    return np.ones_like(unseen), False, [note]


def _se(values: Array) -> float:
    return float(np.sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else float("nan")


def _verdict(table: pd.DataFrame, n: int) -> str:
    close = table[(table["difference"].abs() <= 2 * table["se_difference"]) | (table.index == 0)]["run"].tolist()
    if len(close) == 1:
        return f"{close[0]} predicts better than every other by more than two standard errors ({n} rows)"
    return f"{', '.join(close)} cannot be told apart: within two standard errors of the best ({n} rows)"


def stacking_weights(pointwise: Array) -> Array:
    """Weights (R,) on the simplex that maximise the sum over rows of log Σ_r w_r p_r: pointwise log densities (n, R)."""
    n, R = pointwise.shape
    densities = np.exp(pointwise - pointwise.max(1, keepdims=True))

    def loss(free: Array) -> tuple[float, Array]:
        w = np.exp(free - free.max())
        w /= w.sum()
        mixed = densities @ w
        slope = (densities / mixed[:, None]).sum(0) / n
        return float(-np.log(mixed).mean()), -w * (slope - (w * slope).sum())

    found = minimize(loss, np.zeros(R), jac=True, method="L-BFGS-B", bounds=[(-12.0, 12.0)] * R)
    w = np.exp(found.x - found.x.max())
    weights: Array = w / w.sum()
    return weights

"""The table and the picture of a run's predictions: what is missing, what that costs in certainty, and what would pay most."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cm2pyro.diagnostics.plots import BLUE, GREY, ORANGE, legend_below, name_rows, page, pattern_rows, set_pattern_rows, short
from cm2pyro.diagnostics.resampling import Array, pattern_keys, patterns

LEVELS = ("missing", "encoder", "global")
_SAYS = {"missing": "missing modalities", "encoder": "encoders' noise", "global": "global sites, members"}


def shares(frame: pd.DataFrame) -> Array:
    """(n, 3) shares of the predictive variance by level; NaN where there is none, or where it could not be split.

    Args:
        frame: predictions, as from `CM2.predict`.
    """
    squares = frame[[f"sd_{level}" for level in LEVELS]].to_numpy(dtype=float) ** 2
    total = squares.sum(1, keepdims=True)
    return np.divide(squares, total, out=np.full_like(squares, np.nan), where=total > 0)


def spread_table(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A row for all predictions and one per missingness pattern, the most frequent first.

    Columns: `observed` (modalities joined by ";", "none", or "all rows" in the first row), `rows`, `lacks_<modality>` (rows
    without it), `variance_missing`, `variance_encoder`, `variance_global` (mean share of the predictive variance, over rows
    that have any), `pays_most_<modality>` (rows in which obtaining it is expected to reduce the variance most).

    Args:
        frame: predictions, as from `CM2.predict`. names: the modalities.
    """
    observed = observed_of(frame, names)
    keys = pattern_keys(observed, names, len(frame))
    share, pays = shares(frame), frame["pays_most"].to_numpy()
    lines = []
    for key in ["all rows", *patterns(keys)[0]]:
        rows = np.ones(len(frame), dtype=bool) if key == "all rows" else keys == key
        line: dict[str, Any] = {"observed": key, "rows": int(rows.sum())}
        line |= {f"lacks_{name}": int((~observed[rows, m]).sum()) for m, name in enumerate(names)}
        line |= {f"variance_{level}": mean_of(share[rows, i]) for i, level in enumerate(LEVELS)}
        line |= {f"pays_most_{name}": int((pays[rows] == name).sum()) for name in names}
        lines.append(line)
    return pd.DataFrame(lines)


def draw_spread(frame: pd.DataFrame, names: Sequence[str], path: str | Path, title: str) -> None:
    """Write one PNG, 1200 x 500 px: shares of the variance by missingness pattern, and which missing modality pays most.

    Args:
        frame: predictions, as from `CM2.predict`. names: the modalities. path: replaced if it exists. title: one line.

    Raises:
        DataError: a path that cannot be written.
    """
    observed = observed_of(frame, names)
    texts, place = pattern_rows(pattern_keys(observed, names, len(frame)), names)
    with page(path, title) as panels:
        bars, pays = panels[0].subplots(), panels[1].subplots()
        _levels(bars, shares(frame), texts, place)
        _pays(pays, observed, frame["pays_most"].to_numpy(), names)
        for panel, axes in zip(panels, (bars, pays), strict=True):
            legend_below(panel, axes, 3)


def _levels(axes: Axes, share: Array, texts: list[str], place: Array) -> None:
    rows = np.arange(len(texts))
    means = np.array([[mean_of(share[place == row, i]) for row in rows] for i in range(len(LEVELS))])
    start = np.zeros(len(rows))
    for level, color, values in zip(LEVELS, (ORANGE, BLUE, GREY), np.nan_to_num(means), strict=True):
        axes.barh(rows, values, 0.62, left=start, color=color, label=_SAYS[level])
        start = start + values
    for row in rows[np.isnan(means).all(0)]:
        axes.text(0.01, row, "no spread", va="center", fontsize=9, color=GREY)
    axes.set(xlim=(0, 1), xlabel="mean share of the predictive variance")
    axes.set_title("Where the uncertainty comes from", fontsize=11, loc="left")
    set_pattern_rows(axes, texts, np.bincount(place, minlength=len(texts)))


def _pays(axes: Axes, observed: Array, pays: Array, names: Sequence[str]) -> None:
    lacks = (~observed).sum(0)
    counts = np.array([(pays == name).sum() for name in names])
    rows = np.arange(len(names))
    axes.barh(rows, lacks, 0.62, color=GREY, alpha=0.35, label="rows without it")
    axes.barh(rows, counts, 0.62, color=ORANGE, label="rows in which it pays most")
    top = max(int(lacks.max(initial=0)), 1)
    for row, (count, lack) in enumerate(zip(counts.tolist(), lacks.tolist(), strict=True)):
        axes.text(lack + 0.01 * top, row, f"{count:,} of {lack:,}", va="center", ha="left", fontsize=9)
    axes.set(xlim=(0, 1.2 * top), xlabel="rows")
    axes.set_title("Which missing modality would reduce it most", fontsize=11, loc="left")
    name_rows(axes, [short(name) for name in names])


def observed_of(frame: pd.DataFrame, names: Sequence[str]) -> Array:
    """(n, M) bool from the column `observed` of predictions."""
    there = [set(cell.split(";")) for cell in frame["observed"]]
    return np.array([[name in cell for name in names] for cell in there], dtype=bool).reshape(len(frame), len(names))


def mean_of(values: Array) -> float:
    """Mean without NaN; NaN where there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

"""The pictures of a prior predictive check and of prior sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cm2pyro.diagnostics.plots import BLUE, GREY, ORANGE, legend_below, name_rows, page, plain
from cm2pyro.inference.power_scaling import CONFLICT, FINE, STRONG, THRESHOLD
from cm2pyro.inference.prior_predictive import COMPONENTS, INSIDE, OUTCOME, OVERALL, SD, SURE

if TYPE_CHECKING:
    from cm2pyro.inference.power_scaling import PowerScaling
    from cm2pyro.inference.prior_predictive import PriorPredictive, Quantity

_ROWS = 16  # of a panel that names them
_NAMED = 6  # points with a name
_COLORS = {FINE: GREY, STRONG: BLUE, CONFLICT: ORANGE}


def prior_and_data(found: PriorPredictive, path: str | Path, title: str) -> None:
    """Write one PNG, 1200 x 500 px: what the prior expects, middle half and 95%, and the data; left tau, right everything else.

    Quantities of the right panel are on scales of their own: each is divided by the upper end of its prior's 95% or, where that is
    larger, by the data. Of more than 16 rows a panel shows the first.

    Raises:
        DataError: a path that cannot be written.
    """
    tau = [q for q in found.quantities if q.kind in (INSIDE, OVERALL)]
    rest = [q for q in found.quantities if q.kind in (SD, COMPONENTS, OUTCOME, SURE)]
    with page(path, title) as panels:
        for panel, heading, rows, scaled in zip(panels, ("Kendall's tau", "Latents and outcome"), (tau, rest), (False, True), strict=True):
            axes = panel.subplots()
            _intervals(axes, rows[:_ROWS], scaled)
            axes.set_title(heading + (f", the first {_ROWS} of {len(rows)}" if len(rows) > _ROWS else ""), fontsize=11, loc="left")
            axes.set_xlabel("share of the largest value shown in the row" if scaled else "tau")
            if not scaled:
                axes.set_xlim(-1.02, 1.02)
            legend_below(panel, axes, 3)


def _intervals(axes: Axes, rows: Sequence[Quantity], scaled: bool) -> None:
    for i, q in enumerate(rows):
        low, lower, middle, upper, high = np.array(q.quantiles())
        data = None if q.data is None else np.array([np.nanmin(q.data), np.nanmean(q.data), np.nanmax(q.data)])
        unit = max(high, 0.0 if data is None else data[2]) if scaled else 1.0
        unit = unit if unit > 0 else 1.0
        first = i == 0
        axes.hlines(i, low / unit, high / unit, color=BLUE, linewidth=1.2, label="prior, 95%" if first else "_again")
        axes.hlines(i, lower / unit, upper / unit, color=BLUE, linewidth=5, alpha=0.5, label="prior, middle half" if first else "_again")
        axes.plot(middle / unit, i, "|", color=BLUE, markersize=9)
        if scaled:
            axes.text(1.02, i, f"{unit:.3g}", transform=axes.get_yaxis_transform(), va="center", ha="left", fontsize=8)
        if data is not None:
            shown = axes.get_legend_handles_labels()[1]
            label = "data" if len(data) and "data" not in shown else None
            axes.hlines(i + 0.18, data[0] / unit, data[2] / unit, color=ORANGE, linewidth=1.5)
            axes.plot(data[1] / unit, i + 0.18, "o", color=ORANGE, markersize=5, label=label)
    if scaled:
        axes.text(1.02, 1.01, "largest", transform=axes.transAxes, va="bottom", ha="left", fontsize=8)
    name_rows(axes, [f"{q.kind}: {q.of}" for q in rows], 8)


def sensitivity(scaling: PowerScaling | None, refits: pd.DataFrame | None, path: str | Path, title: str) -> None:
    """Write one PNG, 1200 x 500 px: left the two sensitivities of every quantity, right Kendall's tau under each set of priors.

    Without refits the right panel has the largest sensitivity of each kind of quantity to the prior of each site; without
    power-scaling the left one says so.

    Raises:
        DataError: a path that cannot be written.
    """
    with page(path, title) as panels:
        left, right = panels[0].subplots(), panels[1].subplots()
        if scaling is None:
            left.text(0.5, 0.5, "no power-scaling: point estimates", ha="center", transform=left.transAxes, color=GREY)
            left.set_axis_off()
        else:
            _scatter(left, scaling)
            legend_below(panels[0], left, 3)
        if refits is not None:
            _refits(right, refits)
        elif scaling is not None:
            _by_site(right, scaling)
        legend_below(panels[1], right, 4)


def _scatter(axes: Axes, scaling: PowerScaling) -> None:
    table = scaling.table
    for what, color in _COLORS.items():
        rows = table[table["diagnosis"] == what]
        if len(rows):
            label = f"{'no sensitivity to the prior' if what == FINE else what} ({len(rows)})"
            axes.plot(rows["likelihood"], rows["prior"], "o", color=color, markersize=5, alpha=0.8, label=label)
    axes.axhline(THRESHOLD, color=GREY, linewidth=1, linestyle="--")
    axes.axvline(THRESHOLD, color=GREY, linewidth=1, linestyle="--")
    for _, row in scaling.flagged.head(_NAMED).iterrows():
        axes.annotate(row["quantity"], (row["likelihood"], row["prior"]), (5, 3), textcoords="offset points", fontsize=8, parse_math=False)
    axes.set(xlabel="sensitivity to the likelihood", ylabel="sensitivity to the prior", xlim=(0, None), ylim=(0, None))
    axes.margins(0.08)
    axes.set_title(f"Power-scaling, {len(table)} quantities, threshold {THRESHOLD:g}", fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    plain(axes)


def _refits(axes: Axes, refits: pd.DataFrame) -> None:
    rows = refits[refits["quantity"].str.startswith("tau[")]
    heading = "Kendall's tau"
    if rows.empty:
        rows, heading = refits[refits["quantity"].str.startswith("weights[")], "Weights"
    shown = rows.head(_ROWS)
    sets = list(refits.columns[1:])
    for i, name in enumerate(sets):
        shift = 0.5 * ((i + 0.5) / len(sets) - 0.5)
        axes.plot(shown[name], np.arange(len(shown)) + shift, "o", markersize=5, color=f"C{i}", label=name)
    axes.set_title(
        f"{heading} under each prior" + (f", the first {_ROWS} of {len(rows)}" if len(rows) > _ROWS else ""), fontsize=11, loc="left"
    )
    axes.set_xlabel("value at the greatest density")
    name_rows(axes, list(shown["quantity"]), 8)


def _by_site(axes: Axes, scaling: PowerScaling) -> None:
    sites = [column.removeprefix("prior_") for column in scaling.table.columns if column.startswith("prior_")]
    kinds = scaling.table["quantity"].str.replace(r"\[.*", "", regex=True)
    shown = list(dict.fromkeys(kinds))
    for i, kind in enumerate(shown):
        largest = scaling.table[kinds == kind][[f"prior_{site}" for site in sites]].max()
        axes.plot(largest, np.arange(len(sites)) + 0.5 * ((i + 0.5) / len(shown) - 0.5), "o", markersize=5, color=f"C{i}", label=kind)
    axes.axvline(THRESHOLD, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlim(0, None)
    axes.set_title("Largest sensitivity to the prior of each site", fontsize=11, loc="left")
    axes.set_xlabel("sensitivity, of the kinds of quantities below")
    name_rows(axes, sites, 8)

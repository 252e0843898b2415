"""The picture of a delta-adjusted sensitivity analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from cm2pyro.diagnostics.plots import BLUE, GREY, ORANGE, legend_below, page, plain

if TYPE_CHECKING:
    from cm2pyro.diagnostics.sensitivity import Sensitivity

_QUARTILES = (0.25, 0.75)


def risk_against_delta(found: Sensitivity, path: str | Path, title: str) -> None:
    """Write one PNG, 1200 x 500 px: risk of incomplete rows, and changed decisions, against delta, with the tipping points.

    Args:
        path: replaced if it exists. title: above both panels, one line.

    Raises:
        DataError: a path that cannot be written.
    """
    points = found.tipping_points()
    with page(path, title) as panels:
        risk, changed = panels[0].subplots(), panels[1].subplots()
        low, high = np.quantile(found.risk, _QUARTILES, axis=1)
        risk.fill_between(found.delta, low, high, color=BLUE, alpha=0.15, linewidth=0, label="rows, middle half")
        risk.plot(found.delta, found.risk.mean(1), "o-", color=BLUE, markersize=5, label="mean risk")
        if found.rate["value"] is not None:
            risk.axhline(found.rate["value"], color=GREY, linewidth=1, linestyle="--", label="observed rate, 95% interval")
        if found.rate["low"] is not None and found.rate["high"] is not None:
            risk.axhspan(found.rate["low"], found.rate["high"], color=GREY, alpha=0.2, linewidth=0)
        risk.set(ylabel="probability", ylim=(0, None))
        risk.set_title(f"Risk of the {len(found.ids):,} incomplete rows", fontsize=11, loc="left")
        changed.plot(found.delta, found.changed, "o-", color=BLUE, markersize=5, label="share of decisions that change")
        limit = found.metrics["changed"]
        changed.axhline(limit, color=GREY, linewidth=1, linestyle="--", label=f"{limit:.0%}")
        changed.set(ylabel="share of incomplete rows", ylim=(0, max(1.1 * found.changed.max(), 2 * limit)))
        changed.set_title(f"Decisions at {found.threshold:.3f}, against those at delta 0", fontsize=11, loc="left")
        for panel, axes, what in zip(panels, (risk, changed), ("risk", "decision"), strict=True):
            _tips(axes, points[what])
            axes.set_xlabel("delta: shift of missing latents, in standard deviations")
            axes.grid(alpha=0.25)
            plain(axes)
            legend_below(panel, axes)


def _tips(axes: Axes, points: dict[str, float | None]) -> None:
    """Mark the tipping points, each named at the top inside the panel."""
    label = "tipping point"
    for value in sorted({value for value in points.values() if value is not None}):
        axes.axvline(value, color=ORANGE, linewidth=1.5, label=label)
        axes.annotate(
            f"{value:+.2f}", (value, 1), (4, -4), xycoords=axes.get_xaxis_transform(), textcoords="offset points", va="top", fontsize=9
        )
        label = "_again"

"""The picture of a choice among copula families and numbers of components."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cm2pyro.diagnostics.paired_elpd import TIE
from cm2pyro.diagnostics.plots import BLUE, COLORS, GREY, MARKERS, ORANGE, legend_below, page, plain

if TYPE_CHECKING:
    from cm2pyro.diagnostics.family_choice import FamilyChoice

_NEAREST = 12  # candidates in the right panel


def elpd_by_family(found: FamilyChoice, path: str | Path, title: str) -> None:
    """Write one PNG, 1200 x 500 px: nats behind the best by K and family, and the candidates that come nearest, with 2 SE bars.

    Args:
        path: replaced if it exists. title: above both panels, one line.

    Raises:
        DataError: a path that cannot be written.
    """
    table = found.frame()
    bar = TIE * table["se_difference"].to_numpy()
    with page(path, title) as panels:
        by_k, near = panels[0].subplots(), panels[1].subplots()
        families = list(dict.fromkeys(candidate.family for candidate in found.candidates))
        sizes = sorted(set(table["components"]))
        for i, family in enumerate(families):
            mine = (table["family"] == family).to_numpy()
            rows = table[mine].sort_values("components")
            shift = 0.3 * (i / max(len(families) - 1, 1) - 0.5) * min(np.diff(sizes), default=1)
            by_k.errorbar(
                rows["components"] + shift,
                -rows["difference"],
                yerr=TIE * rows["se_difference"],
                color=COLORS[i % len(COLORS)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=5,
                linewidth=1,
                elinewidth=1.2,
                label=family,
            )
        # Straight up to ten nats, where choices are made; logarithmic beyond, where hopeless candidates are.
        by_k.set_yscale("symlog", linthresh=10)
        low, high = by_k.get_ylim()
        by_k.set(
            xlabel="K", ylabel="nats behind the greatest elpd (logarithmic beyond 10)", xticks=sizes, ylim=(max(high, 10), min(low, -1))
        )
        by_k.axhline(0, color=GREY, linewidth=1, linestyle="--")
        by_k.set_title("By number of components, bars of 2 standard errors", fontsize=11, loc="left")
        shown = table.head(_NEAREST)
        rows_at = np.arange(len(shown))
        near.set_xscale("symlog", linthresh=10)
        near.axvline(0, color=GREY, linewidth=1, linestyle="--")
        for row, line in shown.iterrows():
            color = ORANGE if line["chosen"] else BLUE
            near.errorbar(line["difference"], row, xerr=bar[int(str(row))], color=color, fmt="o", markersize=5, elinewidth=1.5, capsize=2.5)
            near.text(1.02, row, f"{line['weight']:.2f}", transform=near.get_yaxis_transform(), va="center", fontsize=9)
        near.text(1.02, 1.01, "weight", transform=near.transAxes, va="bottom", fontsize=9)
        near.set_yticks(rows_at, [f"{line['family']}, K = {line['components']}" for _, line in shown.iterrows()], fontsize=9)
        near.set(ylim=(max(len(shown), 5) - 0.4, -0.6), xlabel="elpd difference to the greatest, nats (logarithmic beyond 10)")
        near.set_title("The nearest, the recommended one in orange", fontsize=11, loc="left")
        for axes in (by_k, near):
            axes.grid(alpha=0.25)
            plain(axes)
        narrow = {"columnspacing": 1.0, "handlelength": 1.2, "handletextpad": 0.4}
        legend_below(panels[0], by_k, 4, **narrow)

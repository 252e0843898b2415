"""Families side by side on the same pseudo-observations."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from cm2pyro.diagnostics.report.copula import FEW, LEAST, density, inside, pseudo, strongest
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Figure, Section, Table
from cm2pyro.diagnostics.report.pictures import Array
from cm2pyro.distributions.copulas import make_copula

_DRAWN = ("gaussian", "student_t", "clayton", "gumbel", "frank", "joe")
FAMILIES = (*_DRAWN, "survival_clayton", "survival_gumbel", "survival_joe")
_WEAK, _STRONG = 0.05, 0.95  # |tau| below which families are too alike, and at which they are drawn at most


def section(m: Material) -> Section:
    """Densities of families with the tau of the data, and which of them gives the data most density."""
    key, title = "families", "Families on the same data"
    if not m.pairs:
        return Section(key, title, ("One modality: nothing to tie.",))
    p, j = strongest(m, 1)[0]
    pair = m.pairs[p]
    s, component = ranked(*pseudo(m, pair, j))
    tau = inside(s, component)
    name = f"{m.pair_name(pair)}, dimension {j + 1}"
    if len(s) < FEW or not abs(tau) >= _WEAK:
        text = f"{name}: {len(s):,} rows, tau {tau:+.2f} in the data: too few rows or too weak a dependence to tell families apart."
        return Section(key, title, (text,))
    # A family of positive dependence takes a negative one with the first coordinate mirrored (rotation by 90°).
    turned = s * np.array([np.sign(tau), 1.0])
    size = float(np.clip(abs(tau), _WEAK, _STRONG))
    copulas = {family: make_copula(family, 2, tau=size, dtype=torch.float64) for family in FAMILIES}
    logs = {family: copula.log_prob(torch.from_numpy(turned)).numpy() for family, copula in copulas.items()}
    mirrored = " (first coordinate mirrored)" if tau < 0 else ""
    pictures = tuple(
        density(
            m,
            copulas[family],
            turned,
            component,
            pair,
            f"{name}{mirrored}",
            f"tau {size:.2f}",
            "normal-score",
            family,
            _label(family, logs),
        )
        for family in _DRAWN
    )
    figure = Figure(
        pictures,
        f"{name}{mirrored}: families with the Kendall's tau of the data, {tau:+.2f}, on the normal-score scale; Student-t with 4 degrees "
        "of freedom. Points: normal scores of ranks inside each component, so that the dependence counts and not how well margins fit. "
        "Families differ in the corners: Clayton gathers in the lower left, Gumbel and Joe in the upper right, Student-t in both, Gaussian "
        "and Frank in none.",
        "points that follow another family than the fitted one where the table's difference is more than two standard errors.",
    )
    return Section(key, title, (figure, _table(m, logs, name)))


def ranked(s: Array, component: NDArray[Any]) -> tuple[Array, NDArray[Any]]:
    """Normal scores (n, 2) of the ranks inside each component: margins have no say. Components of fewer than 10 rows are left out."""
    large = np.isin(component, [t for t in np.unique(component) if (component == t).sum() >= LEAST])
    s, component = s[large].copy(), component[large]
    for t in np.unique(component):
        own = component == t
        s[own] = ndtri(rankdata(s[own], axis=0) / (own.sum() + 1))
    return s, component


def _label(family: str, logs: dict[str, Array]) -> str:
    return f"mean log density {logs[family].mean():+.3f}"


def _table(m: Material, logs: dict[str, Array], name: str) -> Table:
    best = max(logs, key=lambda family: logs[family].mean())
    rows: list[tuple[Cell, ...]] = []
    for family in sorted(logs, key=lambda family: -logs[family].mean()):
        less = logs[best] - logs[family]
        mark = " (fitted)" if family == m.mixture.copula.family else ""
        rows.append((family + mark, float(logs[family].mean()), float(less.mean()), float(less.std() / np.sqrt(len(less)))))
    caption = (
        f"Mean log copula density of these {len(logs[best]):,} rows of {name}, in nats a row, with tau matched and nothing else fitted. "
        "One pair and one dimension: a hint, not a selection; CM2.family_posterior compares whole mixtures."
    )
    return Table(("family", "mean log density", "less than the best", "standard error"), tuple(rows), caption)

"""Which cluster of one modality goes with which of another, each told from its own latents alone."""

import numpy as np
import torch

from cm2pyro.diagnostics.plots import short
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Figure, Finding, Picture, Section, Table
from cm2pyro.diagnostics.report.pictures import Array, panel, titled

PAIRS = 6
_MOST = 8  # components up to which cells are numbered
_DRAWS = 20_000
_ENOUGH, _STRONG = 100, 0.3  # rows, and an expected association, from which a lack of it is worth a warning


def section(m: Material) -> Section:
    """Co-occurrence in the rows of the report, beside what the model expects."""
    key, title = "clusters", "Clusters across modalities"
    components = m.mixture.locs.shape[1]
    if not m.pairs or components == 1:
        text = "One modality: there is no other." if not m.pairs else "One component per modality: there are no clusters."
        return Section(key, title, (text,))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(m.config.fit.seed)
        drawn = m.mixture.rsample((_DRAWS,))
    alone, expected = [_alone(m, i, m.z) for i in range(len(m.names))], [_alone(m, i, drawn) for i in range(len(m.names))]
    rows: list[tuple[Cell, ...]] = []
    pictures: list[Picture] = []
    shown = sorted(m.pairs, key=lambda pair: -len(m.both(pair)))
    for pair in shown:
        both = m.both(pair)
        here = _together(alone[pair[0]][both], alone[pair[1]][both]) if len(both) else None
        model = _together(expected[pair[0]], expected[pair[1]])
        rows.append((m.pair_name(pair), len(both), None if here is None else association(here), association(model)))
        if here is not None and len(pictures) < PAIRS:
            pictures.append(_picture(m, pair, here, len(both)))
    coupling = (
        "With coupling shared, component k of one modality belongs to component k of every other, so the diagonal is what the model says; "
        "cells beside it are rows whose modalities disagree, or components that overlap."
        if m.config.prior.coupling == "shared"
        else "With coupling full every modality has clusters of its own, and any table is possible."
    )
    table = Table(
        ("pair", "rows with both", "in the data", "expected"),
        tuple(rows),
        "Cramér's V of these tables, 0: the clusters of one modality say nothing of the other's; 1: each names the other. "
        f"Expected: of {_DRAWS:,} draws of the model itself, taken the same way.",
    )
    far = [
        f"{row[0]} ({row[2]:.2f}, {row[3]:.2f} expected)"
        for row in rows
        if isinstance(row[2], float)
        and isinstance(row[3], float)
        and int(row[1] or 0) >= _ENOUGH
        and row[2] < 0.5 * row[3]
        and row[3] > _STRONG
    ]
    findings = (Finding(f"Modalities share their clusters far less than the model says: {'; '.join(far)}."),) if far else ()
    if not pictures:
        return Section(key, title, ("No row has two modalities.", table))
    figure = Figure(
        tuple(pictures),
        f"Share of rows in each pair of clusters, for {len(pictures)} of {len(m.pairs)} pairs. The cluster of a modality is told from its "
        f"own latent alone (responsibilities under its marginal mixture, summed over rows). {coupling}",
        "an association far below the one expected: the modalities do not share the clusters that the model claims they share.",
    )
    return Section(key, title, (figure, table), findings)


def _alone(m: Material, i: int, z: torch.Tensor) -> Array:
    """(n, K) responsibilities of modality i's components given z_i alone; z (n, M, D)."""
    p = m.mixture
    with torch.no_grad():
        own = torch.distributions.Normal(p.locs[i], p.scales[i], validate_args=False).log_prob(z[:, i, None].nan_to_num(0)).sum(-1)
        return (p.marginal_log_weights(i) + own).softmax(-1).double().numpy()


def _together(a: Array, b: Array) -> Array:
    """(K, K) shares, summing to 1."""
    return a.T @ b / len(a)


def association(table: Array) -> float | None:
    """Cramér's V of a table of shares; None where one side has a single cluster."""
    independent = table.sum(1)[:, None] * table.sum(0)
    rows, columns = (int((table.sum(axis) > 1e-9).sum()) for axis in (1, 0))
    if min(rows, columns) < 2:
        return None
    there = independent > 0
    chi = ((table - independent)[there] ** 2 / independent[there]).sum()
    return float(np.sqrt(chi / (min(rows, columns) - 1)))


def _picture(m: Material, pair: tuple[int, int], table: Array, n: int) -> Picture:
    a, b = (m.names[i] for i in pair)
    components = len(table)
    diagonal = float(np.trace(table))
    with panel(f"Clusters of {a} against those of {b} in {n} rows; {diagonal:.0%} on the diagonal", f"{n:,} rows", (4.0, 3.5)) as drawn:
        axes = drawn.axes
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=max(float(table.max()), 1e-6), origin="upper")
        ticks = np.arange(components)
        if components <= _MOST:
            axes.set_xticks(ticks, [str(k + 1) for k in ticks])
            axes.set_yticks(ticks, [str(k + 1) for k in ticks])
            for k in range(components):
                for q in range(components):
                    dark = table[k, q] > 0.6 * table.max()
                    axes.text(q, k, f"{table[k, q]:.0%}", ha="center", va="center", fontsize=10, color="white" if dark else "black")
        else:
            drawn.figure.colorbar(image, ax=axes)
        titled(axes, f"{short(a, 16)} and {short(b, 16)}", f"cluster of {short(b, 20)}", f"cluster of {short(a, 20)}")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return drawn.picture

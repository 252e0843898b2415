"""The mixture of each modality in two dimensions, with the latents of the data."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from scipy.stats import kstest

from cm2pyro.diagnostics.plots import short
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Figure, Finding, Picture, Section, Table
from cm2pyro.diagnostics.report.pictures import COLORS, DARK, Array, component_color, legend, panel, points, spread_rows, titled

_RARE = 0.01  # weight below which a component is as good as empty
_FAR, _ENOUGH = 0.2, 100  # a distance from normal that is no chance, from that many rows on
_SHOWN = 12  # components with an ellipse


def section(m: Material) -> Section:
    """A panel a modality, and how its components are used by the rows of the report."""
    if m.dim > 2:
        how = f"the first two principal components of the {m.dim} latent dimensions, over rows that have the modality"
    else:
        how = "both latent dimensions" if m.dim == 2 else "the one latent dimension"
    figure = Figure(
        tuple(_panel(m, i) for i in range(len(m.names))),
        f"Shown are {how}. Points: latents (one draw a row), coloured by the component drawn for the row; ellipses: one and two standard "
        "deviations of each component with a weight of at least 1%; weights stand in the legend.",
        "ellipses without points, points outside all ellipses, components on top of one another, or all points in one.",
    )
    return Section("components", "Components per modality", (figure, _table(m)), tuple(_findings(m)))


def _weights(m: Material, i: int) -> Array:
    return m.mixture.marginal_log_weights(i).exp().double().numpy()


def _use(m: Material, i: int) -> Array:
    """(K,) mean responsibilities of modality i's components over rows that have it."""
    rows = m.observed[:, i]
    share = m.log_r[rows].exp().double().mean(0) if bool(rows.any()) else m.mixture.log_weights.exp().double()
    return torch.zeros(m.mixture.locs.shape[1], dtype=torch.float64).index_add(0, m.mixture.assignment[:, i], share).numpy()


def axes_of(z: Array) -> tuple[Array, Array]:
    """Centre (D,) and two orthonormal directions (D, 2): the coordinates themselves for D = 2, else the first principal components."""
    dim = z.shape[1]
    if dim == 2 or len(z) < 3:
        return np.zeros(dim), np.eye(dim)[:, :2]
    centre = z.mean(0)
    _, _, directions = np.linalg.svd(z - centre, full_matrices=False)
    chosen = directions[:2].T
    return centre, chosen * np.where(chosen.sum(0) < 0, -1.0, 1.0)


def _panel(m: Material, i: int) -> Picture:
    rows = m.observed[:, i].nonzero()[:, 0].numpy()
    rows = rows[spread_rows(len(rows))]
    z = m.z[rows, i].double().numpy()
    own = m.mixture.assignment[m.component[rows], i].numpy()
    weights = _weights(m, i)
    name = m.names[i]
    alt = f"Latents of {name} with its components of weights {', '.join(f'{w:.2f}' for w in weights[:_SHOWN])}"
    with panel(alt, size=(4.4, 3.9)) as drawn:
        axes = drawn.axes
        if m.dim == 1:
            _line(axes, m, i, z[:, 0])
            titled(axes, short(name, 30), "latent", "density")
        else:
            centre, directions = axes_of(m.z[m.observed[:, i], i].double().numpy())
            points(axes, (z - centre) @ directions, own, len(weights), weights)
            _ellipses(axes, m, i, weights, centre, directions)
            x, y = ("dimension 1", "dimension 2") if m.dim == 2 else ("first principal component", "second")
            titled(axes, short(name, 30), x, y)
        legend(axes)
    return drawn.picture


def _ellipses(axes: Axes, m: Material, i: int, weights: Array, centre: Array, directions: Array) -> None:
    for k in np.argsort(-weights)[:_SHOWN]:
        if weights[k] < _RARE:
            continue
        loc = (m.mixture.locs[i, k].double().numpy() - centre) @ directions
        covariance = directions.T @ np.diag(m.mixture.scales[i, k].double().numpy() ** 2) @ directions
        values, vectors = np.linalg.eigh(covariance)
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        color = component_color(k) if len(weights) <= len(COLORS) else DARK
        for times in (1, 2):
            width, height = 2 * times * np.sqrt(values[::-1])
            axes.add_patch(Ellipse((loc[0], loc[1]), width, height, angle=angle, fill=False, color=color, linewidth=1.2 / times + 0.6))
        axes.plot(loc[0], loc[1], "+", color=color, markersize=9, markeredgewidth=2)
    axes.autoscale_view()


def _line(axes: Axes, m: Material, i: int, z: Array) -> None:
    """One latent dimension: histogram and density."""
    if len(z):
        axes.hist(z, bins=40, density=True, color=COLORS[5], alpha=0.5, label="latents")
    locs, scales = m.mixture.locs[i, :, 0].double().numpy(), m.mixture.scales[i, :, 0].double().numpy()
    x = np.linspace(*axes.get_xlim(), 200) if len(z) else np.linspace((locs - 3 * scales).min(), (locs + 3 * scales).max(), 200)
    each = _weights(m, i) * np.exp(-0.5 * ((x[:, None] - locs) / scales) ** 2) / scales / np.sqrt(2 * np.pi)
    axes.plot(x, each.sum(1), color=DARK, label="mixture")
    axes.plot(x, each, color=DARK, linewidth=0.8, linestyle="--")


def _table(m: Material) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for i, name in enumerate(m.names):
        weights, use = _weights(m, i), _use(m, i)
        effective = float(np.exp(-(use * np.log(np.maximum(use, 1e-300))).sum()))
        shown = ", ".join(f"{w:.0%}" for w in weights[:_SHOWN]) + (" …" if len(weights) > _SHOWN else "")
        used = ", ".join(f"{w:.0%}" for w in use[:_SHOWN]) + (" …" if len(use) > _SHOWN else "")
        rows.append((name, shown, used, effective, _distance(m, i)))
    caption = (
        "Weights as learned, and the use of components by these rows (mean responsibilities); effective components are exp(entropy of the "
        "use). Distance from normal: Kolmogorov-Smirnov distance of latents, standardised by the component drawn for the row, from a "
        "standard normal, in the worst dimension; near 0 where the components describe the latents."
    )
    return Table(("modality", "weights", "use", "effective components", "distance from normal"), tuple(rows), caption)


def _distance(m: Material, i: int) -> float:
    """Kolmogorov-Smirnov distance of the scores of modality i from a standard normal, the worst dimension; NaN below two rows."""
    s = m.scores[m.observed[:, i].numpy(), i]
    return max(float(kstest(s[:, j], "norm").statistic) for j in range(m.dim)) if len(s) > 1 else float("nan")


def _findings(m: Material) -> list[Finding]:
    found = []
    for i, name in enumerate(m.names):
        if not bool(m.observed[:, i].any()):
            found.append(Finding(f"None of these rows has {name}: nothing of it can be checked here."))
            continue
        if len(m.scores) and _distance(m, i) > _FAR and int(m.observed[:, i].sum()) >= _ENOUGH:
            found.append(
                Finding(
                    f"The components of {name} do not describe its latents (distance from normal {_distance(m, i):.2f}): "
                    "more epochs, fit.settle: true or other prior.components may."
                )
            )
        rare = [str(k + 1) for k, share in enumerate(_use(m, i)) if share < _RARE]
        if rare and len(rare) < m.mixture.locs.shape[1] and m.mixture.locs.shape[1] > 1:
            which = ", ".join(rare[:6]) + (" …" if len(rare) > 6 else "")
            found.append(
                Finding(
                    f"Component {which} of {name} takes less than 1% of the rows: prior.components may be too many, or the mixture "
                    "collapses."
                )
            )
    return found

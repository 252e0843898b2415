"""The fitted copula against the pseudo-observations of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import kendalltau

from cm2pyro.diagnostics.plots import short
from cm2pyro.diagnostics.report.material import Material, pair_copula
from cm2pyro.diagnostics.report.parts import Cell, Figure, Finding, Picture, Section, Table
from cm2pyro.diagnostics.report.pictures import DARK, Array, legend, panel, points, spread_rows, titled
from cm2pyro.distributions.copulas.base import MAX_TAU, Copula

PAIRS = 3  # drawn; the table has all
_POINTS = 800  # of a panel
FEW = 30  # rows below which a pair's tau is the prior's rather than the data's
LEAST = 10  # rows of a component that have a tau
_ROWS = 3000  # of which Kendall's tau is computed
_GRID, _EDGE = 81, 3.3  # points beyond the edge are drawn on it
_COPULA_LEVELS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0)
_SCORE_LEVELS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5)

Panel = tuple[int, int]  # pair, latent dimension


def pseudo(m: Material, pair: tuple[int, int], j: int) -> tuple[Array, Array]:
    """Normal scores (n, 2) of the rows that have both modalities, and the component of each (n,)."""
    rows = m.both(pair)
    return m.scores[rows][:, list(pair), j], m.component.numpy()[rows]


def kendall(x: Array) -> float:
    """Kendall's tau of (n, 2), on 3,000 evenly taken rows of more; NaN below three rows."""
    x = x[spread_rows(len(x), _ROWS)]
    return float(kendalltau(x[:, 0], x[:, 1]).statistic) if len(x) > 2 else float("nan")


def inside(x: Array, component: NDArray[Any]) -> float:
    """Kendall's tau of (n, 2) inside components, their mean by rows; components of fewer than 10 rows are left out.

    Unlike tau of the pooled scores it is free of the margins: a component that lies beside its latents leaves it as it is.
    """
    found = [(int(own.sum()), kendall(x[own])) for own in (component == t for t in np.unique(component)) if own.sum() >= LEAST]
    found = [(n, tau) for n, tau in found if np.isfinite(tau)]
    return float(np.average([tau for _, tau in found], weights=[n for n, _ in found])) if found else float("nan")


def strongest(m: Material, most: int = PAIRS) -> list[Panel]:
    """Pairs by their strongest |tau| over dimensions, with that dimension; where the copula has none, by the pseudo-observations'."""
    tau = m.tau
    if not np.abs(tau).max(initial=0.0) > 1e-6:
        tau = np.nan_to_num(np.array([[inside(*pseudo(m, pair, j)) for j in range(m.dim)] for pair in m.pairs])).reshape(tau.shape)
    order = np.argsort(-np.abs(tau).max(1), kind="stable")
    return [(int(p), int(np.abs(tau[p]).argmax())) for p in order[:most]]


def section(m: Material) -> Section:
    """Densities on both scales, and tau of fit and data for every pair."""
    key, title = "copula", "The copula and the data"
    if not m.pairs:
        return Section(key, title, ("One modality: nothing to tie.",))
    pictures: list[Picture] = []
    for p, j in strongest(m):
        pair = m.pairs[p]
        copula, (s, component) = pair_copula(m.mixture.copula, pair, j), pseudo(m, pair, j)
        name = f"{m.pair_name(pair)}, dimension {j + 1}"
        facts = f"tau {m.tau[p, j]:+.2f} fitted, {inside(s, component):+.2f} in {len(s):,} rows"
        pictures += [density(m, copula, s, component, pair, name, facts, scale) for scale in ("copula", "normal-score")]
    what = f"{len(pictures) // 2} of {len(m.pairs)} pairs, those with the strongest tau, each in its strongest latent dimension. "
    figure = Figure(
        tuple(pictures),
        what
        + f"Contours: the fitted {m.mixture.copula.family} copula of the pair, on the copula scale (u between 0 and 1; the density is 1 "
        "everywhere under independence) and on the normal-score scale (s = Φ⁻¹(u); circles under independence). Points: "
        "pseudo-observations of rows that have both modalities, pooled over components: each row goes to one component, drawn by its "
        "responsibility, and its latent (one draw of the encoder's posterior) through that component's own normal margin. If the model "
        "holds they are draws of the copula.",
        "points where the contours are low, corners fuller than the density says (tail dependence that the family lacks), one component "
        "apart from the others, or margins that are not even along u.",
    )
    table, rows = _table(m)
    return Section(key, title, (figure, table), tuple(_findings(m, rows)))


def density(
    m: Material,
    copula: Copula,
    s: Array,
    component: Array,
    pair: tuple[int, int],
    name: str,
    facts: str,
    scale: str,
    title: str = "",
    label: str = "",
) -> Picture:
    """Contours of a copula of two coordinates on one of the two scales, with points (n, 2) in normal scores; none for n = 0."""
    a, b = (short(m.names[i], 18) for i in pair)
    letter = "u" if scale == "copula" else "s"
    with panel(f"{copula.family} copula density on the {scale} scale, {name}; {facts}", label or f"{name}: {facts}", (4.2, 3.9)) as drawn:
        axes = drawn.axes
        contours(axes, copula, scale)
        rows = spread_rows(len(s), _POINTS)
        shown, own = s[rows], component[rows]
        shown = ndtr(shown) if scale == "copula" else np.clip(shown, -_EDGE, _EDGE)
        points(axes, shown, own, m.mixture.joint_components)
        axes.set_aspect("equal")
        titled(axes, title or f"{scale} scale", f"{letter} of {a}", f"{letter} of {b}")
        axes.grid(visible=False)
        legend(axes)
    return drawn.picture


def contours(axes: Axes, copula: Copula, scale: str) -> None:
    """Filled contours of c(u, v), or of c(Φ(s), Φ(t)) φ(s) φ(t)."""
    edge = np.linspace(0.004, 0.996, _GRID) if scale == "copula" else np.linspace(-_EDGE, _EDGE, _GRID)
    s = ndtri(edge) if scale == "copula" else edge
    x, y = np.meshgrid(s, s)
    like = copula.theta_like
    points_ = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2)).to(like.dtype)
    with torch.no_grad():
        log_c = copula.log_prob(points_).double().numpy().reshape(x.shape)
    log_density = log_c if scale == "copula" else log_c - 0.5 * (x**2 + y**2) - np.log(2 * np.pi)
    levels = _COPULA_LEVELS if scale == "copula" else _SCORE_LEVELS
    values = np.clip(np.exp(np.minimum(log_density, 50)), levels[0] / 10, levels[-1] * 10)
    places = (0.004, 0.996) if scale == "copula" else (-_EDGE, _EDGE)
    axes.contourf(edge, edge, np.log(values), levels=np.log(levels), cmap="Blues", extend="both", alpha=0.55)
    axes.contour(edge, edge, np.log(values), levels=np.log(levels), colors=DARK, linewidths=0.5, linestyles="solid", alpha=0.6)
    axes.set(xlim=places, ylim=places)


def _table(m: Material) -> tuple[Table, list[dict[str, float]]]:
    rows: list[tuple[Cell, ...]] = []
    facts: list[dict[str, float]] = []
    for p, pair in enumerate(m.pairs):
        both = m.both(pair)
        within = np.array([inside(*pseudo(m, pair, j)) for j in range(m.dim)])
        z = m.z[both][:, list(pair)].double().numpy()
        overall = np.array([kendall(z[:, :, j]) for j in range(m.dim)])
        fitted = m.tau[p]
        gap = float(np.abs(fitted - within).max()) if np.isfinite(within).all() else float("nan")
        span = f"{fitted.min():+.2f}\u00a0…\u00a0{fitted.max():+.2f}"  # on one line
        rows.append((m.pair_name(pair), len(both), float(fitted.mean()), span, _mean(within), gap, _mean(overall)))
        facts.append({"n": len(both), "gap": gap, "bound": float(np.abs(fitted).max())})
    columns = ("pair", "rows with both", "fitted", "least … most", "in the data", "largest gap", "overall")
    caption = (
        "Kendall's tau per pair, means over latent dimensions. Fitted, with the least and the most of a dimension, and in the data: inside "
        "components, in the data as the mean over components of tau between the rows drawn for them. Gap: the largest difference of the "
        "two in one dimension. Overall: of the latents as they are, clusters included."
    )
    return Table(columns, tuple(rows), caption), facts


def _mean(values: Array) -> float:
    return float(values.mean())


def _findings(m: Material, facts: Sequence[dict[str, float]]) -> list[Finding]:
    found = []
    few = [f"{m.pair_name(pair)} ({int(fact['n'])})" for pair, fact in zip(m.pairs, facts, strict=True) if fact["n"] < FEW]
    if few:
        found.append(
            Finding(
                f"Fewer than {FEW} of these rows have both modalities of {', '.join(few)}: tau there rests on the prior, or on other rows."
            )
        )
    bound = [m.pair_name(pair) for pair, fact in zip(m.pairs, facts, strict=True) if fact["bound"] > 0.98 * MAX_TAU]
    if bound:
        found.append(Finding(f"tau of {', '.join(bound)} stands at its bound of ±{MAX_TAU}: two modalities may carry the same latent."))
    # Of n independent rows tau has variance 2 (2n + 5) / (9 n (n − 1)); three of its sd, of the rows that were used, are chance.
    far = []
    for pair, fact in zip(m.pairs, facts, strict=True):
        n = min(fact["n"], _ROWS)
        if n >= FEW and fact["gap"] > 0.1 + 3 * np.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))):
            far.append(f"{m.pair_name(pair)} ({fact['gap']:.2f})")
    if far:
        found.append(
            Finding(
                f"tau inside components, fitted and in the data, differs in some dimension of {', '.join(far)}: the copula does not "
                "describe these latents; it may lag behind the encoders (more epochs, fit.settle: true), or the components may not fit."
            )
        )
    return found

"""Densities of the mixture as the fit went on."""

import numpy as np
import torch

from cm2pyro.diagnostics.plots import short
from cm2pyro.diagnostics.report.copula import contours, strongest
from cm2pyro.diagnostics.report.material import Material, pair_copula, pair_tau
from cm2pyro.diagnostics.report.parts import Figure, Picture, Section
from cm2pyro.diagnostics.report.pictures import DARK, ORANGE, Array, panel, spread_rows, titled
from cm2pyro.distributions.mixture import CopulaMixture

_GRID = 81


def pair_mixture(mixture: CopulaMixture, pair: tuple[int, int], j: int) -> CopulaMixture:
    """The exact law of two modalities in one latent dimension: M = 2, D = 1."""
    a = list(pair)
    one = slice(j, j + 1)
    copula = pair_copula(mixture.copula, pair, j)
    return CopulaMixture(
        mixture.log_weights, mixture.assignment[:, a], mixture.locs[a][..., one], mixture.scales[a][..., one], copula, validate_args=False
    )


def section(m: Material) -> Section:
    """The joint density of the strongest pair, and its copula, at a few epochs and as kept."""
    key, title = "epochs", "Densities at epochs"
    if not m.pairs:
        return Section(key, title, ("One modality: nothing to tie.",))
    if not m.epochs:
        return Section(
            key, title, ("This run has no snapshots of the mixture: it was fitted by a version that kept none. Fit again to see them.",)
        )
    p, j = strongest(m, 1)[0]
    pair = m.pairs[p]
    kept = "as kept"
    shown = {f"epoch {epoch}" if epoch else "start": mixture for epoch, mixture in m.epochs.items()} | {kept: m.mixture}
    rows = m.both(pair)
    z = m.z[rows][:, list(pair), j].double().numpy()
    limits = _limits(list(shown.values()), pair, j, z)
    joint, copulas = [], []
    for name, mixture in shown.items():
        tau = float(pair_tau(mixture.copula, [pair], m.dim)[0, j])
        joint.append(_joint(m, mixture, pair, j, name, limits, z if name == kept else None))
        copulas.append(_copula(m, mixture, pair, j, name, tau))
    where = f"{m.pair_name(pair)} in latent dimension {j + 1}"
    return Section(
        key,
        title,
        (
            Figure(
                tuple(joint),
                f"The mixture's joint density of {where}, all components, on the same axes at every epoch; points in the last panel are "
                "the latents of this report's rows. Encoders move as well: an early density is of early latents.",
                "all components in one place, a component that runs away, or a last panel whose points lie beside the density.",
            ),
            Figure(
                tuple(copulas),
                f"The copula of {where} by itself, on the normal-score scale, at the same epochs.",
                "no change from the start, though the data depend: the copula never learned.",
            ),
        ),
    )


def _limits(mixtures: list[CopulaMixture], pair: tuple[int, int], j: int, z: Array) -> list[tuple[float, float]]:
    """Of both axes: three sd of every component with a weight, at any epoch."""
    limits = []
    for i, m in enumerate(pair):
        ends = [z[:, i].min(), z[:, i].max()] if len(z) else []
        for mixture in mixtures:
            there = mixture.marginal_log_weights(m).exp() > 0.01
            loc, scale = mixture.locs[m, there, j], mixture.scales[m, there, j]
            ends += [float((loc - 3 * scale).min()), float((loc + 3 * scale).max())]
        limits.append((float(min(ends)), float(max(ends))))
    return limits


def _joint(
    m: Material, mixture: CopulaMixture, pair: tuple[int, int], j: int, name: str, limits: list[tuple[float, float]], z: Array | None
) -> Picture:
    x, y = (np.linspace(*limit, _GRID) for limit in limits)
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), -1)).to(mixture.locs.dtype)
    with torch.no_grad():
        log_p = pair_mixture(mixture, pair, j).log_prob(grid[..., None]).double().numpy()
    with panel(f"Joint density of {m.pair_name(pair)}, dimension {j + 1}, {name}", size=(4.0, 3.4)) as drawn:
        axes = drawn.axes
        # Levels a factor apart below the highest: the same steps at every epoch, whatever the height.
        levels = log_p.max() + np.log([0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.contourf(x, y, log_p, levels=levels, cmap="Blues", alpha=0.7)
        axes.contour(x, y, log_p, levels=levels, colors=DARK, linewidths=0.5, linestyles="solid")
        if z is not None:
            rows = spread_rows(len(z), 600)
            axes.scatter(z[rows, 0], z[rows, 1], s=6, color=ORANGE, linewidths=0, alpha=0.6)
        axes.set(xlim=limits[0], ylim=limits[1])
        titled(axes, name, short(m.names[pair[0]]), short(m.names[pair[1]]))
    return drawn.picture


def _copula(m: Material, mixture: CopulaMixture, pair: tuple[int, int], j: int, name: str, tau: float) -> Picture:
    with panel(f"Copula of {m.pair_name(pair)}, dimension {j + 1}, {name}, tau {tau:+.2f}", size=(4.0, 3.6)) as drawn:
        contours(drawn.axes, pair_copula(mixture.copula, pair, j), "normal-score")
        drawn.axes.set_aspect("equal")
        a, b = (short(m.names[i], 18) for i in pair)
        titled(drawn.axes, f"{name}, tau {tau:+.2f}", f"s of {a}", f"s of {b}")
        drawn.axes.grid(visible=False)
    return drawn.picture

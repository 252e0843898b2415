"""Guides of the global sites against NUTS on the same latents: those of a run, held.

    python benchmarks/guides_and_nuts.py RUN --data MANIFEST [--guides normal,lowrank,fullrank,flow] [--chains 2] [--warmup 200]
        [--draws 300] [--rows 0] [--figure tau.png] [--chains-file chains.safetensors]

RUN is a fit with any guide. Its encoders stay as they are, latents of the training rows are one draw of q(z | x), and every guide is fitted
from the normal approximation at the mode (`refit_guide`); NUTS moves in the coordinates of that approximation. All face the same density,
p(sites, head, z_observed, y) at β = 1. Prints, for each guide: ELBO, k-hat, sd of every number (unconstrained) relative to NUTS (median,
least, greatest), the largest distance of a mean in NUTS's sd, and seconds. --figure: 90% intervals of tau. --chains-file keeps NUTS's
draws, and reads them if they are there. --rows: only so many training rows.
"""

import time
from pathlib import Path

import click
import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from safetensors.torch import load_file, save_file
from torch import Tensor

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.diagnostics.khat import khat
from cm2pyro.files import atomic
from cm2pyro.guides.globals import GLOBAL_GUIDES, GlobalGuide
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.mcmc import Potential, Values, sample_chains
from cm2pyro.inference.refit_guide import refit_guide

_DRAWS = 1000  # of each guide


def make(name: str, potential: Potential) -> GlobalGuide:
    return GLOBAL_GUIDES.get(name)(lambda: {site: pyro.sample(site, prior) for site, prior in potential.priors.items()})


def drawn(guide: GlobalGuide) -> list[Values]:
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        torch.manual_seed(1)
        return [{name: value.double() for name, value in guide().items()} for _ in range(_DRAWS)]


def nuts(potential: Potential, start: Values, chains: int, warmup: int, draws: int, kept: Path | None) -> tuple[Values, str]:
    if kept is not None and kept.exists():
        return load_file(kept), "read from its file"
    started = time.perf_counter()
    with click.progressbar(length=chains * (warmup + draws), label="NUTS") as bar:
        found = sample_chains(potential, start, chains, warmup, draws, progress=lambda *_: bar.update(1))
    if kept is not None:
        with atomic(kept) as temporary:
            save_file({name: value.contiguous() for name, value in found.values.items()}, temporary)
    return found.values, f"{sum(found.divergences)} divergent transitions, {time.perf_counter() - started:.0f} s"


def taus(potential: Potential, values: Values) -> Tensor:
    """(D, M, M) of one draw."""
    return potential.structure.build(values).copula.tau()


@click.command(help=__doc__)
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--guides", default="normal,lowrank,fullrank,flow", show_default=True)
@click.option("--chains", default=2, show_default=True)
@click.option("--warmup", default=200, show_default=True)
@click.option("--draws", default=300, show_default=True)
@click.option("--rows", default=0, help="Training rows; 0: all.")
@click.option("--figure", type=click.Path(path_type=Path))
@click.option("--chains-file", type=click.Path(path_type=Path))
def main(
    run: Path, data: Path, guides: str, chains: int, warmup: int, draws: int, rows: int, figure: Path | None, chains_file: Path | None
) -> None:
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)  # two guides in one process do not meet
    model = CM2.load(run)
    manifest = read_manifest(data)
    train = np.flatnonzero(manifest.frame["split"] == "train").tolist()[: rows or None]
    dataset = model.preparation.transform(manifest.take(train), labels=True)
    potential = frozen_potential(model.program, dataset, model.config.fit.seed, "guides_and_nuts.py")
    click.echo(f"{len(train)} training rows, {potential.size} numbers")
    start = model.program.values()
    values, said = nuts(potential, start, chains, warmup, draws, chains_file)
    free = torch.cat([potential.transforms[n].inv(values[n].double()).flatten(2) for n in potential.priors], -1)  # (C, S, P)
    ess, rhat = effective_sample_size(free), split_gelman_rubin(free)
    click.echo(f"NUTS: {said}; effective draws {ess.min():.0f} at least, R-hat {rhat.max():.3f} at most")
    flat = {name: value.double().flatten(0, 1) for name, value in values.items()}
    gold = free.flatten(0, 1)
    intervals = {"NUTS": torch.stack([taus(potential, {n: v[i] for n, v in flat.items()}) for i in range(len(gold))])}
    click.echo(f"\n{'guide':10}{'ELBO':>12}{'k-hat':>8}{'sd / NUTS':>11}{'least':>8}{'most':>8}{'mean off':>10}{'seconds':>9}")
    for name in guides.split(","):
        started = time.perf_counter()
        guide = make(name, potential)
        elbo = refit_guide([guide], potential, start)
        seconds = time.perf_counter() - started
        k = khat([guide], potential).k
        each = drawn(guide)
        x = torch.stack([potential.unconstrain(one) for one in each])
        ratio, off = x.std(0) / gold.std(0), ((x.mean(0) - gold.mean(0)).abs() / gold.std(0)).max()
        click.echo(f"{name:10}{elbo:12.1f}{k:8.2f}{ratio.median():11.2f}{ratio.min():8.2f}{ratio.max():8.2f}{off:10.2f}{seconds:9.0f}")
        intervals[name] = torch.stack([taus(potential, one) for one in each])
    if figure is not None:
        plot(intervals, model.names, figure)


def plot(intervals: dict[str, Tensor], names: list[str], path: Path) -> None:
    """90% intervals of tau, per pair in the latent dimension where NUTS has it strongest."""
    M = len(names)
    pairs = [(i, j) for i in range(M) for j in range(i + 1, M)]
    fig = Figure(figsize=(7, 0.25 * len(pairs) * (len(intervals) + 1) + 1), layout="constrained")
    axes = fig.subplots()
    for p, (i, j) in enumerate(pairs):
        d = int(intervals["NUTS"][:, :, i, j].mean(0).abs().argmax())
        for g, (name, tau) in enumerate(intervals.items()):
            low, middle, high = np.quantile(tau[:, d, i, j].numpy(), [0.05, 0.5, 0.95])
            y = -(p * (len(intervals) + 1) + g)
            axes.plot([low, high], [y, y], color=f"C{g}", linewidth=2, label=name if p == 0 else None)
            axes.plot([middle], [y], "o", color=f"C{g}", markersize=4)
    axes.set_yticks([-(p * (len(intervals) + 1) + len(intervals) / 2) for p in range(len(pairs))])
    axes.set_yticklabels([f"{names[i]} – {names[j]}" for i, j in pairs])
    axes.set_xlabel("Kendall's τ given the latents, 90% intervals")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    with atomic(path) as temporary:
        fig.savefig(temporary, dpi=110, format="png")


if __name__ == "__main__":
    main()

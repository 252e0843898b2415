"""Simulation-based calibration of NUTS and of the guides of the global sites on a small model, and coverage of their intervals.

    python benchmarks/sbc.py run --out sbc.jsonl [--locs apart] [--methods nuts,normal] [--simulations 200] [--first 2000]     resumable
    python benchmarks/sbc.py table sbc.jsonl [sbc-2.jsonl …] [--figure sbc.png]

M = 2 modalities, K = 2 components, D = 1, a Gaussian copula, 100 complete given latents, β = 1. The truth is drawn from the priors:
weights ~ Dirichlet(3), scales − 0.1 ~ LogNormal(−0.5, 0.5), correlation ~ LKJ(1), and by --locs
    apart          locs ~ Normal(∓2, 1): the prior orders the components, which seldom overlap;
    overlapping    locs ~ Normal(0, 2): nothing but the data tells components apart, and often they don't.
In truth and draws components are ordered by the first modality's location. NUTS: one chain, 200 iterations of warm-up, 500 draws,
target_accept 0.9. Guides: Trace_ELBO, 400 steps of Adam from the truth, 500 draws. Ranks are taken among every fifth draw: ranks
among draws that depend on one another pile up at both ends. A line is a simulation; files of different methods on the same seeds go
together in a table, and so do files of different seeds, but not of different priors.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.diagnostics.sbc import binomial_interval, plot_uniformity, uniformity
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.guides.globals import GLOBAL_GUIDES
from cm2pyro.inference.mcmc import Potential, Values, sample_chains
from cm2pyro.models.priors import site_priors

ROWS, WARMUP, DRAWS, THIN, STEPS = 100, 200, 500, 5, 400
STRUCTURE = MixtureStructure(modalities=2, dim=1, components=2)
LOCS = {
    "apart": {"dist": "Normal", "loc": [[[-2], [2]], [[-2], [2]]], "scale": 1},
    "overlapping": {"dist": "Normal", "loc": 0, "scale": 2},
}
METHODS = {"nuts": "NUTS", "normal": "mean-field guide", "lowrank": "low-rank guide", "flow": "flow guide"}


def priors(locs: str) -> dict[str, TorchDistribution]:
    """Site -> prior, with the locations' of that name."""
    given = {
        "weights": {"dist": "Dirichlet", "concentration": 3},
        "locs": LOCS[locs],
        "scales": {"dist": "LogNormal", "loc": -0.5, "scale": 0.5},
        "copula": {"dist": "LKJCholesky", "concentration": 1},
    }
    return site_priors(STRUCTURE, Priors.model_validate(given))


def quantities(values: Values) -> dict[str, Tensor]:
    """What is ranked, of values with any leading dimensions."""
    values = STRUCTURE.ordered(values)
    locs, scales = values[sites.LOCS][..., 0], values[sites.SCALES][..., 0]
    found = {"w_1": values[sites.WEIGHTS][..., 0]}
    for m in range(2):
        for k in range(2):
            found |= {f"mu_{m + 1}{k + 1}": locs[..., m, k], f"sigma_{m + 1}{k + 1}": scales[..., m, k]}
    return found | {"tau": tau(values[sites.COPULA])}


def tau(root: Tensor) -> Tensor:
    """Kendall's tau for the copula's site (..., 1, 2, 2)."""
    flat = root.reshape(-1, *root.shape[-3:])
    each = [STRUCTURE.copula.build({sites.COPULA: one}, one).tau()[..., 0, 1] for one in flat]
    return torch.stack(each).reshape(root.shape[:-3])


class Compiled(Potential):
    """The same function in a third of the time; compiled once for all simulations, whose data take the place of `z`."""

    def __init__(self, priors: dict[str, TorchDistribution]) -> None:
        pyro.enable_validation(False)  # its checks cannot be compiled; the bijections keep values in their supports
        blank = torch.zeros(ROWS, 2, 1, dtype=torch.float64)
        super().__init__(STRUCTURE, priors, blank, torch.ones(ROWS, 2, dtype=torch.bool))
        self._compiled = torch.compile(super().__call__, fullgraph=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self._compiled(x)


def simulate(seed: int, potential: Potential, methods: Sequence[str]) -> dict[str, object]:
    """One simulation: ranks of the truth among every fifth draw of each method, and whether the 90% interval of tau holds it."""
    torch.manual_seed(seed)
    truth = {name: prior.sample() for name, prior in potential.priors.items()}
    with torch.no_grad():
        potential.z = STRUCTURE.build(truth).rsample((ROWS,))
    true = quantities(truth)
    record: dict[str, object] = {"seed": seed, "truth": {name: float(value) for name, value in true.items()}}
    for method in methods:
        started = time.perf_counter()
        values, divergences = _nuts(potential, truth, seed) if method == "nuts" else _guide(method, potential, truth, seed)
        found = quantities(values)
        low, high = torch.quantile(found["tau"], found["tau"].new_tensor([0.05, 0.95])).tolist()
        record[method] = {
            "ranks": {name: int((found[name][::THIN] < true[name]).sum()) for name in true},
            "tau": [low, high],
            "covered": low <= float(true["tau"]) <= high,
            "divergences": divergences,
            "seconds": round(time.perf_counter() - started, 1),
        }
    return record


def _nuts(potential: Potential, truth: Values, seed: int) -> tuple[Values, int]:
    # The truth is itself a draw from the posterior; a start there saves a search and favours nothing that is ranked.
    found = sample_chains(potential, truth, chains=1, warmup=WARMUP, draws=DRAWS, seed=seed)
    return {name: value[0] for name, value in found.values.items()}, sum(found.divergences)


def _guide(name: str, potential: Potential, truth: Values, seed: int) -> tuple[Values, int]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)

    def model() -> Values:
        values = {name: pyro.sample(name, prior) for name, prior in potential.priors.items()}
        pyro.sample("z", potential.structure.build(values).expand([ROWS]).to_event(1), obs=potential.z)
        return values

    def sample_globals() -> Values:
        return {name: pyro.sample(name, prior) for name, prior in potential.priors.items()}

    guide = GLOBAL_GUIDES.get(name)(sample_globals)
    guide.start(truth)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.04, "lrd": 0.1 ** (1 / STEPS)}), Trace_ELBO())
    for _ in range(STEPS):
        svi.step()
    with torch.no_grad():
        drawn = [guide() for _ in range(DRAWS)]
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}, 0


@click.group()
def main() -> None:
    """See the head of this file."""


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--locs", type=click.Choice(list(LOCS)), default="apart", show_default=True, help="Prior of the locations.")
@click.option("--simulations", default=200, show_default=True)
@click.option("--first", default=2000, show_default=True, help="First seed, for a second process with a file of its own.")
@click.option("--methods", default="nuts,normal", show_default=True, help=f"Of {', '.join(METHODS)}.")
def run(out: Path, locs: str, simulations: int, first: int, methods: str) -> None:
    chosen = methods.split(",")
    if unknown := [name for name in chosen if name not in METHODS]:
        raise click.UsageError(f"--methods: unknown {unknown[0]!r}; expected some of {', '.join(METHODS)}")
    before = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if other := {record["locs"] for record in before} - {locs}:
        raise click.UsageError(f"--out: {out} has simulations with --locs {other.pop()}; name another file")
    done = {record["seed"] for record in before}
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    potential = Compiled(priors(locs))
    for seed in range(first, first + simulations):
        if seed not in done:
            record = {"locs": locs, **simulate(seed, potential, chosen)}
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            click.echo(f"{seed}: " + ", ".join(f"{name} {record[name]['seconds']} s" for name in chosen))  # type: ignore[index]


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--figure", type=click.Path(path_type=Path))
def table(files: tuple[Path, ...], figure: Path | None) -> None:
    records: dict[int, dict[str, Any]] = {}
    for path in files:
        for record in map(json.loads, path.read_text().splitlines()):
            records[record["seed"]] = records.get(record["seed"], {}) | record
    if len(mixed := {record["locs"] for record in records.values()}) > 1:
        raise click.UsageError(f"FILES: found simulations with --locs {' and '.join(sorted(mixed))}, expected one; give them apart")
    names = list(next(iter(records.values()))["truth"])
    runs = {method: mine for method in METHODS if (mine := [r[method] for r in records.values() if method in r])}
    found = {m: {name: uniformity([r["ranks"][name] for r in mine], DRAWS // THIN) for name in names} for m, mine in runs.items()}
    click.echo(", ".join(f"{METHODS[method]}: {len(mine)} simulations" for method, mine in runs.items()))
    if "nuts" in runs:
        some = sum(r["divergences"] > 0 for r in runs["nuts"])
        click.echo(f"divergent transitions of NUTS: {sum(r['divergences'] for r in runs['nuts'])}, in {some} simulations")
    click.echo(f"\n| quantity | {' | '.join(f'{METHODS[method]}: p | 50% | 90%' for method in runs)} |\n|{'---|' * (1 + 3 * len(runs))}")
    for name in names:
        each = [found[method][name] for method in runs]
        click.echo(f"| {name} | {' | '.join(f'{one.p:.3f} | {one.coverage[0.5]:.0%} | {one.coverage[0.9]:.0%}' for one in each)} |")
    limit = 0.05 / len(names)
    for method, mine in runs.items():
        failed = [name for name, one in found[method].items() if one.p < limit]
        least = min(one.p for one in found[method].values())
        verdict = f"not uniform: {', '.join(failed)}" if failed else "no quantity fails"
        click.echo(f"{METHODS[method]}: smallest p {least:.3f}, at 5% for all {len(names)} together the limit is {limit:.3f}: {verdict}")
        share = float(np.mean([r["covered"] for r in mine]))
        low, high = binomial_interval(share, len(mine))
        seconds = np.median([r["seconds"] for r in mine])
        click.echo(f"    90% intervals of tau hold it in {share:.1%} ({low:.1%} to {high:.1%}); median {seconds:.0f} s a fit")
    if figure is not None:
        plot_uniformity({METHODS[m]: found[m] for m in runs}, figure, f"Simulation-based calibration, {len(records)} simulations")


if __name__ == "__main__":
    main()

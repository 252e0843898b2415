"""Simulation-based calibration of NUTS and of the mean-field guide on a small model, and coverage of their intervals.

    python benchmarks/sbc.py run --out sbc.jsonl [--simulations 200] [--first 0]     resumable; one line a simulation
    python benchmarks/sbc.py table sbc.jsonl [sbc-2.jsonl …] [--figure sbc.png]

M = 2 modalities, K = 2 components, D = 1, a Gaussian copula, 50 complete given latents, β = 1. The truth is drawn from the priors:
weights ~ Dirichlet(3), locs ~ Normal(0, 2), scales − 0.1 ~ LogNormal(−0.5, 0.5), correlation ~ LKJ(1). In truth and draws components are
ordered by the first modality's location. NUTS: one chain, 100 iterations of warm-up, 400 draws. Guide: independent normals on
unconstrained values, Trace_ELBO, 400 steps of Adam from the truth, 400 draws. Ranks are taken among every fourth draw.
"""

import json
import time
from pathlib import Path

import click
import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.diagnostics.sbc import binomial_interval, plot_uniformity, uniformity
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.guides.globals import NormalGuide
from cm2pyro.inference.mcmc import Potential, Values, sample_chains
from cm2pyro.models.priors import site_priors

ROWS, WARMUP, DRAWS, THIN, STEPS = 50, 100, 400, 4, 400
STRUCTURE = MixtureStructure(modalities=2, dim=1, components=2)
PRIORS = Priors.model_validate(
    {
        "weights": {"dist": "Dirichlet", "concentration": 3},
        "locs": {"dist": "Normal", "loc": 0, "scale": 2},
        "scales": {"dist": "LogNormal", "loc": -0.5, "scale": 0.5},
        "copula": {"dist": "LKJCholesky", "concentration": 1},
    }
)
METHODS = ("nuts", "normal")


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

    def __init__(self) -> None:
        pyro.enable_validation(False)  # its checks cannot be compiled; the bijections keep values in their supports
        blank = torch.zeros(ROWS, 2, 1, dtype=torch.float64)
        super().__init__(STRUCTURE, site_priors(STRUCTURE, PRIORS), blank, torch.ones(ROWS, 2, dtype=torch.bool))
        self._compiled = torch.compile(super().__call__, fullgraph=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self._compiled(x)


def simulate(seed: int, potential: Potential) -> dict[str, object]:
    """One simulation: ranks of the truth among 100 draws of each method, and whether the 90% interval of tau holds it."""
    torch.manual_seed(seed)
    truth = {name: prior.sample() for name, prior in potential.priors.items()}
    with torch.no_grad():
        potential.z = STRUCTURE.build(truth).rsample((ROWS,))
    true = quantities(truth)
    record: dict[str, object] = {"seed": seed, "truth": {name: float(value) for name, value in true.items()}}
    for method, draw in (("nuts", _nuts), ("normal", _normal)):
        started = time.perf_counter()
        values, divergences = draw(potential, truth, seed)
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


def _normal(potential: Potential, truth: Values, seed: int) -> tuple[Values, int]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)

    def model() -> Values:
        values = {name: pyro.sample(name, prior) for name, prior in potential.priors.items()}
        pyro.sample("z", potential.structure.build(values).expand([ROWS]).to_event(1), obs=potential.z)
        return values

    def sample_globals() -> Values:
        return {name: pyro.sample(name, prior) for name, prior in potential.priors.items()}

    guide = NormalGuide(sample_globals)
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
@click.option("--simulations", default=200, show_default=True)
@click.option("--first", default=0, show_default=True, help="First seed, for a second process with a file of its own.")
def run(out: Path, simulations: int, first: int) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    done = {json.loads(line)["seed"] for line in out.read_text().splitlines()} if out.exists() else set()
    potential = Compiled()
    for seed in range(first, first + simulations):
        if seed not in done:
            record = simulate(seed, potential)
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            click.echo(f"{seed}: {record['nuts']['seconds']} s, {record['normal']['seconds']} s")  # type: ignore[index]


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--figure", type=click.Path(path_type=Path))
def table(files: tuple[Path, ...], figure: Path | None) -> None:
    records = {r["seed"]: r for path in files for r in map(json.loads, path.read_text().splitlines())}
    n, names = len(records), list(next(iter(records.values()))["truth"])
    found = {
        method: {name: uniformity([r[method]["ranks"][name] for r in records.values()], DRAWS // THIN) for name in names}
        for method in METHODS
    }
    click.echo(f"{n} simulations; divergent transitions of NUTS: {sum(r['nuts']['divergences'] for r in records.values())}")
    click.echo("\n| quantity | NUTS: p | 50% | 90% | mean-field guide: p | 50% | 90% |\n|---|---|---|---|---|---|---|")
    for name in names:
        cells = []
        for method in METHODS:
            one = found[method][name]
            cells += [f"{one.p:.3f}", f"{one.coverage[0.5]:.0%}", f"{one.coverage[0.9]:.0%}"]
        click.echo(f"| {name} | {' | '.join(cells)} |")
    limit = 0.05 / len(names)
    for method in METHODS:
        failed = [name for name, one in found[method].items() if one.p < limit]
        least = min(one.p for one in found[method].values())
        verdict = f"not uniform: {', '.join(failed)}" if failed else "no quantity fails"
        click.echo(f"{method}: smallest p {least:.3f}, at 5% for all {len(names)} together the limit is {limit:.3f}: {verdict}")
    for method in METHODS:
        share = float(np.mean([r[method]["covered"] for r in records.values()]))
        low, high = binomial_interval(share, n)
        seconds = np.median([r[method]["seconds"] for r in records.values()])
        click.echo(f"{method}: 90% intervals of tau hold it in {share:.1%} ({low:.1%} to {high:.1%}); median {seconds:.0f} s a fit")
    if figure is not None:
        panels = {"NUTS": found["nuts"], "Mean-field guide": found["normal"]}
        plot_uniformity(panels, figure, f"Simulation-based calibration, {n} simulations")


if __name__ == "__main__":
    main()

"""Where the copula itself pays, and where only the mixture does: families against independence, all else equal.

    python benchmarks/copula_regimes.py few-labels data/a/manifest.csv      # PhysioNet 2012, set A alone
    python benchmarks/copula_regimes.py few-complete data/a/manifest.csv
    python benchmarks/copula_regimes.py simulated
    python benchmarks/copula_regimes.py tails

Latents are given (aligned canonical axes of the summaries, or simulated), the mixture is fitted to all unlabelled rows and
the head to the labelled ones, with modality dropout in every row of the tables (benchmarks/frozen.py). Prints mean log-loss
and AUROC over seeds, and paired differences of the copula to each other row with 95% intervals over subjects and over seeds.
"""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import aligned
import click
import frozen
import numpy as np
import torch
from frozen import Mask, Run

from cm2pyro.data.missingness import hide
from cm2pyro.data.simulation import SimulationSettings, population

_DIM = 4  # canonical axes
_L2 = 10.0  # of 1, 10, 30: the best for nearly every row of the table on its folds 0 and 1, seeds 0 and 1; one value for all rows
_L2_SIMULATED = 1.0
_TESTED = 2000  # simulated test rows per seed
_CONFIG = Path(__file__).parents[1] / "configs" / "physionet2012.yaml"
_MASKS = ("natural", "mcar:0.5", "only:vitals", "only:labs", "only:gases")


def _table(title: str, runs: list[Run], bootstrap: int) -> None:
    """The first method is compared with all others."""
    click.echo(f"\n{title}: {len(runs)} fits, {sum({r.group: len(r.y) for r in runs}.values())} test rows")
    for method, ((loss, auroc), differences) in frozen.compared(runs, bootstrap).items():
        line = f"  {method:18}{loss:7.4f}{auroc:7.4f}"
        for name, d in zip(("log-loss", "AUROC"), differences or (), strict=False):
            (low, high), (least, most) = d.over_subjects, d.over_seeds
            line += f"   {name} {d.value:+.4f} ({low:+.4f} to {high:+.4f}; seeds {least:+.4f} to {most:+.4f})"
        click.echo(line)


@click.group()
def main() -> None:
    torch.set_num_threads(1)


def _some_incomplete(observed: Mask, rows: np.ndarray, share: float, rng: np.random.Generator) -> Mask:
    """Training rows keep all their modalities with probability `share`; the others lose one or two of vitals, labs, gases."""
    seen = observed.copy()
    for i in rows[rng.random(len(rows)) >= share]:
        seen[i, rng.permutation(3)[: rng.integers(1, 3)]] = False
    return seen


def _physionet(
    manifest: Path, shares: list[float], labels: list[int], families: list[str], components: list[int], folds: int, seeds: int
) -> Iterator[tuple[str, list[Run]]]:
    """Per share of complete rows, number of labels and mask: a title and the runs."""
    found: dict[tuple[float, int, str], list[Run]] = {key: [] for key in product(shares, labels, _MASKS)}
    for k, fold in enumerate(aligned.summaries(manifest, _CONFIG, folds)):
        train, test, y = fold["train"], fold["test"], fold["labels"]
        tested = dict.fromkeys(_MASKS, fold["observed"][test])
        tested |= {mask: hide(fold["data"].take(test), mask, 100 + k) for mask in _MASKS[1:]}
        for share in shares:
            observed = fold["observed"] if share == 1 else _some_incomplete(fold["observed"], train, share, np.random.default_rng(k))
            z = aligned.align([fold[name] for name in aligned.NAMES], observed, train, _DIM)
            specs = [(family, 3) for family in families] + [("independence", n) for n in components]
            mixtures = {f"{family} {n}": frozen.fit_mixture(z[train], observed[train], family, n) for family, n in specs}
            imputer = frozen.fit_imputer(z[train], observed[train])
            filled = {key: frozen.complete(mixtures[key[0]], z[test], tested[key[1]], 8, 1) for key in product(mixtures, _MASKS)}
            for n, seed in product(labels, range(seeds)):
                chosen = np.random.default_rng(1000 * k + seed).permutation(train)[:n]
                rows = frozen.with_dropout(z[chosen], observed[chosen], y[chosen], seed)
                heads = {name: frozen.ours(mixture, rows, _L2, 0, seed) for name, mixture in mixtures.items()}
                others = {"ridge imputation": frozen.ridge_filled(imputer, rows, _L2), "zero, indicators": frozen.zero_filled(rows, _L2)}
                for mask in _MASKS:
                    p = {name: head(*filled[name, mask]) for name, head in heads.items()}
                    p |= {name: other(z[test], tested[mask]) for name, other in others.items()}
                    found[share, n, mask].append(Run(k, seed, y[test], p))
            click.echo(f"fold {k}, {observed[train].all(1).sum()} of {len(train)} training rows complete", err=True)
    for (share, n, mask), runs in found.items():
        yield (f"{'' if share == 1 else f'{share:.0%} complete, '}{n} labels, test {mask}", runs)


def _list(kind: Callable[[str], float | int | str]) -> Callable[..., list]:
    return lambda _context, _parameter, text: [kind(part) for part in text.split(",")]


_bootstrap = click.option("--bootstrap", type=int, default=1000, show_default=True)
_seeds = click.option("--seeds", type=click.IntRange(2), default=5, show_default=True)
_folds = click.option("--folds", type=click.IntRange(1, 5), default=5, show_default=True, help="How many of the five folds to run.")
_components = click.option("--components", default="3,6,12", callback=_list(int), help="Of independence beside the copula's 3.")
_families = click.option("--families", default="gaussian", callback=_list(str))


@main.command("few-labels")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--labels", default="50,300", callback=_list(int))
@_families
@_components
@_folds
@_seeds
@_bootstrap
def few_labels(manifest: Path, labels: list, families: list, components: list, folds: int, seeds: int, bootstrap: int) -> None:
    """3,200 stays as they are, a few of them labelled; test stays lose modalities."""
    for title, runs in _physionet(manifest, [1.0], labels, families, components, folds, seeds):
        _table(title, runs, bootstrap)


@main.command("few-complete")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--shares", default="0.05,0.1,0.2", callback=_list(float))
@click.option("--labels", default="300", callback=_list(int))
@_families
@_components
@_folds
@_seeds
@_bootstrap
def few_complete(
    manifest: Path, shares: list, labels: list, families: list, components: list, folds: int, seeds: int, bootstrap: int
) -> None:
    """Few training stays have all modalities; the axes and the dependence are learned from what is left."""
    for title, runs in _physionet(manifest, shares, labels, families, components, folds, seeds):
        _table(title, runs, bootstrap)


@main.command()
@click.option("--rows", type=int, default=500, show_default=True, help="Training rows; 2,000 are tested per seed.")
@click.option("--changes", default="tau=0,tau=0.3,tau=0.6,tau=0.8,missing=0.2,labels=50", callback=_list(str), show_default=True)
@_seeds
@_bootstrap
def simulated(rows: int, changes: list, seeds: int, bootstrap: int) -> None:
    """Known truth, one setting changed at a time from tau 0.6, half missing, 200 labels."""
    base = {"tau": 0.6, "missing": 0.5, "labels": 200}
    for change in changes:
        key, value = change.split("=")
        s = base | {key: float(value)}
        truth = population(SimulationSettings(tau=s["tau"], missing=0))
        runs = []
        for seed in range(seeds):
            z = truth.draw_latents(rows + _TESTED, seed)
            rng = np.random.default_rng(seed)
            y = (rng.random(len(z)) < truth.probabilities(z)[:, 1]).astype(int)
            observed = rng.random((len(z), 3)) >= s["missing"]
            specs = [("gaussian", 3), ("independence", 3), ("independence", 6)]
            runs.append(_simulated_run(truth.standardised(z), observed, y, rows, int(s["labels"]), specs, 0, seed))
        _table(change, runs, bootstrap)


def _simulated_run(
    z: np.ndarray, observed: Mask, y: np.ndarray, train: int, labels: int, specs: list[tuple[str, int]], layers: int, seed: int
) -> Run:
    """The first `train` rows train, `labels` of them labelled; the others are tested."""
    rows = frozen.with_dropout(z[:labels], observed[:labels], y[:labels], seed)
    run = Run(seed, seed, y[train:])
    for family, K in specs:
        mixture = frozen.fit_mixture(z[:train], observed[:train], family, K, seed)
        head = frozen.ours(mixture, rows, _L2_SIMULATED, layers, seed)
        run.p[f"{family} {K}"] = head(*frozen.complete(mixture, z[train:], observed[train:], 8, 1))
    imputer = frozen.fit_imputer(z[:train], observed[:train])
    run.p["ridge imputation"] = frozen.ridge_filled(imputer, rows, _L2_SIMULATED)(z[train:], observed[train:])
    run.p["zero, indicators"] = frozen.zero_filled(rows, _L2_SIMULATED)(z[train:], observed[train:])
    return run


@main.command()
@click.option("--rows", type=int, default=1000, show_default=True, help="Training rows, all labelled; 2,000 are tested per seed.")
@click.option("--truths", default="gumbel,gaussian", callback=_list(str))
@click.option("--tau", type=float, default=0.5, show_default=True)
@_seeds
@_bootstrap
def tails(rows: int, truths: list, tau: float, seeds: int, bootstrap: int) -> None:
    """One cluster, one dimension, an outcome of joint extremes; half of the rows show one modality of three."""
    for family in truths:
        truth = population(SimulationSettings(family=family, tau=tau, components=1, dim=1, missing=0))
        runs = []
        for seed in range(seeds):
            z = truth.standardised(truth.draw_latents(rows + _TESTED, seed))
            rng = np.random.default_rng(seed)
            extreme = np.clip(z[:, :, 0] - 1.0, 0, None).sum(1)
            y = (rng.random(len(z)) < 1 / (1 + np.exp(4.0 - 2.5 * extreme))).astype(int)
            observed = np.ones((len(z), 3), dtype=bool)
            observed[rng.random(len(z)) < 0.5, 1:] = False
            specs = [(family, 1), *((other, 1) for other in ("gumbel", "gaussian", "independence") if other != family), ("independence", 4)]
            runs.append(_simulated_run(z, observed, y, rows, rows, specs, 1, seed))
        _table(f"truth {family}, tau {tau:g}, prevalence {np.mean([r.y.mean() for r in runs]):.2f}", runs, bootstrap)


if __name__ == "__main__":
    main()

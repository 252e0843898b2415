"""Imputing latents where the truth is known but hidden: what each treatment of missing modalities draws.

    python benchmarks/imputation.py simulated [--seeds 5] [--samples 1000]
    python benchmarks/imputation.py physionet data/a/manifest.csv [--folds 5] [--set fit.epochs=20]...

simulated: latents are given, from a known copula mixture, with gaps in training; test rows are complete, one or two modalities are
hidden. physionet: set A of the Challenge 2012, decoders on; a modality that a held-out stay has is hidden. The truth is what its own
encoder says: a draw of q(z | x), of which the prior is a model, and beside it the location of q, less spread than what the prior
describes.

Two fits each, from the same rows: with `guide.missing: conditional`, whose mixture serves conditional, marginal and mean, and with
`amortized`. Given latents have the same units in both. Behind learned encoders every fit has latents of its own: there each fit is its own
comparison, in sd of its hidden latents.

Energy score of S draws x of a hidden vector z (Gneiting & Raftery 2007), unbiased: mean |x − z| − ½ mean over pairs |x − x'|; lower is
better. R² is that of the draws' mean, over hidden coordinates. Intervals: percentile bootstrap of the paired difference over rows,
within seeds.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from physionet2012_folds import divided, fold_numbers

from cm2pyro import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.simulation import SimulationSettings, draw, population
from cm2pyro.data.splits import assign_splits
from cm2pyro.diagnostics.metrics_imputation import energy_score, explained
from cm2pyro.guides.imputation import TREATMENTS

_DRAWS = 100
_TREATMENTS = ("conditional", "amortized", "marginal", "mean")
_SIMULATED = (("gaussian", 0.3, "mcar"), ("gaussian", 0.7, "mcar"), ("clayton", 0.5, "mcar"), ("gaussian", 0.5, "mnar"))
Scores = dict[str, tuple[np.ndarray, float]]  # treatment -> energy score of every row, R²


def score(model: CM2, dataset: Dataset, hidden: tuple[int, ...], treatments: Iterable[str], against: str = "draw") -> Scores:
    """Hide these modalities of rows that have them, and at least one other, and compare draws with what was hidden.

    Args:
        against: draw or location, of the hidden modality's own q(z | x); the same for given latents.
    """
    program = model.program.eval()
    guide, m = program.guide, list(hidden)
    keep = torch.ones(len(dataset.names), dtype=torch.bool)
    keep[m] = False
    rows = (dataset.observed[:, m].all(1) & dataset.observed[:, keep].any(1)).nonzero()[:, 0]
    batch = dataset.batch(rows)
    found: Scores = {}
    torch.manual_seed(0)
    with torch.no_grad():
        mixture = program.mixture()
        loc, scale = guide.represent(batch)
        hidden_z = guide.draw_observed(loc, scale, torch.randn_like(loc)) if against == "draw" else loc
        truth = hidden_z[:, m].flatten(1)
        given = not bool(scale.any())
        units = torch.ones_like(truth[0]) if given else truth.std(0)  # of learned latents: every fit has its own
        represented = guide.represent(batch.hiding(batch.observed & keep))
        observed = (batch.observed & keep).expand(_DRAWS, *batch.observed.shape)
        z = guide.draw_observed(*represented, torch.randn(_DRAWS, *loc.shape))
        for name in treatments:
            treat = guide.treat if name == guide.missing else TREATMENTS.get(name)(len(dataset.names), program.structure.dim)
            filled, _ = treat(mixture, z, observed, None, represented)
            draws = filled[:, :, m].flatten(2)[: 1 if name in ("mean", "zero") else _DRAWS] / units
            found[name] = energy_score(draws, truth / units).double().numpy(), explained(draws.mean(0), truth / units)
    return found


def interval(differences: list[np.ndarray], resamples: int = 2000) -> tuple[float, float, float]:
    """Mean and 95% interval of the mean over seeds; differences: of the rows of every seed."""
    random = np.random.default_rng(0)
    means = np.mean([d[random.integers(0, len(d), (resamples, len(d)))].mean(1) for d in differences], 0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean([d.mean() for d in differences])), float(low), float(high)


def report(label: str, scores: list[Scores]) -> None:
    """One line of a table: energy scores and R², means over seeds, and differences to the first treatment of the fit."""
    names = list(scores[0])
    cells = [f"{np.mean([s[name][0].mean() for s in scores]):.3f} / {np.mean([s[name][1] for s in scores]):.3f}" for name in names]
    first = names[0]
    for other in names[1:]:
        mean, low, high = interval([s[other][0] - s[first][0] for s in scores])
        cells.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
    click.echo(f"| {label} | {' | '.join(cells)} |")


def heading(first: str, names: Iterable[str]) -> None:
    names = list(names)
    columns = [first, *(f"{name}: ES / R²" for name in names), *(f"{name} − {names[0]}" for name in names[1:])]
    click.echo(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


@click.group(help=__doc__)
def main() -> None:
    torch.set_num_threads(1)


def frame(latents: np.ndarray, observed: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    """Latents (n, M, D) as a manifest with the columns of configs/simulated-embedding.yaml."""
    n = len(latents)
    ids = [f"s{i}" for i in range(n)]
    split = np.where(np.arange(n) % 10 == 0, "val", "train")
    columns: dict[str, Any] = {"sample_id": ids, "subject_id": ids, "split": split, "label": label.astype(str)}
    for m, name in enumerate(("series", "image", "note")):
        columns[f"latent_{name}"] = [
            json.dumps(row) if there else "" for row, there in zip(latents[:, m].tolist(), observed[:, m], strict=True)
        ]
    return pd.DataFrame(columns)


@main.command()
@click.option("--seeds", default=5, show_default=True)
@click.option("--samples", default=1000, show_default=True)
@click.option("--case", "cases", type=click.IntRange(0, len(_SIMULATED) - 1), multiple=True, help="Rows of the table; by default all.")
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/simulated-embedding.yaml"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C")
def simulated(seeds: int, samples: int, cases: tuple[int, ...], config: Path, overrides: tuple[str, ...]) -> None:
    """Given latents of three modalities, 30% of each missing in training; as many complete test rows."""
    patterns = {"one": list(itertools.combinations(range(3), 1)), "two": list(itertools.combinations(range(3), 2))}
    heading("copula, τ, gaps in training, hidden", _TREATMENTS)
    for family, tau, mechanism in [_SIMULATED[i] for i in cases or range(len(_SIMULATED))]:
        started = time.perf_counter()
        rows: dict[str, list[Scores]] = {kind: [] for kind in patterns}
        settings = SimulationSettings(samples=samples, family=family, tau=tau, mechanism=mechanism)
        truth = population(settings)
        for seed in range(seeds):
            train = draw(dataclasses.replace(settings, seed=seed), truth)
            test = draw(dataclasses.replace(settings, seed=10_000 + seed), truth)
            fits = {}
            for missing in ("conditional", "amortized"):
                changes = (f"guide.missing={missing}", f"prior.copula.family={family}", f"fit.seed={seed}", *overrides)
                fits[missing] = CM2.from_config(config, overrides=changes).fit(frame(train.latents, train.observed, train.label))
            complete = frame(test.latents, np.ones_like(test.observed), test.label)
            for kind, sets in patterns.items():
                each = []
                for hidden in sets:
                    both: Scores = {}
                    for missing, model in fits.items():
                        dataset = model.preparation.transform(read_manifest(complete), labels=False)
                        both |= score(model, dataset, hidden, [missing] if missing == "amortized" else ["conditional", "marginal", "mean"])
                    each.append(both)
                # Of a row the mean over what is hidden: the rows are what is resampled.
                rows[kind].append(
                    {name: (np.mean([e[name][0] for e in each], 0), float(np.mean([e[name][1] for e in each]))) for name in _TREATMENTS}
                )
        for kind in patterns:
            report(f"{family}, {tau}, {mechanism}, {kind}", rows[kind])
        click.echo(f"{family} {tau} {mechanism}: {time.perf_counter() - started:.0f} s", err=True)


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--folds", type=click.IntRange(1, 5), default=5, show_default=True)
@click.option("--fit", "fits", type=click.Choice(["conditional", "amortized"]), multiple=True, default=("conditional", "amortized"))
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C")
def physionet(manifest: Path, folds: int, fits: tuple[str, ...], config: Path, overrides: tuple[str, ...]) -> None:
    """Learned latents with decoders; five folds over subjects, one fit of each kind a fold."""
    read = read_manifest(manifest)
    fold_of = fold_numbers(read.subjects)
    found: dict[tuple[str, str, str], list[Scores]] = {}
    for fold in range(folds):
        others = [subject for subject in fold_of if fold_of[subject] != fold]
        split_of = assign_splits(others, {"train": 0.8, "val": 0.2}, fold)
        with divided(read, [split_of.get(subject, "test") for subject in read.subjects], f"imputation{fold}") as inside:
            for missing in fits:
                started = time.perf_counter()
                changes = ("decoders.kind=normal", f"guide.missing={missing}", f"fit.seed={fold}", *overrides)
                model = CM2.from_config(config, overrides=changes).fit(inside)
                whole = read_manifest(inside)
                dataset = model.preparation.transform(whole.take(whole.rows("test")), labels=False)
                names = (
                    ["conditional", "marginal", "mean"] if missing == "conditional" else ["amortized", "conditional", "marginal", "mean"]
                )
                for against, (m, name) in itertools.product(("draw", "location"), enumerate(model.names)):
                    found.setdefault((missing, against, name), []).append(score(model, dataset, (m,), names, against))
                click.echo(f"fold {fold}, {missing}: {time.perf_counter() - started:.0f} s", err=True)
    for missing, against in itertools.product(fits, ("draw", "location")):
        kinds = [key for key in found if key[:2] == (missing, against)]
        heading(f"hidden (fit with {missing}, against the {against})", found[kinds[0]][0])
        for key in kinds:
            report(key[2], found[key])


if __name__ == "__main__":
    main()

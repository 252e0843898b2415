"""Cross-validation on set A of the PhysioNet Challenge 2012: how the values of configs/physionet2012.yaml were chosen.

    python benchmarks/physionet2012_cv.py data/a/manifest.csv [--folds 5] [--seeds 1] [--missing only:vitals]... [--set fit.beta=1e-4]...

Fixed folds over subjects; each fold is only scored. Where `fit.validation` is above 0, that share of the other subjects stops the
fit. Prints mean and sd over folds of the mean over seeds, and of the mean of the seeds' probabilities. Set B is never read.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from physionet2012_folds import FOLDS, divided, fold_of_rows

from cm2pyro import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.missingness import hide
from cm2pyro.diagnostics.metrics import evaluate
from cm2pyro.inference.predict import predict

_DRAWS = 50
_APART = 1000  # between seeds of one fold: more than an ensemble takes
_METRICS = ("auroc", "auprc", "log_loss")
Matrix = NDArray[np.float64]


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--folds", type=click.IntRange(1, FOLDS), default=FOLDS, show_default=True, help="How many of the five folds to run.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Fits a fold.")
@click.option("--missing", multiple=True, metavar="MECHANISM", help="Score under this mask too, such as mcar:0.7@labs,gases.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the config.")
def main(manifest: Path, config: Path, folds: int, seeds: int, missing: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    read = read_manifest(manifest)
    fold_of = fold_of_rows(read)
    masks = ("as observed", *missing)
    single, averaged = np.zeros((len(masks), folds, seeds, len(_METRICS))), np.zeros((len(masks), folds, len(_METRICS)))
    for fold in range(folds):
        split = np.where(fold_of == fold, "test", "train")
        probabilities: list[list[Matrix]] = [[] for _ in masks]
        for seed in range(seeds):
            started = time.perf_counter()
            with divided(read, split, f"fold{fold}") as inside:
                model = CM2.from_config(config, overrides=(*overrides, f"fit.seed={fold + _APART * seed}")).fit(inside)
                rows = read_manifest(inside)
                test = model.preparation.transform(rows.take(rows.rows("test")), labels=True)
            for j, mask in enumerate(masks):
                seen = test.observed.numpy() if j == 0 else hide(test, mask, fold)
                predicted = predict(model.programs, test.with_observed(torch.from_numpy(seen)), _DRAWS, seed).mean[:, 1]
                probabilities[j].append(predicted)
                single[j, fold, seed] = _scores(test.labels.numpy(), predicted, test.subjects)
            last = model.history[-1]
            components = float(np.mean(list(last["effective_components"].values())))
            click.echo(
                f"fold {fold}, seed {seed}: AUROC {single[0, fold, seed, 0]:.4f}, {last['epoch']} epochs, effective components "
                f"{components:.1f}, KL {last['kl']:.0f} nats ({time.perf_counter() - started:.0f} s)",
                err=True,
            )
        for j, members in enumerate(probabilities):
            averaged[j, fold] = _scores(test.labels.numpy(), np.mean(members, 0), test.subjects)
    click.echo(" ".join(overrides) or "as shipped")
    for j, mask in enumerate(masks):
        click.echo(f"  {mask}: {_line(single[j].mean(1))}")
        if seeds > 1:
            click.echo(f"  {mask}, mean of {seeds}: {_line(averaged[j])}")


def _scores(labels: NDArray[np.int64], probability: Matrix, subjects: tuple[str, ...]) -> list[float]:
    found = evaluate(labels, probability, subjects, np.ones((len(labels), 1), dtype=bool), ("all",), 0)
    return [found[metric]["value"] for metric in _METRICS]


def _line(scores: Matrix) -> str:
    """scores (folds, 3)."""
    mean, sd = scores.mean(0), scores.std(0, ddof=1) if len(scores) > 1 else np.zeros(3)
    return f"AUROC {mean[0]:.4f} ± {sd[0]:.4f}, AUPRC {mean[1]:.4f}, log-loss {mean[2]:.4f}"


if __name__ == "__main__":
    main()

"""Cross-validation on set A of the PhysioNet Challenge 2012: how the values of configs/physionet2012.yaml were chosen.

    python benchmarks/physionet2012_cv.py data/physionet2012/manifest.csv [--folds 5] [--set fit.beta=1e-4]...

Fixed folds over subjects. In each, a fifth of the training subjects stops the fit early and the fold itself is only
scored. Prints mean and sd over folds. Set B is never read.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch

from cm2pyro import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.splits import assign_splits

_FOLDS = 5


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--folds", type=click.IntRange(1, _FOLDS), default=_FOLDS, show_default=True, help="How many of the five folds to run.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the config.")
def main(manifest: Path, config: Path, folds: int, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    read = read_manifest(manifest)
    subjects = sorted(set(read.subjects))
    fold_of = dict(zip(subjects, np.random.default_rng(2012).permutation(len(subjects)) % _FOLDS, strict=True))
    rows = []
    for fold in range(folds):
        started = time.perf_counter()
        others = [subject for subject in subjects if fold_of[subject] != fold]
        split_of = assign_splits(others, {"train": 0.8, "val": 0.2}, fold)
        frame = read.frame.assign(split=[split_of.get(subject, "test") for subject in read.subjects])
        inside = read.root / f".fold{fold}.csv"  # tables are found beside the manifest
        frame.to_csv(inside, index=False)
        try:
            model = CM2.from_config(config, overrides=(*overrides, f"fit.seed={fold}")).fit(inside)
            test = model.evaluate(inside, bootstrap=0, draws=50)
        finally:
            inside.unlink()
        values = test.metrics
        best = min(model.history, key=lambda record: record["val_log_loss"])
        components = float(np.mean(list(best["effective_components"].values())))
        rows.append(
            [values["auroc"]["value"], values["auprc"]["value"], values["log_loss"]["value"], best["epoch"], components, best["kl"]]
        )
        click.echo(f"fold {fold}: AUROC {rows[-1][0]:.4f} ({time.perf_counter() - started:.0f} s)", err=True)
    mean, sd = np.mean(rows, 0), np.std(rows, 0, ddof=1) if len(rows) > 1 else np.zeros(6)
    click.echo(
        f"{' '.join(overrides) or 'as shipped'}: AUROC {mean[0]:.4f} ± {sd[0]:.4f}, AUPRC {mean[1]:.4f}, log-loss {mean[2]:.4f}, "
        f"best epoch {mean[3]:.0f}, effective components {mean[4]:.1f}, KL {mean[5]:.0f} nats"
    )


if __name__ == "__main__":
    main()

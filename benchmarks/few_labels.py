"""Few labels, many stays: whether stays without a label and decoders of pooled features help.

    python benchmarks/few_labels.py data/a/manifest.csv [--labels 100] [--labels 300] [--folds 5] [--weight 1e-3] [--set fit.beta=1e-4]...

Set A of the PhysioNet Challenge 2012, five folds over subjects: of the other four folds' stays (3,200) a few, drawn at random, keep
their label. Four fits a fold: with decoders and without, on the labelled stays alone and on all. No stopping rule, since it would need
labels: every fit takes the same number of steps and predicts with its averaged weights. Batches of labelled stays alone are smaller, and
the scaling of the inputs is learned from all stays in every fit. Prints AUROC and log-loss on the held-out fold, mean and sd over folds.
Set B is never read.
"""

import math
import time
from pathlib import Path

import click
import numpy as np
import torch
from physionet2012_folds import fold_of_rows

from cm2pyro import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.inference.fit import Trainer
from cm2pyro.inference.program import Program
from cm2pyro.inference.validate import validate

_KINDS = tuple((decoders, rows) for decoders in ("none", "normal") for rows in ("labelled", "all"))


@click.command(help=__doc__)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--labels", "counts", multiple=True, type=int, default=(100, 300), show_default=True)
@click.option("--folds", type=click.IntRange(1, 5), default=5, show_default=True)
@click.option("--steps", default=300, show_default=True, help="Optimiser steps of every fit.")
@click.option("--weight", default=1e-3, show_default=True, help="Of the decoders.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C")
def main(manifest: Path, config: Path, counts: tuple[int, ...], folds: int, steps: int, weight: float, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    read = read_manifest(manifest)
    fold = fold_of_rows(read)
    found: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    for f in range(folds):
        reader = CM2.from_config(config)
        train, test = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        whole = reader.preparation.fit(read, train)
        for count in counts:
            kept = np.random.default_rng(f).permutation(train)[:count]
            blank = torch.full_like(whole.labels, -1)
            blank[kept] = whole.labels[kept]
            few = Dataset(whole.names, whole.inputs, whole.observed, blank, whole.ids, whole.subjects)
            for decoders, rows in _KINDS:
                started = time.perf_counter()
                used = few.take(train if rows == "all" else kept)
                size = 128 if rows == "all" else 32
                epochs = math.ceil(steps / math.ceil(len(used) / size))
                changes = (f"decoders.kind={decoders}", f"decoders.weight={weight}", f"fit.seed={f}", f"fit.batch_size={size}")
                own = CM2.from_config(config, overrides=(*changes, f"fit.epochs={epochs}", "fit.warmup=0", *overrides))
                torch.manual_seed(f)
                shapes = {name: kind.shapes() for name, kind in reader.preparation.kinds.items()}
                program = Program(own.config, shapes, 2)
                trainer = Trainer(own.config, program, used, whole.take([]), None)
                trainer.start()
                trainer.run()
                log_loss, auroc = validate(program, whole.take(test), f)
                values = (math.nan if auroc is None else auroc, math.nan if log_loss is None else log_loss)
                found.setdefault((count, decoders, rows), []).append(values)
                click.echo(
                    f"fold {f}, {count} labels, decoders {decoders}, {rows}: AUROC {values[0]:.4f}, log-loss {values[1]:.4f}, "
                    f"{time.perf_counter() - started:.0f} s",
                    err=True,
                )
    click.echo(f"{' '.join(overrides)} weight {weight:g}, {folds} folds")
    click.echo("| labels | decoders | rows | AUROC | log-loss |\n|---|---|---|---|---|")
    for (count, decoders, rows), of_folds in found.items():
        mean, sd = np.mean(of_folds, 0), np.std(of_folds, 0, ddof=1) if len(of_folds) > 1 else np.zeros(2)
        click.echo(f"| {count} | {decoders} | {rows} | {mean[0]:.4f} ± {sd[0]:.4f} | {mean[1]:.4f} ± {sd[1]:.4f} |")


if __name__ == "__main__":
    main()

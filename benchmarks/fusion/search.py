"""The small search of each method's own options: cross-validation on the training data alone, the same number of trials for each.

    python benchmarks/fusion/search.py A/manifest.csv [--folds 5] [--seeds 1] [--methods concat,medfuse] [--config CONFIG]

Prints the mean log-loss over folds and seeds of every trial, modalities as observed; the least is chosen, by hand, in methods.py.
Networks then try fewer and more passes over the rows with it, which is what mattered most in the search for ours.
The folds are those of table.py, and each fit stops on the same validation rows. What all methods share (the encoders, the section
`fit`) is not searched here, and neither is `ours`: its values are those of the config.
"""

import sys
from pathlib import Path

import click
import numpy as np
import torch

# Run as a file, the folder of this file is where imports begin; they begin at the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2]) if __name__ == "__main__" else sys.path[0]

from benchmarks.fusion.base import Options  # noqa: E402
from benchmarks.fusion.folds import Fold, divide, labelled, make_fold  # noqa: E402
from benchmarks.fusion.methods import NETS, check_method, fit_method, trials  # noqa: E402
from cm2pyro.config import Config  # noqa: E402
from cm2pyro.data.manifest import read_manifest  # noqa: E402
from cm2pyro.diagnostics.metrics import evaluate  # noqa: E402
from cm2pyro.errors import CM2Error, ConfigError  # noqa: E402

_EPOCHS = (8, 20)  # beside those of the config


@click.command(help=__doc__)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--folds", type=int, default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--methods", default=",".join([*NETS, "boosting"]), show_default=True)
def main(manifest: Path, config_path: Path, folds: int, seeds: int, methods: str) -> None:
    torch.set_num_threads(1)
    try:
        search(manifest, Config.from_file(config_path), folds, seeds, methods.split(","))
    except CM2Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def search(path: Path, config: Config, folds: int, seeds: int, methods: list[str]) -> None:
    """Print a line per method and trial."""
    for method in methods:
        check_method(method, tuple(config.modalities))
    manifest = read_manifest(path)
    rows = labelled(manifest, config)
    parts = [make_fold(config, fitting, rows.take(held)) for fitting, held in divide(manifest, rows, folds, config.fit.validation)]
    for method in methods:
        same = {"epochs": config.fit.epochs} if method in NETS else {}
        tried = [(score(method, options | same, parts, seeds), options) for options in trials(method)]
        if method in NETS:
            best = min(tried, key=lambda trial: trial[0])[1]
            for epochs in _EPOCHS:
                score(method, best | {"epochs": epochs}, parts, seeds)


def score(method: str, options: Options, parts: list[Fold], seeds: int) -> float:
    """Mean log-loss over folds and seeds; prints it."""
    found = []
    for fold in parts:
        seen, names = fold.test.observed.numpy(), fold.names
        for seed in range(seeds):
            p = fit_method(method, fold, seed, options)(seen)
            scores = evaluate(fold.test.labels.numpy(), p, fold.test.subjects, seen, names, bootstrap=0)
            found.append([scores["log_loss"]["value"], scores["auroc"]["value"]])
    loss, auroc = np.mean(found, 0)
    click.echo(f"{method} {options}: log-loss {loss:.4f}, AUROC {auroc:.4f}")
    return float(loss)


if __name__ == "__main__":
    main()

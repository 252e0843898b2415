"""COVID-19 against other findings from X-ray, note and bedside values: how configs/covid-cxr.yaml was chosen, and what it gives.

    cm2pyro prepare covid-cxr --records covid_cxr --out data/covid
    cm2pyro prepare covid-cxr --records covid_cxr --out data/covid-named --no-blank
    python benchmarks/covid_cxr.py data/covid --cv [--set fit.beta=1e-3]...
    python benchmarks/covid_cxr.py data/covid data/covid-named

With `--cv` three fixed folds over the patients of `train` and `val`, alike in their shares of COVID-19; of the patients outside a fold a
fifth stops the fit. Test rows are never scored. Without it: fits on `train` with several seeds, `val` stops them; the mean AUROC on `test`
with its sd over seeds, and AUROC and log-loss with 95% intervals (bootstrap over patients) of the mean of their predictions.
"""

import time
from pathlib import Path
from tempfile import NamedTemporaryFile

import click
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from cm2pyro import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.missingness import hide
from cm2pyro.diagnostics.metrics import evaluate
from cm2pyro.inference.predict import predict

_FOLDS, _DRAWS, _CONFIG = 3, 100, Path("configs/covid-cxr.yaml")
Scores = dict[str, NDArray[np.float64]]


def _fit(config: Path, overrides: tuple[str, ...], seed: int, path: Path) -> tuple[Dataset, Scores]:
    """The test rows of a manifest, and their probability of COVID-19 from all modalities, without each, and from each alone."""
    started = time.perf_counter()
    model = CM2.from_config(config, overrides=(*overrides, f"fit.seed={seed}")).fit(path)
    fitted = time.perf_counter()
    manifest = read_manifest(path)
    rows = model.preparation.transform(manifest.take(manifest.rows("test")), labels=True)
    scores = {}
    for mechanism in ("all", *(f"{kind}:{name}" for kind in ("without", "only") for name in model.names)):
        mask = rows.observed.numpy() if mechanism == "all" else hide(rows, mechanism, seed)
        scores[mechanism] = predict(model.programs, rows.with_observed(torch.from_numpy(mask)), _DRAWS, seed).mean[:, 1]
    best = min(model.history, key=lambda record: record["val_log_loss"])
    components = np.mean(list(best["effective_components"].values()))
    click.echo(
        f"  seed {seed}: best epoch {best['epoch']} of {len(model.history)}, effective components {components:.1f}, "
        f"KL {best['kl']:.0f} nats; fit {fitted - started:.0f} s, {len(scores)} predictions {time.perf_counter() - fitted:.0f} s",
        err=True,
    )
    return rows, scores


def _metrics(rows: Dataset, score: NDArray[np.float64], bootstrap: int = 0) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = evaluate(rows.labels.numpy(), score, rows.subjects, rows.observed.numpy(), rows.names, bootstrap)
    return values


def cross_validate(folder: Path, config: Path, overrides: tuple[str, ...]) -> None:
    """Print mean and sd over folds."""
    read = read_manifest(folder / "manifest.csv")
    frame = read.take([*read.rows("train"), *read.rows("val")]).frame
    labels, subjects = frame["label"].to_numpy(), frame["subject_id"].to_numpy()
    found: dict[str, list[tuple[float, float]]] = {}
    for fold, (others, inside) in enumerate(StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=19).split(labels, labels, subjects)):
        _, stop = next(StratifiedGroupKFold(5, shuffle=True, random_state=fold).split(others, labels[others], subjects[others]))
        split = np.full(len(frame), "train", dtype=object)
        split[inside], split[others[stop]] = "test", "val"
        with NamedTemporaryFile(suffix=".csv", dir=folder) as beside:  # pictures and tables are found beside the manifest
            frame.assign(split=split).to_csv(beside.name, index=False)
            rows, scores = _fit(config, overrides, fold, Path(beside.name))
        for name, score in scores.items():
            metrics = _metrics(rows, score)
            found.setdefault(name, []).append((metrics["auroc"]["value"], metrics["log_loss"]["value"]))
    click.echo(" ".join(overrides) or str(config))
    for name, pairs in found.items():
        (auroc, log_loss), sd = np.mean(pairs, 0), np.std(pairs, 0, ddof=1)
        click.echo(f"  {name:15} AUROC {auroc:.3f} ± {sd[0]:.3f}, log-loss {log_loss:.3f}")


def measure(folder: Path, config: Path, overrides: tuple[str, ...], seeds: int) -> None:
    """Print what fits on `train` give on `test`."""
    fits = [_fit(config, overrides, seed, folder / "manifest.csv") for seed in range(seeds)]
    rows = fits[0][0]
    click.echo(f"{folder}: {len(rows)} test rows of {len(set(rows.subjects))} patients")
    for name in fits[0][1]:
        single = [_metrics(rows, scores[name])["auroc"]["value"] for _, scores in fits]
        metrics = _metrics(rows, np.mean([scores[name] for _, scores in fits], 0), bootstrap=1000)
        shown = (
            f"{key} {metrics[key]['value']:.3f} ({metrics[key]['low']:.3f}–{metrics[key]['high']:.3f})" for key in ("auroc", "log_loss")
        )
        click.echo(f"  {name:15} AUROC {np.mean(single):.3f} ± {np.std(single, ddof=1):.3f}; mean prediction: {', '.join(shown)}")


@click.command()
@click.argument("prepared", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--config", type=click.Path(path_type=Path), default=_CONFIG, show_default=True)
@click.option("--cv", is_flag=True, help="Cross-validate over train and val; test is left alone.")
@click.option("--seeds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the config.")
def main(prepared: tuple[Path, ...], config: Path, cv: bool, seeds: int, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    for folder in prepared:
        if cv:
            cross_validate(folder, config, overrides)
        else:
            measure(folder, config, overrides, seeds)


if __name__ == "__main__":
    main()

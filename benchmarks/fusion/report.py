"""Tables of a comparison: report.md and report.csv in its folder.

    python benchmarks/fusion/report.py runs/fusion [--reference ours] [--ensemble ours] [--bootstrap 1000]

Per mask and method the mean and the sd over seeds of each metric, and the paired difference to the reference with its 95% interval:
a resample draws subjects, and in it the difference is a mean over the seeds that both have. Predictions of cross-validation folds
are pooled before they are scored.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Run as a file, the folder of this file is where imports begin; they begin at the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2]) if __name__ == "__main__" else sys.path[0]

from benchmarks.fusion.table import FITS, SETTINGS  # noqa: E402
from cm2pyro.diagnostics.metrics import CLIP, Ranking  # noqa: E402
from cm2pyro.diagnostics.resampling import measured, subject_codes  # noqa: E402
from cm2pyro.errors import CM2Error, DataError  # noqa: E402
from cm2pyro.files import write_text  # noqa: E402

Array = NDArray[np.float64]
METRICS = ("auroc", "auprc", "log_loss", "brier")
_MEAN_OF, _TIE = " (mean of ", 0.005
_HEADS = {"auroc": "AUROC", "auprc": "AUPRC", "log_loss": "log-loss", "brier": "Brier"}
_NAME = re.compile(r"^(?P<method>.+)\.seed(?P<seed>\d+)\.fold(?P<fold>\d+)\.parquet$")


@dataclass(frozen=True)
class Results:
    """What a folder holds.

    Attributes:
        labels, subjects: (n,) each. masks: their names. predictions: method -> seed -> mask -> (n,) probabilities.
        unfinished: method and seed of fits that lack folds.
    """

    labels: NDArray[np.int64]
    subjects: Sequence[str]
    masks: tuple[str, ...]
    predictions: dict[str, dict[int, dict[str, Array]]]
    unfinished: tuple[str, ...]


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--reference", default="ours", show_default=True, help="Method that the others are compared with.")
@click.option(
    "--ensemble",
    "ensembles",
    multiple=True,
    metavar="METHOD",
    help="Add a row for the mean of its seeds' predictions; A,B: for the mean of two methods'.",
)
@click.option("--bootstrap", type=click.IntRange(min=0), default=1000, show_default=True)
def main(folder: Path, reference: str, ensembles: tuple[str, ...], bootstrap: int) -> None:
    try:
        results = with_ensembles(read(folder), ensembles)
        if reference not in results.predictions:
            raise DataError(
                f"{folder}: no complete fit of '{reference}'; found {', '.join(results.predictions)}; name one with --reference"
            )
        table = compare(results, reference, bootstrap)
        write_text(folder / "report.csv", table.to_csv(index=False, float_format="%.6f"))
        write_text(folder / "report.md", markdown(table, results, reference))
    except CM2Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    click.echo(f"{folder / 'report.md'}, {folder / 'report.csv'}")


def read(folder: Path) -> Results:
    """All fits of a folder that have every fold. Raises DataError where there are none."""
    if not (folder / SETTINGS).exists():
        raise DataError(f"{folder}: holds no {SETTINGS}; expected a folder that table.py made; name one")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    folds = settings["folds"] or 1
    found: dict[tuple[str, int], dict[int, Path]] = {}
    for path in sorted((folder / FITS).glob("*.parquet")):
        match = _NAME.match(path.name)
        if match:
            found.setdefault((match["method"], int(match["seed"])), {})[int(match["fold"])] = path
    predictions: dict[str, dict[int, dict[str, Array]]] = {}
    unfinished, rows = [], None
    for (method, seed), paths in found.items():
        if len(paths) < folds:
            unfinished.append(f"{method} seed {seed}")
            continue
        frame = pd.concat([pd.read_parquet(path) for path in paths.values()]).sort_values("sample_id", ignore_index=True)
        if rows is not None and not rows["sample_id"].equals(frame["sample_id"]):
            raise DataError(
                f"{folder / FITS}: {method} seed {seed} predicts other rows than the fits before; delete the folder and run again"
            )
        rows = frame if rows is None else rows
        predictions.setdefault(method, {})[seed] = {mask: frame[mask].to_numpy() for mask in settings["masks"]}
    if rows is None:
        raise DataError(f"{folder}: no fit has all its {folds} folds; run table.py to its end")
    return Results(rows["label"].to_numpy(), rows["subject_id"].tolist(), tuple(settings["masks"]), predictions, tuple(unfinished))


def with_ensembles(results: Results, wanted: Sequence[str]) -> Results:
    """The same with rows for means of predictions: `A` for the mean of a method's seeds, `A,B` for the mean of two methods, seed by seed.

    Raises DataError for a method without fits, or methods without a seed in common.
    """
    added = dict(results.predictions)
    for names in wanted:
        methods = names.split(",")
        for method in methods:
            if method not in results.predictions:
                raise DataError(f"--ensemble {method}: no complete fit of it; found {', '.join(results.predictions)}; name one of them")
        fits = [results.predictions[method] for method in methods]
        seeds = sorted(set.intersection(*(set(of) for of in fits)))
        if not seeds:
            raise DataError(f"--ensemble {names}: found no seed that all of them have; run table.py with the same --seeds for each")
        if len(methods) == 1:
            mean = {mask: np.mean([of[mask] for of in fits[0].values()], 0) for mask in results.masks}
            added[f"{names}{_MEAN_OF}{len(seeds)})"] = {0: mean}
            continue
        both = {seed: {mask: np.mean([of[seed][mask] for of in fits], 0) for mask in results.masks} for seed in seeds}
        added[f"{' and '.join(methods)}{_MEAN_OF}them)"] = both
    return Results(results.labels, results.subjects, results.masks, added, results.unfinished)


def scorer(labels: NDArray[np.int64], p: Array, codes: NDArray[np.int64]):  # type: ignore[no-untyped-def]
    """(B, subjects) counts -> (B, 4), the METRICS of predictions p (n,) where each subject counts that often.

    A further metric is a name in METRICS and _HEADS and a column here.
    """
    ranking = Ranking.of(labels == 1, p)
    likelihood = np.clip(np.where(labels == 1, p, 1 - p), CLIP, 1 - CLIP)
    columns = (-np.log(likelihood), (p - labels) ** 2, np.ones(len(p)))
    sums = np.column_stack([np.bincount(codes, weights=column) for column in columns])

    def under(counts: Array) -> Array:
        totals = counts @ sums
        return np.column_stack([*ranking.metrics(counts[:, codes]), totals[:, :2] / totals[:, 2:]])

    return under


def compare(results: Results, reference: str, bootstrap: int) -> pd.DataFrame:
    """One row per mask, method and metric: mean, sd, seeds, difference to the reference and its interval."""
    codes = subject_codes(results.subjects, len(results.labels))
    subjects, n = int(codes.max()) + 1, len(codes)
    every = np.ones((1, subjects))
    records = []
    for mask in results.masks:
        scorers = {
            method: {seed: scorer(results.labels, of[mask], codes) for seed, of in seeds.items()}
            for method, seeds in results.predictions.items()
        }
        methods = [method for method in scorers if method != reference]
        shared = {method: sorted(set(scorers[method]) & set(scorers[reference])) or None for method in methods}

        def differences(counts: Array, scorers=scorers, shared=shared) -> Array:  # type: ignore[no-untyped-def]
            base = {seed: score(counts) for seed, score in scorers[reference].items()}
            parts = []
            for method, seeds in shared.items():
                single = len(scorers[method]) == 1
                # One prediction, such as an ensemble's, meets the reference's mean over all its seeds.
                against = np.mean(list(base.values()) if single or seeds is None else [base[s] for s in seeds], 0)
                used = scorers[method].values() if single or seeds is None else [scorers[method][s] for s in seeds]
                parts.append(np.mean([score(counts) for score in used], 0) - against)
            return np.concatenate(parts, 1) if parts else np.zeros((len(counts), 0))

        found = measured(differences, n, subjects, bootstrap, 0) if methods else []
        for method, seeds in scorers.items():
            values = np.concatenate([score(every) for score in seeds.values()])
            for j, metric in enumerate(METRICS):
                of = {} if method == reference else found[len(METRICS) * methods.index(method) + j]
                records.append(
                    {
                        "mask": mask, "method": method, "metric": metric, "seeds": len(values), "mean": values[:, j].mean(),
                        "sd": values[:, j].std(ddof=1) if len(values) > 1 else None,
                        "difference": of.get("value"), "low": of.get("low"), "high": of.get("high"),
                    }
                )  # fmt: skip
    return pd.DataFrame(records)


def markdown(table: pd.DataFrame, results: Results, reference: str) -> str:
    """A table per mask, methods by falling AUROC."""
    lines = [
        f"{len(results.labels)} rows, {int(results.labels.sum())} positive. Mean ± sd over seeds; Δ is the method minus {reference}, "
        "with the paired 95% bootstrap interval over subjects.",
    ]
    if results.unfinished:
        lines.append(f"\nLeft out, since folds are missing: {', '.join(results.unfinished)}.")
    lines += ["", *_summary(table, results.masks, reference)]
    heads = [*(_HEADS[metric] for metric in METRICS), "Δ AUROC", "Δ log-loss"]
    for mask in results.masks:
        part = table[table["mask"] == mask]
        lines += ["", f"### {mask}", "", f"| method | seeds | {' | '.join(heads)} |", f"|---|---|{'---|' * len(heads)}"]
        order = part[part["metric"] == "auroc"].sort_values("mean", ascending=False)["method"]
        for method in order:
            row = part[part["method"] == method].set_index("metric")
            cells = [_spread(row.loc[metric]) for metric in METRICS]
            cells += [_interval(row.loc[metric]) for metric in ("auroc", "log_loss")]
            lines.append(f"| {method} | {int(row['seeds'].iloc[0])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _summary(table: pd.DataFrame, masks: Sequence[str], reference: str) -> list[str]:
    """Per mask the best of the other methods in AUROC and in log-loss, and whether the reference beats, ties or loses to it.

    Tied: the interval holds 0, and AUROC differs by no more than 0.005. Ensembles of a method's own seeds, and the truth, take no part.
    """
    lines = [f"| mask | AUROC of {reference} | best other | Δ | | log-loss | best other | Δ | |", f"|{'---|' * 9}"]
    for mask in masks:
        cells = [mask]
        for metric, sign in (("auroc", 1), ("log_loss", -1)):
            part = table[(table["mask"] == mask) & (table["metric"] == metric)].set_index("method")
            others = part[[method != reference and method != "truth" and _MEAN_OF not in method for method in part.index]]
            if others.empty:
                return []
            best = others.loc[(sign * others["mean"]).idxmax()]
            gain = sign * best["difference"]  # of the other method
            apart = not (best["low"] <= 0 <= best["high"]) or (metric == "auroc" and abs(gain) > _TIE)
            verdict = ("lost" if gain > 0 else "better") if apart else "tied"
            cells += [f"{part.loc[reference, 'mean']:.4f}", str(best.name), _interval(best), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(row: pd.Series) -> str:
    return f"{row['mean']:.4f}" if pd.isna(row["sd"]) else f"{row['mean']:.4f} ± {row['sd']:.4f}"


def _interval(row: pd.Series) -> str:
    if pd.isna(row["difference"]):
        return ""
    return f"{row['difference']:+.4f}" + ("" if pd.isna(row["low"]) else f" [{row['low']:+.4f}, {row['high']:+.4f}]")


if __name__ == "__main__":
    main()

"""The scores of the PhysioNet/CinC Challenge 2012 for a comparison on a test set.

    python benchmarks/fusion/challenge.py runs/fusion --thresholds runs/fusion-cv

Event 1 needs a threshold that was chosen on other rows: for each method the mean over seeds of the threshold that is best on its
pooled predictions in the cross-validation of --thresholds, a folder that table.py made without --test. Methods that are not in both
folders are left out. Mean ± sd over seeds, nothing hidden; then the mean of the seeds' predictions.
"""

import sys
from pathlib import Path

import click
import numpy as np

# Run as a file, the folder of this file is where imports begin; they begin at the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2]) if __name__ == "__main__" else sys.path[0]

from benchmarks.fusion.folds import NATURAL  # noqa: E402
from benchmarks.fusion.report import Results, read  # noqa: E402
from cm2pyro.diagnostics.challenge import PhysioNet2012  # noqa: E402
from cm2pyro.errors import CM2Error, DataError  # noqa: E402
from cm2pyro.inference.recalibration import best_threshold  # noqa: E402


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--thresholds", type=click.Path(path_type=Path), required=True, help="Folder of the cross-validation.")
def main(folder: Path, thresholds: Path) -> None:
    try:
        tested, tuned = read(folder), read(thresholds)
        for line in lines(tested, tuned):
            click.echo(line)
    except CM2Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def lines(tested: Results, tuned: Results) -> list[str]:
    """A Markdown table. Raises DataError where a folder lacks unmasked predictions, or none of its methods is in both."""
    for results, name in ((tested, "the tested folder"), (tuned, "--thresholds")):
        if NATURAL not in results.masks:
            raise DataError(f"{name} holds no predictions '{NATURAL}', found {', '.join(results.masks)}; make the table with that mask")
    methods = [method for method in tested.predictions if method in tuned.predictions]
    if not methods:
        raise DataError("no method has complete fits in both folders; run table.py for the same --methods")
    one = np.ones((1, len(tested.labels)))
    rows = ["| method | threshold | Event 1 | Event 2 | mean prediction: Event 1 | Event 2 |", "|---|---|---|---|---|---|"]
    for method in methods:
        threshold = float(np.mean([best_threshold(tuned.labels, of[NATURAL]) for of in tuned.predictions[method].values()]))
        seeds = [of[NATURAL] for of in tested.predictions[method].values()]
        scores = np.concatenate([PhysioNet2012(tested.labels, p, threshold).under(one) for p in seeds])
        together = PhysioNet2012(tested.labels, np.mean(seeds, 0), threshold).under(one)[0]
        sd = scores.std(0, ddof=1) if len(scores) > 1 else np.full(2, np.nan)
        cells = [method, f"{threshold:.3f}", f"{scores[:, 0].mean():.4f} ± {sd[0]:.4f}", f"{scores[:, 1].mean():.1f} ± {sd[1]:.1f}"]
        rows.append(f"| {' | '.join([*cells, f'{together[0]:.4f}', f'{together[1]:.1f}'])} |")
    return rows


if __name__ == "__main__":
    main()

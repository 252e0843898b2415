"""Whether predictions are calibrated where a mask hides a modality, and where it leaves it.

    python benchmarks/fusion/hidden.py runs/fusion --modality labs --methods ours,concat_mask+dropout

Per method and mask that hides the modality of some rows: the mean prediction (over seeds too) and the rate of the outcome, among
rows that lost it and among rows that keep it. Rows that never had it are left out.
"""

import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd

# Run as a file, the folder of this file is where imports begin; they begin at the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2]) if __name__ == "__main__" else sys.path[0]

from benchmarks.fusion.folds import NATURAL  # noqa: E402
from benchmarks.fusion.report import read  # noqa: E402
from benchmarks.fusion.table import MASKS  # noqa: E402
from cm2pyro.errors import CM2Error, DataError  # noqa: E402


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--modality", required=True)
@click.option("--methods", required=True, help="Names with commas between.")
def main(folder: Path, modality: str, methods: str) -> None:
    try:
        for line in lines(folder, modality, methods.split(",")):
            click.echo(line)
    except CM2Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def lines(folder: Path, modality: str, methods: list[str]) -> list[str]:
    """A Markdown table. Raises DataError for a method without fits, or a modality that no mask hides."""
    results = read(folder)
    # The order of `read`: rows by sample_id.
    shown = pd.read_parquet(folder / MASKS).sort_values("sample_id", ignore_index=True)
    has = {mask: np.array([modality in names.split(";") for names in shown[mask]]) for mask in results.masks}
    masks = [mask for mask in results.masks if NATURAL in has and 0 < (has[NATURAL] & ~has[mask]).sum() < has[NATURAL].sum()]
    if not masks:
        raise DataError(f"{folder}: no mask hides '{modality}' of some rows; found {', '.join(results.masks)}; name another --modality")
    rows = ["| mask | method | hidden: mean prediction | rate | kept: mean prediction | rate |", "|---|---|---|---|---|---|"]
    for mask in masks:
        for method in methods:
            if method not in results.predictions:
                raise DataError(f"{folder}: no complete fit of '{method}'; found {', '.join(results.predictions)}; name one of them")
            cells = []
            for part in (has[NATURAL] & ~has[mask], has[NATURAL] & has[mask]):
                mean = np.mean([of[mask][part].mean() for of in results.predictions[method].values()])
                cells += [f"{mean:.3f}", f"{results.labels[part].mean():.3f}"]
            rows.append(f"| `{mask}` | `{method}` | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()

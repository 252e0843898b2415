"""cm2pyro predict"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cm2pyro.cli import options, say

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("run", type=click.Path())
@click.option(
    "--data", required=True, type=click.Path(), help="The manifest or a folder of shards; labels and whole modalities may be absent."
)
@click.option("--out", required=True, type=click.Path(), help="The CSV to write.")
@options.draws
@options.split
@click.option("--report", type=click.Path(), help="A CSV: what is missing, where the spread comes from, what would pay most.")
@click.option("--figure", type=click.Path(), help="A picture of the same: .png, .pdf or .svg.")
@options.device
@options.trust_code
def predict(
    run: str, data: str, out: str, draws: int, split: str | None, report: str | None, figure: str | None, device: str, trust_code: bool
) -> None:
    """Predict the outcome of every row with the fit in RUN."""
    from cm2pyro.api import CM2
    from cm2pyro.cli.outputs import check_outputs
    from cm2pyro.data.shards.index import is_shards
    from cm2pyro.errors import ConfigError
    from cm2pyro.files import atomic
    from cm2pyro.inference import distributed

    check_outputs(run, data, out=out, report=report, figure=figure)
    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    if is_shards(data):
        for name, value in (("--report", report), ("--figure", figure)):
            if value is not None:
                raise ConfigError(f"{name}: needs all rows in memory, and the data are shards; give the manifest itself, or leave it out")
        say(f"{model.predict_to(data, out, draws=draws, split=split)} predictions written to {out}")
        return
    frame = model.predict(data, draws=draws, split=split)
    if not distributed.first():
        return
    say(_coverage(frame["observed"], model.names))
    with atomic(Path(out)) as temporary:
        frame.to_csv(temporary, index=False)
    click.echo(f"{len(frame)} predictions written to {out}")
    if report is not None:
        from cm2pyro.diagnostics.spread import spread_table

        with atomic(report) as temporary:
            spread_table(frame, model.names).to_csv(temporary, index=False)
        click.echo(f"report written to {report}")
    if figure is not None:
        from cm2pyro.diagnostics.spread import draw_spread

        draw_spread(frame, model.names, figure, title=f"{run}: {data}")
        click.echo(f"picture written to {figure}")


def _coverage(observed: "pd.Series[str]", names: Sequence[str]) -> str:
    """How many rows have each modality, and how many have none."""
    counts = Counter(name for cell in observed for name in cell.split(";"))
    line = "observed: " + ", ".join(f"{name} {counts[name] / max(len(observed), 1):.0%}" for name in names)
    nothing = int((observed == "").sum())
    return line + (f"; {nothing} of {len(observed)} rows have nothing: theirs is the prediction for anybody" if nothing else "")

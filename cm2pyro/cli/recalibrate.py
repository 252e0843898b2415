"""cm2pyro recalibrate"""

from pathlib import Path

import click

from cm2pyro.cli import options, say


@click.command(short_help="Make probabilities agree with observed frequencies.")
@click.argument("run", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest, with labels.")
@click.option("--method", default="temperature", show_default=True, help="temperature, isotonic, or none: the threshold alone.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="By default val; without val rows those that the fit held out.")
@options.draws
@options.device
@options.trust_code
def recalibrate(run: str, data: str, method: str, split: str | None, draws: int, device: str, trust_code: bool) -> None:
    """Bend the probabilities of the fit in RUN so that they agree with the frequencies in validation rows."""
    from cm2pyro.api import CM2
    from cm2pyro.inference.recalibration import FILE

    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    made = model.recalibrate(data, method, split, draws)
    made.write(Path(run))
    if made.threshold is not None:
        click.echo(f"threshold {made.threshold:.4f}: sensitivity and positive predictive value are balanced best there")
    click.echo(f"written to {Path(run) / FILE}; predict and evaluate use it from now on")

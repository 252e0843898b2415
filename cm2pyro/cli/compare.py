"""cm2pyro compare"""

from pathlib import Path

import click


@click.command(short_help="Compare runs by their predictions of the same rows.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN RUN...")
@click.option("--out", type=click.Path(), help="A CSV file of the table.")
def compare(runs: tuple[str, ...], out: str | None) -> None:
    """Compare runs by the outcome's log predictive density on identical rows: elpd, standard errors, stacking weights.

    Reads RUN/posterior.nc, which 'cm2pyro diagnose RUN --data MANIFEST' writes. Latents are not compared: every run has a latent space of
    its own, and rescaling one changes its density; 'cm2pyro select' compares families on the latents of one fit.
    """
    from cm2pyro.cli.outputs import check_table
    from cm2pyro.diagnostics.comparison import compare as compare_scores
    from cm2pyro.diagnostics.comparison import read_scores
    from cm2pyro.errors import ConfigError
    from cm2pyro.files import write_text
    from cm2pyro.inference.run import POSTERIOR

    if len({str(Path(run).resolve()) for run in runs}) < len(runs):
        raise ConfigError("compare: a run is named twice; name different ones")
    check_table(runs, out)
    found = compare_scores({run: read_scores(Path(run) / POSTERIOR) for run in runs})
    click.echo(found.table.to_string(index=False, float_format="%.3f"))
    for note in found.notes:
        click.echo(note)
    if out is not None:
        write_text(out, found.table.to_csv(index=False))
        click.echo(f"table written to {out}")

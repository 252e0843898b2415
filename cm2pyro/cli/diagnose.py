"""cm2pyro diagnose"""

from pathlib import Path

import click

from cm2pyro.cli import options, say


@click.command(short_help="Write the report of a fit, and its posterior.")
@click.argument("run", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest; labels and whole modalities may be absent.")
@options.split
@click.option("--draws", type=click.IntRange(min=1), default=100, show_default=True, help="Draws of the latents for the predictions.")
@options.device
@options.trust_code
def diagnose(run: str, data: str, split: str | None, draws: int, device: str, trust_code: bool) -> None:
    """Write RUN/report.html, what the fit has learned, what looks wrong and what the data say to it, and RUN/posterior.nc for ArviZ."""
    from cm2pyro.api import CM2
    from cm2pyro.api.base import silent
    from cm2pyro.diagnostics.report import page

    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    groups = model.posterior_groups(data, split=split)
    model.say = silent  # which rows, and what about them, has been said
    posterior = model.diagnose_posterior(data, groups)
    report = model.report(data, split=split, draws=draws, run=Path(run).resolve().name, further=[posterior])
    for section, finding in report.findings("warning"):
        click.echo(f"warning: {finding.text} ({section.title})")
    path = Path(run) / "report.html"
    page.write(report, path)
    click.echo(f"report written to {path}, posterior to {model.write_posterior(groups, run)}")

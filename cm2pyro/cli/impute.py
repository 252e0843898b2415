"""cm2pyro impute"""

from pathlib import Path

import click

from cm2pyro.cli import options, say


@click.command(short_help="Draw the latents of missing modalities.")
@click.argument("run", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest; labels and whole modalities may be absent.")
@click.option("--out", required=True, type=click.Path(), help="The netCDF file to write.")
@options.draws
@options.split
@options.device
@options.trust_code
def impute(run: str, data: str, out: str, draws: int, split: str | None, device: str, trust_code: bool) -> None:
    """Draw every missing modality's latent given the observed ones, with the fit in RUN."""
    from cm2pyro.api import CM2
    from cm2pyro.cli.outputs import check_outputs
    from cm2pyro.diagnostics.latents import write_netcdf

    check_outputs(run, data, out=out)
    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    latents = model.impute(data, draws=draws, split=split)
    latents.attrs["run"] = Path(run).resolve().name
    write_netcdf(latents, out)
    lacking = int((~latents["observed"]).any("modality").sum())
    click.echo(f"{latents.sizes['draw']} draws of the latents of {latents.sizes['sample_id']} rows written to {out}")
    click.echo(f"{lacking} of these rows lack a modality")

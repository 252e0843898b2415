"""`cm2pyro simulate OUT`: write a three-modality data set whose truth is known."""

from pathlib import Path
from typing import Any

import click

__all__ = ["simulate"]


# Ranges are checked by SimulationSettings, for Python and the command line alike. The defaults stand here again, so that
# the help needs no import; a test holds them equal.
@click.command(short_help="Write a data set with known truth.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--samples", type=int, default=2000, show_default=True, help="Number of samples.")
@click.option("--family", default="gaussian", show_default=True, help="Copula family of the latents.")
@click.option("--tau", type=float, default=0.5, show_default=True, help="Kendall's tau of each pair of modalities within a component.")
@click.option("--missing", type=float, default=0.3, show_default=True, help="Mean probability that a modality is missing.")
@click.option("--mechanism", default="mcar", show_default=True, metavar="mcar|mar|mnar", help="What the missingness depends on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws; the population is the same for all.")
@click.option("--dim", type=int, default=2, show_default=True, help="Latent dimensions; series, image and note show the first two.")
@click.option("--components", type=int, default=3, show_default=True, help="Mixture components.")
@click.option("--separation", type=float, default=4.0, show_default=True, help="Distance of adjacent centres, in standard deviations.")
@click.option("--prevalence", type=float, default=0.3, show_default=True, help="Share of the positive class, with two classes.")
@click.option("--classes", type=int, default=2, show_default=True, help="Classes of the outcome.")
@click.option("--df", type=float, default=4.0, show_default=True, help="Degrees of freedom of family student_t.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that holds a manifest.csv.")
def simulate(out: Path, overwrite: bool, **settings: Any) -> None:
    """Write a data set of time series, images and notes to the folder OUT, with its truth in OUT/truth.json."""
    from cm2pyro.data.simulation import SimulationSettings
    from cm2pyro.data.simulation import simulate as write

    truth = write(out, SimulationSettings(**settings), overwrite)
    splits = ", ".join(f"{count} {name}" for name, count in truth["splits"].items())
    click.echo(f"wrote {out / 'manifest.csv'}: {settings['samples']} samples of {truth['subjects']} subjects ({splits})")
    click.echo(f"beside it: series.parquet, images/, latents.parquet, truth.json ({settings['family']} copula, tau {settings['tau']:g})")
    if settings["classes"] == 2:
        click.echo(f"prevalence: {truth['prevalence']:.3f}")
    else:
        click.echo("classes: " + ", ".join(f"{name} {share:.3f}" for name, share in truth["class_shares"].items()))
    coverage = ", ".join(f"{name} {share:.3f}" for name, share in truth["coverage"].items())
    click.echo(f"observed ({settings['mechanism']}): {coverage}; nothing at all in {truth['nothing_observed']} samples")
    best = truth["bayes_auroc"]
    shown = "undefined, the test rows lack a class" if best is None else f"{best:.3f}"
    click.echo(f"Bayes AUROC on the test rows, all latents known: {shown}")
    if not Path("configs/simulated.yaml").exists():
        click.echo("next: cm2pyro configs copy")
    click.echo(f"next: cm2pyro fit configs/simulated.yaml --data {out / 'manifest.csv'} --out RUN")

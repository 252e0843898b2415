"""cm2pyro data"""

import click


@click.group()
def data() -> None:
    """Look at a manifest before a fit."""


@data.command()
@click.argument("manifest", type=click.Path())
@click.option("--config", type=click.Path(), help="Also read the labels and every modality, as a fit with this config would.")
def check(manifest: str, config: str | None) -> None:
    """Check MANIFEST: ids, splits, subjects, and with --config files, tables, values and labels."""
    from cm2pyro.data.manifest import SPLITS, read_manifest

    read = read_manifest(manifest)
    click.echo(f"{manifest}: {len(read)} rows, {len(set(read.subjects))} subjects, columns {', '.join(read.frame.columns)}")
    if "split" in read.frame:
        click.echo("splits: " + ", ".join(f"{split} {len(read.rows(split))}" for split in SPLITS))
    if config is not None:
        from cm2pyro.config import Config
        from cm2pyro.data.check import describe
        from cm2pyro.encoders import check_encoders, check_weights
        from cm2pyro.models import check_model

        checked = Config.from_file(config)
        views = check_encoders(checked)
        check_weights(checked)
        check_model(checked)
        for line in describe(read, checked, views):
            click.echo(line)
    click.echo("no problem found")

"""cm2pyro data"""

from typing import TYPE_CHECKING

import click

from cm2pyro.cli import say

if TYPE_CHECKING:
    from cm2pyro.config import Config


@click.group(short_help="Check a manifest, or divide a large one into shards.")
def data() -> None:
    """Look at a manifest before a fit, or divide a large one into shards."""


@data.command()
@click.argument("manifest", type=click.Path())
@click.option("--config", type=click.Path(), help="Also read the labels and every modality, as a fit with this config would.")
def check(manifest: str, config: str | None) -> None:
    """Check MANIFEST (or a folder of shards): ids, splits, subjects, and with --config files, tables, values and labels."""
    from cm2pyro.data.manifest import PREDICT_ONLY, SPLITS, read_manifest
    from cm2pyro.data.shards.index import is_shards

    if is_shards(manifest):
        _check_shards(manifest, config)
        click.echo("no problem found")
        return
    read = read_manifest(manifest)
    say(f"{manifest}: {len(read)} rows, {len(set(read.subjects))} subjects, columns {', '.join(read.frame.columns)}")
    if "split" in read.frame:
        click.echo("splits: " + ", ".join(f"{split} {len(read.rows(split))}" for split in SPLITS))
    lines = [f"no column '{column}'; {PREDICT_ONLY}" for column in ("split", "subject_id") if column not in read.frame]
    for line in lines:
        click.echo(line)
    if config is not None:
        from cm2pyro.data.check import describe

        checked, views = _checked(config)
        told = describe(read, checked, views)
        for line in told:
            say(line)
        lines += told
    lacking = any(PREDICT_ONLY in line for line in lines)
    click.echo("no file is wrong; what a fit still needs is said above" if lacking else "no problem found")


@data.command()
@click.argument("manifest", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The folder to write.")
@click.option("--config", type=click.Path(), help="Names the tables and the columns of files; every row is then read as a fit would.")
@click.option("--table", "tables", multiple=True, metavar="NAME", help="A table beside the manifest, as configs name it; may be repeated.")
@click.option("--rows-per-shard", type=click.IntRange(min=1, max=1_000_000), help="By default 2048; 512 where the config has pictures.")
@click.option("--overwrite", is_flag=True, help="Replace earlier shards in the folder.")
def shard(manifest: str, out: str, config: str | None, tables: tuple[str, ...], rows_per_shard: int | None, overwrite: bool) -> None:
    """Divide MANIFEST, its tables and the files that it names into Parquet shards, which fit, predict and evaluate stream."""
    from cm2pyro.data.shards.write import write_shards

    packed, pictures = None, False
    if config is not None:
        checked, _ = _checked(config)
        tables = tuple(dict.fromkeys([*tables, *checked.tables()]))
        packed = checked.file_columns()
        pictures = any(m.kind == "image" for m in checked.modalities.values())
    rows = rows_per_shard or (512 if pictures else 2048)
    index = write_shards(manifest, out, tables, packed, rows, overwrite, say)
    say(f"{index.rows} rows of {manifest} in {len(index.shards)} shards written to {out}")
    if config is not None:
        _check_shards(out, config)
        click.echo("no problem found")


def _checked(config: str) -> tuple["Config", dict[str, tuple[str, ...]]]:
    from cm2pyro.config import Config
    from cm2pyro.encoders import check_encoders, check_weights
    from cm2pyro.models import check_model

    checked = Config.from_file(config)
    views = check_encoders(checked)
    check_weights(checked)
    check_model(checked)
    return checked, views


def _check_shards(folder: str, config: str | None) -> None:
    from cm2pyro.data.shards.check import describe
    from cm2pyro.data.shards.index import Shards

    source = Shards.open(folder)
    source.verify()
    for line in describe(source, *(_checked(config) if config is not None else (None, {}))):
        say(line)

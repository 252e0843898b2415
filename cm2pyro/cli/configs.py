"""cm2pyro configs list | copy"""

from pathlib import Path

import click


@click.group()
def configs() -> None:
    """The configs that come with cm2pyro."""


@configs.command("list")
def list_() -> None:
    """Name the configs, and say what each is for."""
    from cm2pyro import shipped

    found = shipped.names()
    width = max(map(len, found))
    for name, comment in found.items():
        click.echo(f"{name:<{width}}  {comment}")


@configs.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), default="configs", show_default=True, help="The folder to write to.")
@click.option("--overwrite", is_flag=True, help="Replace files that differ.")
def copy(names: tuple[str, ...], out: Path, overwrite: bool) -> None:
    """Copy the configs NAMES, by default all, and the files that they name, to a folder where you can change them."""
    from cm2pyro import shipped

    for path in shipped.copy(names, out, overwrite):
        click.echo(path)

"""cm2pyro priors"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cm2pyro.cli import options, say

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

    from cm2pyro.inference.power_scaling import PowerScaling
    from cm2pyro.models.prior_table import PriorRow


@click.group(short_help="See priors, what they imply, how much they matter.")
def priors() -> None:
    """See the priors of the global sites, what they imply, and how much they matter."""


@priors.command(name="list")
@click.argument("config", type=click.Path(), required=False)
@options.set_
def list_(config: str | None, overrides: tuple[str, ...]) -> None:
    """List sites, shapes, supports and default priors; with CONFIG those that it has, and the priors in force."""
    from cm2pyro.config import Config
    from cm2pyro.models.prior_table import config_rows, default_rows

    if config is None:
        if overrides:
            raise click.UsageError("--set changes a config; name one.")
        _list_all(default_rows())
        return
    read = Config.from_file(config, overrides)
    rows = [(r.site, r.meaning, r.shape, r.support, r.prior, "config" if r.given else "default") for r in config_rows(read)]
    _table(("site", "holds", "shape", "support of the prior", "prior", "from"), rows)
    if read.prior.kind == "standard":
        click.echo("prior.kind: standard: the mixture is N(0, I), its sites stay there and their priors act on nothing")


def _list_all(rows: "Sequence[PriorRow]") -> None:
    _table(("site", "holds", "shape", "support of the prior", "default"), [r[:5] for r in map(_cells, rows) if not r[5]])
    click.echo("\nSites of the copula, by prior.copula.family:")
    _table(
        ("site", "holds", "shape", "support of the prior", "default", "families"),
        [r for r in map(_cells, rows) if r[5]],
    )
    click.echo(
        "\nM modalities, K components of each, T joint components (K; with prior.coupling full K^M), D latent dimensions, F families of a\n"
        "mixture. A tied copula has no D. In a mixture of families each has sites of its own, copula_<family>, with these defaults.\n"
        "A prior is swapped in one line: --set 'priors.scales={dist: HalfNormal, scale: 1}', or the same in the config."
    )


def _cells(row: "PriorRow") -> tuple[str, ...]:
    return row.site, row.meaning, row.shape, row.support, row.prior, ", ".join(row.families)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to their widest cell; the last one is not."""
    every = [tuple(head), *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    for row in every:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@priors.command()
@click.argument("config", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest whose training rows the prior is held against.")
@click.option("--out", required=True, type=click.Path(), help="Folder for prior_predictive.csv and prior_predictive.png.")
@click.option("--draws", type=click.IntRange(min=2), default=200, show_default=True, help="Models drawn from the priors.")
@click.option("--rows", type=click.IntRange(min=10), default=500, show_default=True, help="Samples drawn of each model.")
@options.set_
def check(config: str, data: str, out: str, draws: int, rows: int, overrides: tuple[str, ...]) -> None:
    """Prior predictive check: what the priors of CONFIG expect of latents and outcomes, beside the data."""
    from cm2pyro.api import CM2
    from cm2pyro.diagnostics.plots_priors import prior_and_data

    model = CM2.from_config(config, say=say, overrides=overrides)
    found = model.prior_predictive(data, draws=draws, rows=rows)
    folder, table = _folder(out), found.frame()
    head = ("quantity", "of", "prior 2.5%", "median", "97.5%", "data", "percentile")
    shown = table[["quantity", "of", "q2.5", "q50", "q97.5", "data", "percentile"]]
    _table(head, [tuple(map(_shown, row)) for row in shown.itertuples(index=False)])
    for note in found.notes:
        click.echo(note)
    _write(folder / "prior_predictive.csv", table)
    prior_and_data(found, folder / "prior_predictive.png", f"Prior predictive: {config}, {data}")
    click.echo(f"{draws} models of the prior, {rows} samples each; written to {folder}")


@priors.command()
@click.argument("run", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest of the fit; its training rows count.")
@click.option("--refit", multiple=True, type=click.Path(), metavar="FILE.yaml", help="A mapping `priors` to refit under; may be repeated.")
@click.option("--out", required=True, type=click.Path(), help="Folder for power_scaling.csv, refits.csv and sensitivity.png.")
@click.option("--draws", type=click.IntRange(min=100), default=1000, show_default=True, help="Of the guide; those of NUTS are all taken.")
@options.device
@options.trust_code
def sensitivity(run: str, data: str, refit: tuple[str, ...], out: str, draws: int, device: str, trust_code: bool) -> None:
    """Prior sensitivity of the fit in RUN: power-scaling of priors and likelihood, and refits under other priors, side by side."""
    from pathlib import Path

    from cm2pyro.api import CM2
    from cm2pyro.diagnostics import plots_priors

    names = [Path(file).stem for file in refit]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"--refit: two files are named {name}, and names head the table's columns; rename one.")
    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    found = model.prior_sensitivity(data, draws=draws, refit=dict(zip(names, refit, strict=True)))
    folder = _folder(out)
    for note in found.notes:
        click.echo(note)
    if found.scaling is not None:
        _say_scaling(found.scaling)
        _write(folder / "power_scaling.csv", found.scaling.table)
    if found.refits is not None:
        _say_refits(found.refits)
        _write(folder / "refits.csv", found.refits)
    plots_priors.sensitivity(found.scaling, found.refits, folder / "sensitivity.png", f"Prior sensitivity: {run}, {data}")
    click.echo(f"written to {folder}")


_MOST = 20  # lines of a table


def _say_scaling(scaling: "PowerScaling") -> None:
    flagged = scaling.flagged
    click.echo(
        f"power-scaling: {len(flagged)} of {len(scaling.table)} quantities are sensitive to the prior (by chance a sensitivity reaches "
        f"{scaling.chance:.3f} with so many draws)"
    )
    if len(flagged):
        columns = ["quantity", "mean", "sd", "prior", "likelihood", "site", "diagnosis"]
        _table(columns, [tuple(map(_shown, row)) for row in flagged[columns].head(_MOST).itertuples(index=False)])
    if len(flagged) > _MOST:
        click.echo(f"… and {len(flagged) - _MOST} more, in power_scaling.csv")


def _say_refits(refits: "DataFrame") -> None:
    """The quantities that move most between the sets of priors, and the log likelihood."""
    values = refits.iloc[:-1]
    spread = values.iloc[:, 2:].max(axis=1) - values.iloc[:, 2:].min(axis=1)
    rows = refits.loc[[*spread.sort_values(ascending=False, kind="stable").index[:_MOST], refits.index[-1]]]
    click.echo(f"refits: the {len(rows) - 1} of {len(values)} quantities that move most, all of them in refits.csv")
    _table(list(refits.columns), [tuple(map(_shown, row)) for row in rows.itertuples(index=False)])


def _shown(value: object) -> str:
    return value if isinstance(value, str) else "–" if value != value else f"{value:.3f}"


def _folder(out: str) -> "Path":
    from pathlib import Path

    from cm2pyro.errors import DataError

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be made a folder ({error.strerror}); choose another --out") from error
    return folder


def _write(path: "Path", table: "DataFrame") -> None:
    from cm2pyro.files import write_text

    write_text(path, table.to_csv(index=False, lineterminator="\n"))

"""`cm2pyro prepare SOURCE`: turn a public clinical data set into a manifest and tables."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

__all__ = ["SOURCES", "Source", "prepare"]


@dataclass(frozen=True)
class Source:
    """A data set that `prepare` knows.

    `module` has `prepare(records=, out=, splits=, seed=, overwrite=, **options)`, which returns an object with `lines() -> list[str]`.
    `records` says what --records names. `options` are click options that only this source has; their values arrive as keywords.
    """

    name: str
    module: str
    help: str
    records: str
    splits: str = "train=0.8,val=0.2"
    options: tuple[Callable[..., Any], ...] = ()


# No `exists=True`: the source's own refusal is one line with a remedy, click's is a usage text.
_PATH = click.Path(path_type=Path)

_MIMIC = (
    click.option(
        "--hours", type=float, default=48.0, show_default=True, help="Window from the start of the stay, and its least length, in hours."
    ),
    click.option(
        "--pairs",
        type=click.Choice(["matched", "partial"]),
        default="partial",
        show_default=True,
        help="Keep the stays that have every modality, or all.",
    ),
)

SOURCES = (
    Source(
        "physionet2012",
        "cm2pyro.data.physionet2012",
        "PhysioNet/CinC Challenge 2012: 48 h of 4,000 ICU stays.",
        "Archive or folder with the records.",
        options=(click.option("--outcomes", type=_PATH, help="File with the outcomes; without it the label is left out."),),
    ),
    Source(
        "covid-cxr",
        "cm2pyro.data.covid_cxr",
        "COVID-19 Image Data Collection: X-rays, notes, bedside values.",
        "Folder with metadata.csv and images/.",
        "train=0.6,val=0.15,test=0.25",
        (click.option("--blank/--no-blank", default=True, show_default=True, help="Blank names of diseases and tests in the notes."),),
    ),
    Source(
        "mimic3",
        "cm2pyro.data.mimic.mimic3",
        "MIMIC-III: 17 variables of the first hours in intensive care, notes; mortality, readmission, 25 phenotypes.",
        "Folder with the official tables, .csv or .csv.gz, or a task folder made by mimic3-benchmarks.",
        "train=0.7,val=0.15,test=0.15",
        _MIMIC,
    ),
    Source(
        "mimic4",
        "cm2pyro.data.mimic.mimic4",
        "MIMIC-IV: 17 variables of the first hours in intensive care, radiographs, reports; labels as mimic3.",
        "Folder with hosp/ and icu/, tables .csv or .csv.gz.",
        "train=0.7,val=0.15,test=0.15",
        (
            *_MIMIC,
            click.option("--cxr", type=_PATH, help="Folder of MIMIC-CXR-JPG: adds the last frontal radiograph."),
            click.option("--notes", type=_PATH, help="Folder of MIMIC-IV-Note: adds the radiology reports."),
        ),
    ),
)


def _command(source: Source) -> click.Command:
    def run(records: Path, out: Path, splits: str, seed: int, overwrite: bool, **options: Any) -> None:
        from cm2pyro.data.splits import parse_splits

        fractions = parse_splits(splits)
        summary = import_module(source.module).prepare(
            records=records, out=out, splits=fractions, seed=seed, overwrite=overwrite, **options
        )
        for line in summary.lines():
            click.echo(line)

    decorators = (
        click.option("--records", type=_PATH, required=True, help=source.records),
        click.option("--out", type=_PATH, required=True, help="Folder to write."),
        click.option("--splits", default=source.splits, show_default=True, help="Fractions of the subjects."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the splits."),
        click.option("--overwrite", is_flag=True, help="Replace a folder that holds a manifest.csv."),
        *source.options,
    )
    for decorator in reversed(decorators):
        run = decorator(run)
    return click.command(source.name, help=source.help)(run)


@click.group()
def prepare() -> None:
    """Turn a public clinical data set into a manifest and tables."""


for _source in SOURCES:
    prepare.add_command(_command(_source))

"""cm2pyro sweep"""

from functools import partial
from pathlib import Path

import click

from cm2pyro.cli import options, say
from cm2pyro.errors import ConfigError, DataError


@click.command(short_help="Fit several values of a config's keys, and choose.")
@click.argument("config", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest (CSV or Parquet), or a folder of shards.")
@click.option("--out", required=True, type=click.Path(), help="The folder to write: tables, picture, chosen config, a run per trial.")
@click.option("--grid", multiple=True, metavar="KEY=V1,V2", help="A key and its values; may be repeated, all combinations are fitted.")
@click.option("--random", "ranges", multiple=True, metavar="KEY=LOW:HIGH[:log]", help="A key and its range, for --trials; may be repeated.")
@click.option("--trials", type=click.IntRange(min=1), help="Settings of a random search or of Optuna; --grid keys are then drawn too.")
@click.option("--sampler", type=click.Choice(["grid", "random", "optuna"]), help="By default grid, with --trials random.")
@click.option("--storage", metavar="URL", help="Of Optuna: a database that several sweeps share; by default OUT/optuna.db.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random draws and of Optuna's.")
@click.option("--seeds", metavar="S,S", help="Fit every setting with each of these as fit.seed; by default the config's alone.")
@click.option("--metric", metavar="NAME", help="Choose by this metric of the validation rows, such as val_auroc; by default val_log_loss.")
@click.option("--evaluate", type=click.Choice(["test"]), help="Once the choice is made, evaluate the test rows of every trial.")
@click.option("--base", type=click.Path(), help="Of an experiment file: another config to vary.")
@options.set_
@click.option("--jobs", type=click.IntRange(1, 1024), help="Trials at a time; by default as many as cores if encoders are small, else one.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of a trial; by default one if several run, else as in fit.")
@options.device
@click.option("--resume", is_flag=True, help="Go on: finished trials are kept, cut ones go on, failed and new ones are run.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier sweep in the folder.")
def sweep(
    config: str,
    data: str,
    out: str,
    grid: tuple[str, ...],
    ranges: tuple[str, ...],
    trials: int | None,
    sampler: str | None,
    storage: str | None,
    seed: int,
    seeds: str | None,
    metric: str | None,
    evaluate: str | None,
    base: str | None,
    overrides: tuple[str, ...],
    jobs: int | None,
    threads: int | None,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Fit CONFIG with several values of its keys, and choose by the validation rows.

    CONFIG is a config, or an experiment file that names a config, keys, values and seeds, as in configs/experiments.
    """
    sampler = sampler or ("grid" if trials is None else "random")
    for wrong, message in (
        (sampler == "grid" and trials is not None, "--trials belongs to --sampler random or optuna; leave it out, or name one."),
        (sampler != "grid" and trials is None, f"--sampler {sampler} needs --trials N, the number of settings; give it."),
        (sampler != "optuna" and storage is not None, "--storage belongs to --sampler optuna; give both or neither."),
    ):
        if wrong:
            raise click.UsageError(message)
    repeats = [] if seeds is None else options.whole_numbers("--seeds", seeds, "0,1,2")

    from cm2pyro.inference.device import default_threads
    from cm2pyro.sweep import space
    from cm2pyro.sweep.experiment import Experiment
    from cm2pyro.sweep.processes import default_jobs
    from cm2pyro.sweep.search import BEST, FIGURES, RESULTS, SETTINGS, STUDY, Resources, Sweep, study_name
    from cm2pyro.sweep.tpe import Study, check_installed

    if sampler == "optuna":
        check_installed()
    axes: list[space.Axis] = [*map(space.Choice.parse, grid), *map(space.Range.parse, ranges)]
    experiment = Experiment.read(config, base, overrides, axes, repeats, metric)
    first = experiment.config(next(space.corners(experiment.axes)))
    jobs = jobs or default_jobs(first, device)
    resources = Resources(device, jobs, threads or (1 if jobs > 1 else default_threads(first)))
    found = Sweep(experiment, data, out, resources, say, test=evaluate is not None)
    found.check_folder(resume, overwrite)
    settings, propose = None, None
    if sampler == "optuna":
        assert trials is not None
        if experiment.conditions:
            raise ConfigError(
                f"{experiment.conditions[0]}: changes by what settings are judged, so no search can be guided; give it with --set"
            )
        url = storage or f"sqlite:///{Path(out).resolve() / STUDY}"
        propose = partial(Study, experiment.axes, url, study_name(experiment, found.digests), seed, trials)
    else:
        settings = list(space.every(experiment.axes) if trials is None else space.drawn(experiment.axes, seed, trials))
    results = found.run(settings, propose, resume, overwrite)
    for line in [*results.lines(), *results.failures()]:
        say(line)
    if len(settings or ()) > 1 and len(experiment.seeds) == 1:
        three = ",".join(str(experiment.seeds[0] + i) for i in range(3))
        click.echo(f"one seed: how much of a difference is the seed's cannot be told; --resume --seeds {three} adds two more")
    if not results.chosen:
        raise DataError(f"{out}: no setting was fitted with every seed, so none is chosen; {RESULTS} says why; mend that, then --resume")
    best = f"{BEST}, "
    if len(results.chosen) > 1:
        best = ""
        say(f"{', '.join(experiment.conditions)} changes by what settings are judged: the best of each is marked, and there is no {BEST}")
    click.echo(f"{RESULTS}, {SETTINGS}, {best}{', '.join(FIGURES)} and the runs in trials written to {Path(out)}")

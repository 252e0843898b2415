"""cm2pyro evaluate"""

import json
from typing import Any

import click

from cm2pyro.cli import options, say


@click.command(short_help="Metrics of a fit, with 95% bootstrap intervals.")
@click.argument("run", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest or a folder of shards, with labels.")
@click.option("--out", required=True, type=click.Path(), help="The JSON file of metrics to write.")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), help="By default test rows if there are any, else every labelled row."
)
@click.option(
    "--missing",
    multiple=True,
    metavar="MECHANISM",
    help="Also with modalities hidden: mcar:P, mar:P, mnar:P (with @a,b only of these), only:NAME, without:NAME; may be repeated.",
)
@click.option("--mask-seed", type=click.IntRange(min=0), help="Seed of what --missing hides; by default the run's seed.")
@click.option("--masks", type=click.Path(), help="A CSV file of what --missing leaves of each sample.")
@click.option("--bootstrap", type=click.IntRange(min=0), default=1000, show_default=True, help="Resamples of subjects; 0 for none.")
@options.draws
@click.option("--patterns", is_flag=True, help="Also per missingness pattern, in --out.")
@click.option("--by", multiple=True, metavar="COLUMN", help="Also per group of a manifest column or MODALITY.COLUMN; may be repeated.")
@click.option("--challenge", metavar="NAME", help="Also the scores of a public challenge: physionet2012.")
@click.option(
    "--figure",
    type=click.Path(),
    help="A picture (.png, .pdf, .svg): reliability, or observed against predicted; accuracy by missingness pattern.",
)
@click.option("--delta", metavar="LIST", help="Sensitivity analysis: also with missing latents shifted by that many sds, e.g. -1,0,1.")
@click.option("--threshold", type=float, help="With --delta: probability from which a decision is positive; by default the prevalence.")
@click.option("--delta-figure", type=click.Path(), help="With --delta: a picture (.png, .pdf, .svg) of risk and decisions against delta.")
@click.option("--tipping", type=click.Path(), help="With --delta: a CSV of each incomplete row's own tipping point.")
@click.option("--rows", type=click.IntRange(min=1), default=100_000, show_default=True, help="Of shards at most so many, a random sample.")
@options.device
@options.trust_code
def evaluate(
    run: str,
    data: str,
    out: str,
    split: str | None,
    missing: tuple[str, ...],
    mask_seed: int | None,
    masks: str | None,
    bootstrap: int,
    draws: int,
    patterns: bool,
    by: tuple[str, ...],
    challenge: str | None,
    figure: str | None,
    delta: str | None,
    threshold: float | None,
    delta_figure: str | None,
    tipping: str | None,
    rows: int,
    device: str,
    trust_code: bool,
) -> None:
    """Metrics of the fit in RUN, with 95% bootstrap intervals over subjects."""
    from cm2pyro.api import CM2
    from cm2pyro.cli.outputs import check_outputs
    from cm2pyro.diagnostics.sensitivity import parse_delta
    from cm2pyro.files import atomic, write_text
    from cm2pyro.inference import distributed

    for name, value in (("--threshold", threshold), ("--delta-figure", delta_figure), ("--tipping", tipping)):
        if value is not None and delta is None:
            raise click.UsageError(f"{name} belongs to --delta; give both or neither.")
    deltas = () if delta is None else parse_delta(delta)
    check_outputs(run, data, out=out, masks=masks, figure=figure, delta_figure=delta_figure, tipping=tipping)
    model = CM2.load(run, device=device, say=say, trust_code=trust_code)
    result = model.evaluate(
        data,
        split=split,
        missing=missing,
        bootstrap=bootstrap,
        draws=draws,
        patterns=patterns,
        mask_seed=mask_seed,
        masks=masks,
        by=by,
        challenge=challenge,
        delta=deltas,
        threshold=threshold,
        rows=rows,
    )
    if not distributed.first():
        return
    write_text(out, json.dumps(result.metrics, indent=2) + "\n")
    _show(result.metrics)
    for remark in result.remarks():
        click.echo(f"warning: {remark}")
    if result.sensitivity is not None:
        for line in result.sensitivity.lines():
            click.echo(line)
        if delta_figure is not None:
            result.sensitivity.draw(delta_figure, title=f"{run}: {data}")
            click.echo(f"picture written to {delta_figure}")
        if tipping is not None:
            with atomic(tipping) as temporary:
                result.sensitivity.frame().to_csv(temporary, index=False)
            click.echo(f"tipping points of {len(result.sensitivity.ids)} rows written to {tipping}")
    click.echo(f"metrics written to {out}")
    if masks is not None:
        click.echo(f"masks written to {masks}")
    if figure is not None:
        result.draw(figure, title=f"{run}: {data}")
        click.echo(f"picture written to {figure}")


_SHOWN = (
    "auroc",
    "auprc",
    "log_loss",
    "brier",
    "ece",
    "calibration_slope",
    "calibration_intercept",
    "event1",
    "event2",
    "rmse",
    "mae",
    "r2",
    "coverage",
    "log_score",
)


def _show(metrics: dict[str, Any]) -> None:
    click.echo(_line("as observed", metrics))
    for mechanism, values in metrics.get("missing", {}).items():
        click.echo(_line(mechanism, values))
    for column, groups in metrics.get("by", {}).items():
        for group, values in groups.items():
            click.echo(_line(f"{column} {group}", values))


def _line(what: str, values: dict[str, Any]) -> str:
    shown = []
    every = values | values.get("challenge", {})
    for name in _SHOWN:
        if name not in every:
            continue
        metric = every[name]
        if metric["value"] is None:
            shown.append(f"{name} –")
        elif metric["low"] is None:
            shown.append(f"{name} {metric['value']:.3f}")
        else:
            shown.append(f"{name} {metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f})")
    events = f" ({round(values['prevalence'] * values['n'])} with outcome 1)" if isinstance(values.get("prevalence"), float) else ""
    return f"{what}: n {values['n']}{events}, " + ", ".join(shown)

"""cm2pyro fit"""

import sys
from pathlib import Path
from typing import Any

import click

from cm2pyro.cli import options, say


@click.command()
@click.argument("config", type=click.Path())
@click.option("--data", required=True, type=click.Path(), help="The manifest (CSV or Parquet), or a folder of shards.")
@click.option("--out", required=True, type=click.Path(), help="The run folder to write.")
@options.set_
@options.device
@click.option("--seed", type=int, help="Overrides fit.seed.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="CPU threads of torch; by default one where all encoders are small, else all."
)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Of the encoders; overrides fit.precision.")
@click.option("--compile", "compiled", is_flag=True, help="Encoders through torch.compile: fit.compile=true.")
@click.option("--deterministic", is_flag=True, help="The same bits every time: fit.deterministic=true.")
@click.option("--resume", is_flag=True, help="Go on from the folder's last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the folder.")
def fit(
    config: str,
    data: str,
    out: str,
    overrides: tuple[str, ...],
    device: str,
    seed: int | None,
    threads: int | None,
    precision: str | None,
    compiled: bool,
    deterministic: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Fit CONFIG to the training rows of a manifest."""
    import torch

    from cm2pyro.api import CM2
    from cm2pyro.inference.device import default_threads
    from cm2pyro.inference.run import best_record

    asked = {"seed": seed, "precision": precision, "compile": compiled or None, "deterministic": deterministic or None}
    overrides = (*overrides, *(f"fit.{key}={str(value).lower()}" for key, value in asked.items() if value is not None))
    model = CM2.from_config(config, say=say, overrides=overrides)
    torch.set_num_threads(threads or default_threads(model.config))
    model.fit(data, out, device=device, resume=resume, overwrite=overwrite, report=_Report(model.config.fit.epochs))
    best = best_record(model.history)
    if best is not None and best["val_log_loss"] is not None:
        auroc = "" if best["val_auroc"] is None else f", AUROC {best['val_auroc']:.3f}"
        click.echo(f"best epoch {best['epoch']}: validation log-loss {best['val_log_loss']:.4f}{auroc}")
        if best["epoch"] == model.history[-1]["epoch"] == model.config.fit.epochs:
            click.echo(f"the last epoch was the best: more may be better, --resume --set fit.epochs={2 * model.config.fit.epochs}")
    click.echo(f"run written to {Path(out)}")


class _Report:
    """A line an epoch; a progress bar too where the output is a terminal."""

    def __init__(self, epochs: int) -> None:
        from tqdm import tqdm

        from cm2pyro.inference import distributed

        self.epochs = epochs
        self.bar = tqdm(total=epochs, unit="epoch", leave=False) if sys.stderr.isatty() and distributed.first() else None

    def __call__(self, record: dict[str, Any], warnings: list[str]) -> None:
        for line in [_line(record, self.epochs), *(f"warning: {message}" for message in warnings)]:
            if self.bar is None:
                click.echo(line)
            else:
                self.bar.write(line, file=sys.stdout)
        if self.bar is not None:
            if record["epoch"] < self.bar.n:  # the next member of an ensemble
                self.bar.reset()
            self.bar.update(record["epoch"] - self.bar.n)


def _line(record: dict[str, Any], epochs: int) -> str:
    def show(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    components = " ".join(f"{name} {value:.1f}" for name, value in record["effective_components"].items())
    tau = " ".join(f"{pair} {value:+.2f}" for pair, value in record["tau"].items())
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  elbo {record['elbo']:.4f}  outcome {record['outcome']:.4f}  "
        f"kl {record['kl']:.2f}  val log-loss {show(record['val_log_loss'], 4)}  AUROC {show(record['val_auroc'], 3)}  "
        f"components {components}{'  tau ' + tau if tau else ''}  {record['seconds']:.1f} s"
    )

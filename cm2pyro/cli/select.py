"""cm2pyro select"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cm2pyro.cli import options, say

if TYPE_CHECKING:
    from cm2pyro.inference.select import Candidate

_TABLE = "selection.csv"


@click.command(short_help="Choose the copula family and the number of components.")
@click.argument("config", type=click.Path(), required=False)
@click.option("--data", required=True, type=click.Path(), help="The manifest (CSV or Parquet).")
@click.option(
    "--families",
    default="gaussian,student_t,clayton,gumbel,frank,joe",
    show_default=True,
    metavar="A,B",
    help="Copula families; mixture: of the others named.",
)
@click.option("--components", default="1,2,3,4", show_default=True, metavar="K,K", help="Numbers of mixture components.")
@click.option("--out", required=True, type=click.Path(), help="The folder to write: table, recommendation, picture, config.")
@click.option(
    "--run", type=click.Path(), help="Use the encoders of this finished fit; CONFIG, if given, says prior, priors and fit.restarts."
)
@click.option(
    "--split", type=click.Choice(["train", "val", "test", "all"]), default="train", show_default=True, help="Rows whose latents count."
)
@options.set_
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where the encoders run.")
@click.option("--seed", type=int, help="Overrides fit.seed.")
@options.trust_code
@click.option("--overwrite", is_flag=True, help="Replace an earlier selection in the folder.")
def select(
    config: str | None,
    data: str,
    families: str,
    components: str,
    out: str,
    run: str | None,
    split: str,
    overrides: tuple[str, ...],
    device: str,
    seed: int | None,
    trust_code: bool,
    overwrite: bool,
) -> None:
    """Choose the copula family and the number of components K for the latents of one fit.

    CONFIG is fitted first, and the fit kept in OUT/run; with --run a finished fit takes its place. Its encoders stay as they are, and every
    family with every K is fitted to the same latents and judged on subjects left out. The simplest within 2 standard errors of the
    best is recommended.
    """
    names = [name.strip() for name in families.split(",") if name.strip()]
    sizes = options.whole_numbers("--components", components, "1,2,3,4")
    if config is None and overrides:
        raise click.UsageError("--set changes CONFIG, and none is given; name it, or leave --set out.")
    if trust_code and run is None:
        raise click.UsageError("--trust-code belongs to --run, whose config was written by a fit; a CONFIG that you name is trusted.")

    import torch

    from cm2pyro.api import CM2
    from cm2pyro.config import Config
    from cm2pyro.files import check_out_folder, fresh_folder, write_text
    from cm2pyro.inference.select import candidate_structures
    from cm2pyro.models import make_structure

    torch.set_num_threads(1)
    if seed is not None:
        overrides = (*overrides, f"fit.seed={seed}")
    own: Config | None = None
    if run is not None:
        model = CM2.load(run, device=device, say=say, trust_code=trust_code)
        raw = model.config if config is None else Config.from_file(config)
        own = CM2.from_config(raw.to_dict(), overrides=overrides).config
    elif config is not None:
        model = CM2.from_config(config, say=say, overrides=overrides)
    else:
        raise click.UsageError("neither CONFIG nor --run is given; name a config to fit, a finished run, or both.")
    # Refused before the fit, not after.
    candidate_structures(make_structure(own or model.config), names, sizes)
    check_out_folder(Path(out), overwrite, _TABLE)
    with fresh_folder(out, overwrite, _TABLE) as folder:
        if run is None:
            epochs = model.config.fit.epochs
            model.fit(data, folder / "run", device=device, report=lambda record, _: click.echo(f"epoch {record['epoch']}/{epochs}"))
        found = model.select(data, names, sizes, None if split == "all" else split, own, report=_progress)
        write_text(folder / _TABLE, found.frame().to_csv(index=False, lineterminator="\n"))
        write_text(folder / "recommendation.md", found.text())
        found.draw(folder / "selection.png", f"{run or config}: {data}")
        found.config.to_file(folder / "config.yaml")
    for line in found.lines():
        click.echo(line)
    click.echo(f"{_TABLE}, recommendation.md, selection.png and config.yaml written to {Path(out)}")


def _progress(candidate: "Candidate", seconds: float) -> None:
    fit = candidate.fit
    click.echo(
        f"{candidate.family}, K = {candidate.components}: elpd {float(fit.elpd.sum()):.1f}, {candidate.parameters} parameters "
        f"({fit.effective:.1f} effective), {seconds:.1f} s"
    )

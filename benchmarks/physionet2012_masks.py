"""What masks hide on set A of the PhysioNet Challenge 2012, and whether two samples of patients give the same mechanism.

    python benchmarks/physionet2012_masks.py data/physionet2012/manifest.csv [--scope labs,gases] [--share 0.5]

Scores and intercepts are learned from the rows under the mask. So they are learned here from one random half of the rows
and from the other, ten times, and what the two give to the same rows is compared. Set B is never read.
"""

from pathlib import Path

import click
import numpy as np
import torch

from cm2pyro import CM2
from cm2pyro.data.content import content_score
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.missingness import Mechanism, hide, hiding_probability

_REPEATS = 10


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--scope", default="labs,gases", show_default=True)
@click.option("--share", type=float, default=0.5, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(manifest: Path, config: Path, scope: str, share: float, seed: int) -> None:
    torch.set_num_threads(1)
    read = read_manifest(manifest)
    data = CM2.from_config(config).preparation.fit(read, np.arange(len(read)))
    observed, dead = data.observed.numpy(), data.labels.numpy() == 1
    random = np.random.default_rng(seed)
    halves = [np.split(random.permutation(len(data)), [len(data) // 2]) for _ in range(_REPEATS)]

    click.echo("score of a modality, learned from either half: least correlation")
    for m, name in enumerate(data.names):
        found = []
        for parts in halves:
            a, b = (content_score(data.inputs[name], observed[:, m], np.isin(np.arange(len(data)), part)) for part in parts)
            found.append(np.corrcoef(a[observed[:, m]], b[observed[:, m]])[0, 1])
        click.echo(f"  {name}: {min(found):.3f}")

    for kind in ("mcar", "mar", "mnar"):
        rule = Mechanism.parse(f"{kind}:{share:g}@{scope}", data.names)
        left = hide(data, rule.text, seed)
        click.echo(rule.text)
        for name in rule.scope:
            m = data.names.index(name)
            has = observed[:, m]
            gaps = []
            for parts in halves:
                a, b = (hiding_probability(data, rule, part)[has, m] for part in parts)
                gaps.append(np.abs(a - b).mean())
            click.echo(
                f"  {name}: hidden of survivors {1 - left[has & ~dead, m].mean():.3f}, of deaths {1 - left[has & dead, m].mean():.3f}, "
                f"of all {1 - left[has, m].mean():.3f}; from either half, probabilities differ by {max(gaps):.3f} on average, at most"
            )


if __name__ == "__main__":
    main()

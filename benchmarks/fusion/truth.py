"""The truth of simulated data: what no method can beat."""

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.fusion.folds import Fold, Mask
from cm2pyro.data.simulation import SimulationSettings, population
from cm2pyro.errors import ConfigError

_DRAWS, _ROWS = 500, 200


def truth_of(fold: Fold) -> Callable[[Mask], NDArray[np.float64]]:
    """p(y = 1 | z_observed) of the population that `cm2pyro simulate` drew the rows from, over 500 draws of what is missing.

    Nothing is fitted. It reads latents.parquet and truth.json beside the manifest, and takes missingness to be ignorable, as the
    masks of a comparison are where they do not look at the outcome. Raises ConfigError for data that were not simulated.
    """
    root = fold.testing.root
    if not (root / "truth.json").exists():
        raise ConfigError(f"truth: {root.name} holds no truth.json; expected data that `cm2pyro simulate` wrote; leave the method out")
    settings = SimulationSettings(**json.loads((root / "truth.json").read_text(encoding="utf-8"))["settings"])
    world = population(settings)
    latents = pd.read_parquet(root / "latents.parquet").set_index("sample_id").loc[list(fold.testing.ids)]
    columns = [[f"latent_{name}_{d}" for d in range(settings.dim)] for name in fold.names]
    z = np.stack([latents[of].to_numpy() for of in columns], 1)

    def predicted(mask: Mask) -> NDArray[np.float64]:
        generator = torch.Generator().manual_seed(0)
        p = []
        for first in range(0, len(z), _ROWS):
            rows = slice(first, first + _ROWS)
            shape = (_DRAWS, *z[rows].shape)
            noise = (
                torch.rand(shape[:2], generator=generator, dtype=torch.float64),
                torch.randn(shape, generator=generator, dtype=torch.float64),
            )
            seen = torch.from_numpy(mask[rows]).expand(shape[:3])
            drawn = world.prior.conditional(torch.from_numpy(z[rows]).expand(shape), seen, noise).numpy()
            p.append(world.probabilities(drawn.reshape(-1, *shape[2:]))[:, 1].reshape(shape[:2]).mean(0))
        return np.concatenate(p)

    return predicted

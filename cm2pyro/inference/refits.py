"""The mixture under one set of priors after another, on the same latents."""

from collections.abc import Mapping

import pandas as pd
from pyro.distributions import TorchDistribution

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.mixture_draws import named_quantities
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.program import Program

FITTED, OWN = "fit", "own priors"


def refits(program: Program, dataset: Dataset, priors: Mapping[str, Mapping[str, TorchDistribution]], seed: int) -> pd.DataFrame:
    """Maximum a posteriori values of the mixture's sites on one draw of the latents, from where the fit is, under each set of priors.

    The outcome takes no part, as in `fit.settle`.

    Args:
        priors: name of the set -> site -> prior, of all sites of the mixture.

    Returns:
        A row a quantity (see `named_quantities`; the last is the log likelihood of the latents): `quantity`, `fit` (the values of the
        run, or their medians), `own priors` (refitted under the run's own) and a column for each set.
    """
    z, observed = latents(program, dataset, seed=seed), dataset.observed
    observed = observed.to(z.device)
    own = program.model.priors
    start = {name: value.double() for name, value in program.values().items() if name in own}
    columns: dict[str, list[float]] = {}
    quantity: list[str] = []
    for name, chosen in {FITTED: {}, OWN: own, **priors}.items():
        values, likelihood = maximise(program.structure, dict(chosen), start, tuple(chosen), z, observed, seed=seed)
        named = named_quantities(program.structure, {site: value[None] for site, value in values.items()}, dataset.names)
        quantity = [*named, "log likelihood"]
        columns[name] = [*(float(value) for value in named.values()), likelihood]
    return pd.DataFrame({"quantity": quantity, **columns})

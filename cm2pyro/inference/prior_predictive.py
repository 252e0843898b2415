"""What the priors say before any data: latents and outcomes of models drawn from them, beside the same numbers of the data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pyro.distributions import TorchDistribution
from scipy.stats import kendalltau
from torch import Tensor, nn

from cm2pyro.distributions.copulas.base import tau_of_pair
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.models import as_head
from cm2pyro.models.likelihoods import Discrete, Likelihood

Array = NDArray[np.float64]
Values = dict[str, Tensor]
Key = tuple[str, str]  # what is measured, and of which pair, modality, class or label

INSIDE, OVERALL, SD, COMPONENTS = "tau inside components", "tau overall", "sd of latents", "effective components"
OUTCOME, SURE = "outcome", "sure predictions"
LEVELS = (0.025, 0.25, 0.5, 0.75, 0.975)
_SURE = 0.99  # a probability above it, or below one minus it, makes a prediction a sure one
_FEWEST = 3  # rows of which a tau or an sd is computed


@dataclass(frozen=True)
class Quantity:
    """One number of a data set, for data sets of the prior and for the one at hand.

    Attributes:
        kind, of: see `Key`. prior: (S, V), V values a draw: one, or one for each latent dimension or each of several.
        data: (V,); None where there is nothing to compare with.
    """

    kind: str
    of: str
    prior: Array
    data: Array | None = None

    @property
    def percentile(self) -> float | None:
        """Share of the prior's values, over draws and latent dimensions, below the data's mean over the latter."""
        return None if self.data is None else float((self.prior < np.nanmean(self.data)).mean())

    def quantiles(self) -> list[float]:
        """At LEVELS, of the prior's values over draws and latent dimensions."""
        return [float(q) for q in np.nanquantile(self.prior, LEVELS)]


@dataclass(frozen=True)
class PriorPredictive:
    """Quantities of data sets drawn from the prior.

    Attributes:
        draws: S. rows: of each drawn data set. notes: what is assumed, and what is left out.
    """

    quantities: list[Quantity]
    draws: int
    rows: int
    notes: list[str]

    def frame(self) -> pd.DataFrame:
        """A row a quantity: `quantity, of`, quantiles `q2.5 … q97.5` of the prior, `data, data_low, data_high` (mean and range over
        latent dimensions) and `percentile` of the data's mean among the prior's values; empty where the data say nothing."""
        rows = []
        for q in self.quantities:
            row: dict[str, object] = {"quantity": q.kind, "of": q.of}
            row |= {f"q{100 * level:g}": value for level, value in zip(LEVELS, q.quantiles(), strict=True)}
            data = [np.nan] * 3 if q.data is None else [np.nanmean(q.data), np.nanmin(q.data), np.nanmax(q.data)]
            row |= dict(zip(("data", "data_low", "data_high"), data, strict=True))
            rows.append(row | {"percentile": np.nan if q.percentile is None else q.percentile})
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class OutcomeModel:
    """What an outcome is drawn with.

    Attributes:
        likelihood: of the task. priors: of the head. names: of the classes or labels.
        fusion: makes a network at its random start: the only prior that its weights have.
    """

    likelihood: Likelihood
    priors: Mapping[str, TorchDistribution]
    names: Sequence[str]
    fusion: Callable[[], nn.Module]


def prior_predictive(
    structure: MixtureStructure,
    priors: Mapping[str, TorchDistribution] | Values,
    names: Sequence[str],
    outcome: OutcomeModel | None = None,
    draws: int = 200,
    rows: int = 500,
    seed: int = 0,
) -> dict[Key, Array]:
    """Draw the global sites `draws` times from their priors, each time the latents of `rows` complete samples, and their outcome.

    Args:
        priors: of the mixture's sites; a tensor stands for a site that is held. names: the modalities. outcome: None leaves it out.

    Returns:
        key -> (S, V), see `Quantity`.
    """
    found: dict[Key, list[Array]] = {}
    # The caller's random state is left alone.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(draws):
            values = {name: (p if isinstance(p, Tensor) else p.sample()).double() for name, p in priors.items()}
            mixture = structure.build(values)
            z = mixture.rsample((rows,))
            now = mixture_quantities(mixture, names) | latent_quantities(z, torch.ones(z.shape[:2], dtype=torch.bool), names)
            if outcome is not None:
                head = as_head({name: prior.sample().double() for name, prior in outcome.priors.items()})
                outputs = outcome.fusion().double().eval()(z) @ head[0].mT + head[1]  # type: ignore[index]
                y = outcome.likelihood.distribution(outputs).sample()
                now |= outcome_quantities(y, outcome.likelihood, outcome.names)
                if isinstance(outcome.likelihood, Discrete):
                    p = outcome.likelihood.probabilities(outputs)
                    sure = ((p > _SURE) | (p < 1 - _SURE)) if p.shape[-1] == 2 else p > _SURE
                    now[SURE, "rows"] = sure.any(-1).double().mean()[None].numpy()
            for key, value in now.items():
                found.setdefault(key, []).append(value)
    return {key: np.stack(values) for key, values in found.items()}


def mixture_quantities(mixture: CopulaMixture, names: Sequence[str]) -> dict[Key, Array]:
    """Of a mixture: Kendall's tau inside components per pair, (D,) or, of a tied copula, (1,); effective components per modality, (1,)."""
    found: dict[Key, Array] = {}
    tau = mixture.copula.tau()
    for a, b in combinations(range(len(names)), 2):
        found[INSIDE, f"{names[a]}~{names[b]}"] = tau_of_pair(tau, a, b).reshape(-1).double().numpy()
    for m, name in enumerate(names):
        weights = mixture.marginal_log_weights(m).exp()
        found[COMPONENTS, name] = torch.special.entr(weights).sum().exp()[None].double().numpy()
    return found


def latent_quantities(z: Tensor, observed: Tensor, names: Sequence[str]) -> dict[Key, Array]:
    """Of latents (n, M, D), observed (n, M): Kendall's tau per pair, clusters included, and sd per modality, (D,) each.

    What fewer than three rows have is left out.
    """
    found: dict[Key, Array] = {}
    for a, b in combinations(range(len(names)), 2):
        both = z[observed[:, a] & observed[:, b]].double().numpy()
        if len(both) >= _FEWEST:
            found[OVERALL, f"{names[a]}~{names[b]}"] = np.array(
                [kendalltau(both[:, a, j], both[:, b, j]).statistic for j in range(z.shape[-1])]
            )
    for m, name in enumerate(names):
        own = z[observed[:, m], m].double()
        if len(own) >= _FEWEST:
            found[SD, name] = own.std(0).numpy()
    return found


def outcome_quantities(y: Tensor, likelihood: Likelihood, names: Sequence[str]) -> dict[Key, Array]:
    """Of outcomes (n,), of several labels (n, L): rates of classes or labels, of numbers mean and sd, (1,) each.

    Empty ones (negative, or NaN in a regression) do not count. Of a binary outcome there is the rate of class 1 alone.
    """
    y = y.double()
    if not isinstance(likelihood, Discrete):
        y = y[y.isfinite()]
        return {(OUTCOME, what): value[None].numpy() for what, value in (("mean", y.mean()), ("sd", y.std())) if len(y) > 1}
    if y.dim() > 1:
        columns = [(name, y[:, i][y[:, i] >= 0]) for i, name in enumerate(names)]
        return {(OUTCOME, f"rate of {name}"): column.mean()[None].numpy() for name, column in columns if len(column)}
    y = y[y >= 0]
    classes = [(i, name) for i, name in enumerate(names) if i or len(names) > 2]
    return {(OUTCOME, f"rate of {name}"): (y == i).double().mean()[None].numpy() for i, name in classes if len(y)}

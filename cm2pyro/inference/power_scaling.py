"""Prior and likelihood sensitivity by power-scaling: how a posterior moves as its parts are raised to powers near one.

Kallioinen, Paananen, Bürkner & Vehtari (2023), Detecting and diagnosing prior and likelihood sensitivity with power-scaling,
Statistics and Computing 34:57; the sensitivities themselves are ArviZ's `psens`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD = 0.05  # of the paper: below it a sensitivity counts as none
MOST_K = 0.7  # k-hat up to which the weights can be trusted
CONFLICT, STRONG, FINE = "prior-data conflict", "strong prior / weak likelihood", "-"
_DELTA = 0.01  # powers 1 + delta and its inverse
_SHUFFLES = 10  # of the draws, for what chance makes of a sensitivity


@dataclass(frozen=True)
class PowerScaling:
    """What power-scaling finds.

    Attributes:
        table: a row a quantity: `quantity, mean, sd, prior, likelihood, diagnosis, site` (whose prior moves it most) and
            `prior_<site>` for every site. k_hat: component -> the larger of the two Pareto k-hats of its weights.
        chance: the sensitivity to a prior unrelated to the quantity that 95% of quantities stay below with so many draws.
    """

    table: pd.DataFrame
    k_hat: dict[str, float]
    chance: float

    @property
    def flagged(self) -> pd.DataFrame:
        """The rows with a diagnosis, the most sensitive to the prior first."""
        rows = self.table[self.table["diagnosis"] != FINE]
        return rows.sort_values("prior", ascending=False, kind="stable")


def power_scaling(quantities: Mapping[str, Array], log_priors: Mapping[str, Array], log_likelihood: Array) -> PowerScaling:
    """Sensitivity of each quantity's posterior to the prior (all sites together, and each alone) and to the likelihood.

    A sensitivity is the rate at which the cumulative Jensen–Shannon distance between the posterior and the one with p(part)^alpha grows
    in log2 alpha at alpha = 1, by draws reweighted by p(part)^(alpha − 1), Pareto-smoothed. Both at or above 0.05: the prior and the
    data pull on the quantity in ways that do not agree, or both are informative (`prior-data conflict`); the prior's alone: the prior
    decides, or the data say little (`strong prior / weak likelihood`). With few draws chance alone passes 0.05: where the same draws with
    their prior densities shuffled do, that level takes its place for the prior.

    Args:
        quantities: name -> (C, S) draws of the posterior, C chains. log_priors: site -> (C, S) log prior density of the site's values.
        log_likelihood: (C, S). Constants do not matter in either.
    """
    import arviz as az  # slow to import, and nothing else of an inference waits for it

    names = {f"q{i}": name for i, name in enumerate(quantities)}  # names of ours are no names of variables
    parts = {f"p{i}": site for i, site in enumerate(log_priors)}
    draws = {key: np.asarray(quantities[name], dtype=np.float64) for key, name in names.items()}
    varying = {key: draw for key, draw in draws.items() if np.ptp(draw) > 0}  # what is constant cannot move
    data = az.from_dict(posterior=varying, log_likelihood={"data": np.asarray(log_likelihood, dtype=np.float64)})
    data.add_groups({"log_prior": {key: np.asarray(log_priors[site], dtype=np.float64) for key, site in parts.items()}})

    total = np.sum([np.asarray(value, dtype=np.float64) for value in log_priors.values()], axis=0)
    shuffled = np.random.default_rng(0).permuted(np.repeat(total.reshape(1, -1), _SHUFFLES, 0), axis=1).reshape(_SHUFFLES, *total.shape)
    data.log_prior.update({f"s{i}": (("chain", "draw"), value) for i, value in enumerate(shuffled)})

    def sensitivity(component: str, of: list[str] | None = None) -> Array:
        found = az.psens(data, component=component, component_var_names=of, delta=_DELTA)
        return np.array([float(found[key]) if key in varying else 0.0 for key in names])

    prior, likelihood = sensitivity("prior", list(parts)), sensitivity("likelihood")
    chance = float(np.quantile([sensitivity("prior", [f"s{i}"]) for i in range(_SHUFFLES)], 0.95))
    each = {site: sensitivity("prior", [key]) for key, site in parts.items()}
    most = np.array(list(each))[np.argmax(np.stack(list(each.values())), 0)]
    columns: dict[str, object] = {
        "quantity": list(quantities),
        "mean": [draw.mean() for draw in draws.values()],
        "sd": [draw.std(ddof=1) for draw in draws.values()],
        "prior": prior,
        "likelihood": likelihood,
        "diagnosis": [diagnosis(p, q, max(THRESHOLD, chance)) for p, q in zip(prior, likelihood, strict=True)],
        "site": most,
    }
    table = pd.DataFrame(columns | {f"prior_{site}": value for site, value in each.items()})
    components = {"prior": total, "likelihood": np.asarray(log_likelihood, dtype=np.float64)}
    return PowerScaling(table, {name: _k_hat(component) for name, component in components.items()}, chance)


def diagnosis(prior: float, likelihood: float, least: float = THRESHOLD) -> str:
    """The paper's reading of two sensitivities; `least`: below it the one to the prior counts as none."""
    if prior < least:
        return FINE
    return CONFLICT if likelihood >= THRESHOLD else STRONG


def _k_hat(component: Array) -> float:
    import arviz as az

    return max(float(np.max(az.psislw((alpha - 1) * component.reshape(1, -1))[1])) for alpha in (1 + _DELTA, 1 / (1 + _DELTA)))

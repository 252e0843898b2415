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


@dataclass(frozen=True)
class PowerScaling:
    """What power-scaling finds.

    Attributes:
        table: a row a quantity: `quantity, mean, sd, prior, likelihood, diagnosis, site` (whose prior moves it most) and
            `prior_<site>` for every site. k_hat: component -> the larger of the two Pareto k-hats of its weights.
    """

    table: pd.DataFrame
    k_hat: dict[str, float]

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
    decides, or the data say little (`strong prior / weak likelihood`).

    Args:
        quantities: name -> (C, S) draws of the posterior, C chains. log_priors: site -> (C, S) log prior density of the site's values.
        log_likelihood: (C, S). Constants do not matter in either.
    """
    import arviz as az  # slow to import, and nothing else of an inference waits for it

    names = {f"q{i}": name for i, name in enumerate(quantities)}  # names of ours are no names of variables
    parts = {f"p{i}": site for i, site in enumerate(log_priors)}
    draws = {key: np.asarray(quantities[name], dtype=np.float64) for key, name in names.items()}
    data = az.from_dict(posterior=draws, log_likelihood={"data": np.asarray(log_likelihood, dtype=np.float64)})
    data.add_groups({"log_prior": {key: np.asarray(log_priors[site], dtype=np.float64) for key, site in parts.items()}})

    def sensitivity(component: str, of: list[str] | None = None) -> Array:
        found = az.psens(data, component=component, component_var_names=of, delta=_DELTA)
        # A quantity that does not vary cannot move.
        return np.array([float(found[key]) if np.ptp(draws[key]) > 0 else 0.0 for key in names])

    prior, likelihood = sensitivity("prior"), sensitivity("likelihood")
    each = {site: sensitivity("prior", [key]) for key, site in parts.items()}
    most = np.array(list(each))[np.argmax(np.stack(list(each.values())), 0)]
    columns: dict[str, object] = {
        "quantity": list(quantities),
        "mean": [draw.mean() for draw in draws.values()],
        "sd": [draw.std(ddof=1) for draw in draws.values()],
        "prior": prior,
        "likelihood": likelihood,
        "diagnosis": [diagnosis(p, q) for p, q in zip(prior, likelihood, strict=True)],
        "site": most,
    }
    table = pd.DataFrame(columns | {f"prior_{site}": value for site, value in each.items()})
    total = np.sum([np.asarray(value, dtype=np.float64) for value in log_priors.values()], axis=0)
    components = {"prior": total, "likelihood": np.asarray(log_likelihood, dtype=np.float64)}
    return PowerScaling(table, {name: _k_hat(component) for name, component in components.items()})


def diagnosis(prior: float, likelihood: float) -> str:
    """The paper's reading of two sensitivities."""
    if prior < THRESHOLD:
        return FINE
    return CONFLICT if likelihood >= THRESHOLD else STRONG


def _k_hat(component: Array) -> float:
    import arviz as az

    return max(float(np.max(az.psislw((alpha - 1) * component.reshape(1, -1))[1])) for alpha in (1 + _DELTA, 1 / (1 + _DELTA)))

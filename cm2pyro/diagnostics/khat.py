"""Whether a variational posterior of the global sites can be believed: Pareto-smoothed importance sampling."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from torch import Tensor

from cm2pyro.inference.mcmc import Potential
from cm2pyro.inference.program import Program

GOOD, BAD = 0.5, 0.7  # Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72); Yao et al. 2018, ICML


@dataclass(frozen=True)
class KHat:
    """k: shape of the tail of the importance ratios; above 0.7 the guide misses part of the posterior. draws: it was taken from."""

    k: float
    draws: int

    @property
    def verdict(self) -> str:
        if self.k < GOOD:
            return "good"
        return "usable" if self.k < BAD else "not to be believed"


def khat(program: Program, potential: Potential, draws: int = 400, seed: int = 0) -> KHat:
    """k-hat of the guide of the global sites against p(sites | z_observed, y) at β = 1, the latents held; see `frozen_potential`."""
    import arviz as az

    ratios = torch.stack(log_ratios(program, potential, draws, seed)).numpy()
    return KHat(shape(ratios, az), draws)


def shape(log_ratios: NDArray[np.float64], az: object) -> float:
    """The Pareto shape of log importance ratios (S,)."""
    _, k = az.psislw(log_ratios - log_ratios.max())  # type: ignore[attr-defined]
    return float(np.asarray(k))


def log_ratios(program: Program, potential: Potential, draws: int, seed: int) -> list[Tensor]:
    """log p(sites, z_observed, y) − log q(sites) of draws from the guide."""
    found = []
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(draws):
            values: dict[str, Tensor] = {}
            log_q = torch.zeros((), dtype=torch.float64)
            for guide in (program.guide.globals, program.guide.head):
                if guide is None:
                    continue
                trace: Any = poutine.trace(guide).get_trace()
                log_q = log_q + torch.as_tensor(trace.log_prob_sum()).double()
                values |= {name: trace.nodes[name]["value"].double() for name in potential.priors if name in trace.nodes}
            found.append(potential.log_prior(values) + potential.log_likelihood(values) - log_q)
    return found

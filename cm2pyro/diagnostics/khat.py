"""Whether a variational posterior of the global sites can be believed: Pareto-smoothed importance sampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.guides.globals import GlobalGuide
from cm2pyro.inference.mcmc import Potential
from cm2pyro.inference.refit_guide import log_ratio

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


def khat(guides: Sequence[GlobalGuide], potential: Potential, draws: int = 400, seed: int = 0) -> KHat:
    """k-hat of the guides of the global sites against p(sites | z_observed, y) at β = 1, the latents held; see `frozen_potential`."""
    import arviz as az

    ratios = torch.stack(log_ratios(guides, potential, draws, seed)).numpy()
    return KHat(shape(ratios, az), draws)


def shape(log_ratios: NDArray[np.float64], az: object) -> float:
    """The Pareto shape of log importance ratios (S,)."""
    _, k = az.psislw(log_ratios - log_ratios.max())  # type: ignore[attr-defined]
    return float(np.asarray(k))


def log_ratios(guides: Sequence[GlobalGuide], potential: Potential, draws: int, seed: int) -> list[Tensor]:
    """log p(sites, z_observed, y) − log q(sites) of draws from the guide."""
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True), torch.no_grad():
        torch.manual_seed(seed)
        return [log_ratio(guides, potential) for _ in range(draws)]

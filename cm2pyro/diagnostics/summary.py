"""mixture.json: the learned mixture in numbers, for people and scripts."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from cm2pyro.data.embedding import Embedding
from cm2pyro.data.prepared import Preparation
from cm2pyro.distributions import CopulaMixture
from cm2pyro.distributions.copulas.base import tau_of_pair
from cm2pyro.files import write_text

_DRAWS = 20_000  # Monte-Carlo error of an overall tau: about 0.005


def describe(mixture: CopulaMixture, preparation: Preparation) -> dict[str, Any]:
    """Weights, locations, scales and dependence.

    `tau` is Kendall's tau inside a component, per latent dimension; `overall_tau` that of the whole mixture, clusters
    included, by simulation. `locs` and `scales` are in latent units; for a modality whose encoder is `identity` in the
    units of the given vectors, and `units` says which.
    """
    names = preparation.names
    device = mixture.locs.device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        draws = mixture.rsample((_DRAWS,)).cpu().numpy()
        tau = mixture.copula.tau().cpu()
    D = draws.shape[-1]
    locs, scales = mixture.locs.cpu().double().numpy().copy(), mixture.scales.cpu().double().numpy().copy()
    units = {}
    for m, (name, kind) in enumerate(preparation.kinds.items()):
        units[name] = "latent"
        if isinstance(kind, Embedding) and kind.modality.encoder == "identity" and np.isfinite(kind.scaling.scale).all():
            units[name] = "given"
            locs[m], scales[m] = kind.scaling.inverse(locs[m]), scales[m] * kind.scaling.scale
    pairs = list(combinations(range(len(names)), 2))
    inside = {f"{names[a]}~{names[b]}": tau_of_pair(tau, a, b).expand(D).tolist() for a, b in pairs}
    overall = {f"{names[a]}~{names[b]}": [float(kendalltau(draws[:, a, j], draws[:, b, j]).statistic) for j in range(D)] for a, b in pairs}
    return {
        "weights": mixture.log_weights.exp().tolist(),
        "assignment": mixture.assignment.tolist(),
        "locs": dict(zip(names, locs.tolist(), strict=True)),
        "scales": dict(zip(names, scales.tolist(), strict=True)),
        "units": units,
        "family": mixture.copula.family,
        "tau": inside,
        "overall_tau": overall,
    }


def write(run: Path, mixture: CopulaMixture, preparation: Preparation) -> None:
    """Write mixture.json into a run folder."""
    write_text(run / "mixture.json", json.dumps(describe(mixture, preparation), indent=1) + "\n")

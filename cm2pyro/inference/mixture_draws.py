"""Draws of a fit's global sites, their densities on frozen latents, and what they say of the mixture in numbers with names."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.mcmc import Potential
from cm2pyro.inference.program import Program

Values = dict[str, Tensor]


def site_draws(program: Program, draws: int, seed: int) -> Values:
    """Values of the global sites from their posterior, site -> (C, S, …) float64: the chains, or `draws` of the guide as one."""
    if program.chains is not None:
        return {name: value.double() for name, value in program.chains.values.items()}
    found = program.draw_globals(draws, seed)
    return {name: torch.stack([value[name] for value in found])[None].double() for name in found[0]}


def densities(potential: Potential, values: Values) -> tuple[Values, Tensor]:
    """Log prior of every site, site -> (C, S), and log likelihood (C, S), at draws (C, S, …) of the sites."""
    with torch.no_grad():
        flat = {name: value.flatten(0, 1) for name, value in values.items()}
        shape = next(iter(values.values())).shape[:2]
        each = [{name: value[i] for name, value in flat.items()} for i in range(shape.numel())]
        priors = {
            name: torch.stack([prior.log_prob(value[name]).sum() for value in each]).reshape(shape)
            for name, prior in potential.priors.items()
        }
        return priors, torch.stack([potential.log_likelihood(value) for value in each]).reshape(shape)


def named_quantities(structure: MixtureStructure, values: Values, names: Sequence[str]) -> Values:
    """Kendall's tau per pair and latent dimension, and weights, locs and scales of the components in the order of their locations.

    `tau[a~b, j]` (`tau[a~b]` of a tied copula), `weights[t]`, `locs[modality, k, j]`, `scales[modality, k, j]`, counted from 1. The
    copula's weights of a mixture of families, degrees of freedom and the outcome's head go by their site: `copula_df[j]`.

    Args:
        values: site -> (…, *site's shape).

    Returns:
        name -> (…).
    """
    lead = values[sites.WEIGHTS].shape[:-1]
    flat = {name: value.reshape(lead.numel(), *value.shape[len(lead) :]) for name, value in values.items()}
    with torch.no_grad():
        tau = torch.stack([structure.build({name: value[i] for name, value in flat.items()}).copula.tau() for i in range(lead.numel())])
    found: Values = {}
    if structure.modalities > 1:
        pairwise = tau.dim() > 1 + len(structure.copula.batch_shape)
        for a, b in combinations(range(structure.modalities), 2):
            one = tau[..., a, b] if pairwise else tau
            found |= _elements("tau", f"{names[a]}~{names[b]}", one.reshape(len(tau), -1), len(structure.copula.batch_shape))
    ordered = structure.ordered(flat)
    found |= _elements(sites.WEIGHTS, "", ordered[sites.WEIGHTS], 1)
    for site in (sites.LOCS, sites.SCALES):
        for m, name in enumerate(names):
            found |= _elements(site, name, ordered[site][:, m].flatten(1), 2, ordered[site].shape[2:])
    shown = {sites.WEIGHTS, sites.LOCS, sites.SCALES, sites.COPULA}
    for site, value in flat.items():
        if site not in shown and not (site.startswith(sites.COPULA) and value.dim() > 2):
            found |= _elements(site, "", value.flatten(1), value.dim() - 1, value.shape[1:])
    return {name: value.reshape(lead) for name, value in found.items()}


def _elements(site: str, of: str, value: Tensor, dims: int, shape: Sequence[int] | None = None) -> Values:
    """(n, V) -> name of each element -> (n,)."""
    shape = shape if shape is not None else value.shape[1:]
    found = {}
    for i in range(value.shape[1]):
        index = [str(n + 1) for n in np.unravel_index(i, tuple(shape))] if dims else []
        inner = ", ".join([*([of] if of else []), *index])
        found[f"{site}[{inner}]" if inner else site] = value[:, i]
    return found

"""Derivatives by what the mixture is made of, against plain differences of the log density."""

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch

from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference import curvature
from cm2pyro.inference.curvature import derivatives
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.models.priors import site_priors


def setting(structure: MixtureStructure, given: dict | None = None) -> tuple[FreeSites, torch.Tensor, torch.Tensor]:
    """Sites at a draw of their priors, and 40 rows of noise with modalities missing."""
    torch.manual_seed(0)
    priors = site_priors(structure, Priors(), given)
    free = FreeSites(structure, priors, {name: prior.sample().double() for name, prior in priors.items()})
    observed = torch.rand(40, structure.modalities) < 0.7
    observed[:, 0] |= ~observed.any(1)
    z = 2 * torch.randn(40, structure.modalities, structure.dim).double()
    return free, torch.where(observed[..., None], z, torch.nan), observed


def central(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, step: float) -> torch.Tensor:
    return torch.stack([(f(x + step * e) - f(x - step * e)) / (2 * step) for e in torch.eye(len(x), dtype=x.dtype)], 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("independence", {"modalities": 1}),
        ("gaussian", {}),
        ("student_t", {"components": 1, "modalities": 2}),
        ("frank", {}),
        ("gumbel", {"tied": True}),
        ("joe", {"coupling": "full", "modalities": 2}),
        ("mixture", {"families": ("clayton", "student_t"), "modalities": 2, "components": 1}),
        ("mixture", {"families": ("clayton", "gaussian"), "tied": True, "coupling": "full", "modalities": 2}),
    ],
)
def test_against_plain_differences(monkeypatch: pytest.MonkeyPatch, family: str, options: dict) -> None:
    free, z, observed = setting(MixtureStructure(**({"modalities": 3, "dim": 2, "components": 2, "family": family} | options)))
    monkeypatch.setattr(curvature, "_BLOCK", 17 * 8 * len(free.vector))  # more than one block of rows
    found = derivatives(free, free.vector, z, observed)
    # Forward differences: steps of 1e-6 and 1e-5 times a relative change of the derivative of the order of ten.
    gradient = free.gradient(free.vector, z, observed)
    torch.testing.assert_close(found.gradient, gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))
    with torch.no_grad():
        scores = central(lambda x: free.log_prob(x, z, observed), free.vector, 1e-6)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-5 * float(scores.abs().max()))
    hessian = central(lambda x: free.gradient(x, z, observed), free.vector, 1e-5)
    torch.testing.assert_close(found.information, -hessian, rtol=0, atol=1e-4 * float(hessian.abs().max()))


def test_a_prior_that_ties_dimensions_counts() -> None:
    joint = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    free, z, observed = setting(MixtureStructure(3, 2, 2), {"locs": joint})
    found = derivatives(free, free.vector, z, observed).information
    hessian = central(lambda x: free.gradient(x, z, observed), free.vector, 1e-5)
    torch.testing.assert_close(found, -hessian, rtol=0, atol=1e-4 * float(hessian.abs().max()))
    without = derivatives(setting(MixtureStructure(3, 2, 2))[0], free.vector, z, observed).information
    assert float((found - without).abs().max()) > 1  # the prior's precision is 5

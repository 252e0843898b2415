"""The order of components: the same mixture, however its components came."""

import pytest
import torch

from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.models.priors import site_priors

CASES = [("shared", 3, 4), ("full", 3, 3), ("full", 2, 4), ("full", 1, 3), ("shared", 2, 1), ("full", 2, 1)]


@pytest.mark.parametrize(("coupling", "M", "K"), CASES)
def test_ordered_values_build_the_same_density(coupling: str, M: int, K: int) -> None:
    structure = MixtureStructure(M, 2, K, coupling)
    torch.manual_seed(1)
    values = {name: prior.sample() for name, prior in site_priors(structure, Priors()).items()}
    ordered = structure.ordered(values)
    z = 3 * torch.randn(40, M, 2)
    observed = torch.rand(40, M) < 0.7
    expected = structure.build(values).log_prob(z, observed)
    torch.testing.assert_close(structure.build(ordered).log_prob(z, observed), expected)
    first = ordered["locs"][..., 0] if coupling == "full" else ordered["locs"][:1, :, 0]
    assert bool((first.diff(dim=-1) >= 0).all())
    if K > 1:
        assert not torch.equal(ordered["locs"], values["locs"])
    for name, value in structure.ordered(ordered).items():
        torch.testing.assert_close(value, ordered[name], rtol=0, atol=0)


@pytest.mark.parametrize(("coupling", "M", "K"), CASES)
def test_leading_dimensions_are_ordered_one_by_one(coupling: str, M: int, K: int) -> None:
    structure = MixtureStructure(M, 2, K, coupling)
    torch.manual_seed(1)
    values = {name: prior.sample((2, 5)) for name, prior in site_priors(structure, Priors()).items()}
    ordered = structure.ordered(values)
    for i in range(2):
        for j in range(5):
            one = structure.ordered({name: value[i, j] for name, value in values.items()})
            for name, value in one.items():
                torch.testing.assert_close(ordered[name][i, j], value, rtol=0, atol=0)


def test_permuted_components_come_out_alike() -> None:
    """What ordering is for: draws of one mixture under other labels are the same draw."""
    structure = MixtureStructure(2, 1, 3)
    torch.manual_seed(2)
    values = {name: prior.sample() for name, prior in site_priors(structure, Priors()).items()}
    order = torch.tensor([2, 0, 1])
    permuted = values | {"weights": values["weights"][order], "locs": values["locs"][:, order], "scales": values["scales"][:, order]}
    for name, value in structure.ordered(permuted).items():
        torch.testing.assert_close(value, structure.ordered(values)[name], rtol=0, atol=0)

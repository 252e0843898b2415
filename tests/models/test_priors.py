"""Priors of the global sites."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.models.priors import Floored, site_priors

STRUCTURE = MixtureStructure(modalities=3, dim=2, components=4)


def priors(**given: dict) -> Priors:
    return Priors.model_validate(given)


def test_defaults_have_the_shapes_of_their_sites() -> None:
    made = site_priors(STRUCTURE, Priors())
    shapes = {name: tuple(p.shape()) for name, p in made.items()}
    assert shapes == {"weights": (4,), "locs": (3, 4, 2), "scales": (3, 4, 2), "copula": (2, 3, 3)}
    assert all(p.batch_shape == () for p in made.values())
    tied = site_priors(MixtureStructure(3, 2, 4, tied=True), Priors())
    assert tuple(tied["copula"].shape()) == (3, 3)
    full = site_priors(MixtureStructure(3, 2, 2, "full"), Priors())
    assert tuple(full["weights"].shape()) == (8,)
    assert "copula" not in site_priors(MixtureStructure(3, 2, 4, family="independence"), Priors())
    assert "copula" not in site_priors(MixtureStructure(1, 2, 4), Priors())


def test_values_build_a_mixture_and_keep_its_floor() -> None:
    torch.manual_seed(0)
    values = {name: p.sample() for name, p in site_priors(STRUCTURE, Priors()).items()}
    mixture = STRUCTURE.build(values)
    assert mixture.rsample((5,)).shape == (5, 3, 2)
    assert float(values["scales"].min()) > STRUCTURE.scale_floor
    assert float((mixture.copula.tau() - torch.eye(3)).abs().max()) <= 0.99


def test_floored_is_the_shifted_distribution() -> None:
    base = dist.LogNormal(torch.tensor(0.3), torch.tensor(0.7))
    floored = Floored(base, 0.1)
    x = torch.tensor([0.2, 1.0, 5.0])
    torch.testing.assert_close(floored.log_prob(x), base.log_prob(x - 0.1))
    unconstrained = torch.tensor([-9.0, 0.0, 3.0])
    assert bool((biject_to(floored.support)(unconstrained) > 0.1).all())
    assert floored.expand((2, 3)).sample().shape == (2, 3)


def test_a_swapped_prior_is_the_one_used() -> None:
    made = site_priors(
        STRUCTURE,
        priors(
            locs={"dist": "StudentT", "df": 3, "loc": 1, "scale": 2},
            scales={"dist": "HalfNormal", "scale": 0.5},
            weights={"dist": "Dirichlet", "concentration": [1, 2, 3, 4]},
            copula={"dist": "LKJCorrCholesky", "eta": 5},
        ),
    )
    x = torch.randn(3, 4, 2)
    torch.testing.assert_close(made["locs"].log_prob(x), dist.StudentT(3.0, 1.0, 2.0).log_prob(x).sum())
    scales = x.abs() + 0.2
    torch.testing.assert_close(made["scales"].log_prob(scales), dist.HalfNormal(0.5).log_prob(scales - 0.1).sum())
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(made["weights"].log_prob(weights), dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0, 4.0])).log_prob(weights))
    tril = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(made["copula"].log_prob(tril), 2 * dist.LKJCholesky(3, torch.tensor(5.0)).log_prob(torch.eye(3)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"locs": {"dist": "Normale", "loc": 0, "scale": 1}}, "did you mean 'Normal'"),
        ({"locs": {"dist": "Qqqq"}}, "no distribution 'Qqqq'"),
        ({"locs": {"dist": "Normal", "loc": 0}}, "priors.locs: Normal cannot be made"),
        ({"locs": {"dist": "Normal", "loc": [0, 0, 0], "scale": 1}}, "does not expand"),
        ({"locs": {"dist": "Poisson", "rate": 1}}, "support"),
        ({"scales": {"dist": "Normal", "loc": 0, "scale": 1}}, "priors.scales: Normal has support"),
        ({"scales": {"dist": "Uniform", "low": 0, "high": 3}}, "support"),
        ({"scales": {"dist": "Pareto", "scale": 1, "alpha": 2}}, "support"),
        ({"locs": {"dist": "Uniform", "low": -1, "high": 1}}, "support"),
        ({"locs": {"dist": "Delta", "v": 0}}, "support"),
        ({"weights": {"dist": "Dirichlet", "concentration": [1, 1]}}, "shape"),
        ({"copula": {"dist": "Gamma", "concentration": 1, "rate": 1}}, "priors.copula"),
    ],
)
def test_refusals_name_the_site(given: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        site_priors(STRUCTURE, priors(**given))
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)

"""What a refusal of a prior's support recommends."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import transform_to

from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.models.priors import PRIORS, register_prior, site_priors

STRUCTURE = MixtureStructure(modalities=3, dim=2, components=4)


@pytest.mark.parametrize(
    ("site", "structure", "wrong", "some"),
    [
        ("locs", STRUCTURE, "Gamma", {"Normal", "Laplace", "StudentT"}),
        ("scales", STRUCTURE, "Normal", {"HalfNormal", "LogNormal", "Gamma", "InverseGamma"}),
        ("weights", STRUCTURE, "Normal", {"Dirichlet"}),
        ("copula", STRUCTURE, "Normal", {"LKJCholesky"}),
        ("copula", MixtureStructure(3, 2, 1, family="clayton"), "Normal", {"Beta", "Kumaraswamy"}),
        ("copula", MixtureStructure(2, 2, 1, family="frank"), "Normal", {"SymmetricBeta"}),
        ("copula_df", MixtureStructure(2, 2, 1, family="student_t"), "Normal", {"HalfNormal", "Gamma"}),
    ],
)
def test_a_refused_support_names_distributions_that_are_then_taken(
    site: str, structure: MixtureStructure, wrong: str, some: set[str]
) -> None:
    """Each of them in the middle of its arguments' ranges."""
    with pytest.raises(ConfigError) as refusal:
        site_priors(structure, Priors(), {site: getattr(dist, wrong)(1.0, 1.0)})
    named = str(refusal.value).rsplit("; choose ", 1)[1].removeprefix("one of ").split(", ")
    assert some <= set(named)
    assert wrong not in named
    size = structure.joint_components if site == "weights" else structure.modalities
    for name in named:
        cls = PRIORS.get(name)
        shapes = {key: (size,) * own.event_dim for key, own in cls.arg_constraints.items()}
        if name == "LogisticNormal":  # of vectors with one number less than its draws, which its constraints do not say
            shapes = dict.fromkeys(shapes, (size - 1,))
        arguments = {key: transform_to(cls.arg_constraints[key])(torch.zeros(shape)).tolist() for key, shape in shapes.items()}
        asked = site_priors(structure, Priors.model_validate({site: {"dist": name, **arguments}}))
        assert asked[site].shape() == site_priors(structure, Priors())[site].shape()


def test_a_distribution_of_another_package_is_among_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rayleigh(dist.Weibull):
        pass

    monkeypatch.setattr(PRIORS, "_entries", dict(PRIORS._entries))
    register_prior("Rayleigh", Rayleigh)
    with pytest.raises(ConfigError, match=r"choose one of .*, Rayleigh, "):
        site_priors(STRUCTURE, Priors.model_validate({"scales": {"dist": "Normal", "loc": 0, "scale": 1}}))

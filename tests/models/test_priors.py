"""Priors of the global sites."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

from cm2pyro.config import Config, Priors
from cm2pyro.distributions.copulas.frank import SymmetricBeta
from cm2pyro.distributions.floored import Floored
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError
from cm2pyro.models import check_model
from cm2pyro.models.priors import head_priors, site_priors

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


def test_a_distribution_of_our_own_can_be_named() -> None:
    """That of Frank's site with two modalities, which by default is 1 − x² up to a constant."""
    frank = MixtureStructure(2, 2, 1, family="frank")
    made = site_priors(frank, priors(copula={"dist": "SymmetricBeta", "concentration": 5}))["copula"]
    x = torch.tensor([[0.1, -0.2], [0.5, 0.6]])
    ratio = made.log_prob(x[0]) - made.log_prob(x[1])
    torch.testing.assert_close(ratio, 4 * ((1 - x[0] ** 2).log() - (1 - x[1] ** 2).log()).sum())
    with pytest.raises(ConfigError, match="did you mean 'SymmetricBeta'"):
        site_priors(frank, priors(copula={"dist": "SymetricBeta", "concentration": 5}))


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
        ({"copula": {"dist": "LKJ", "dim": 4, "concentration": 1}}, "priors.copula.dim: found 4, expected 3 modalities"),
        ({"locs": {"dist": "Delta", "v": 0}}, "Delta has support a point; the site needs Real()"),
        ({"locs": {"dist": "VonMises", "loc": 0, "concentration": 1}}, "VonMises has support a circle; the site needs Real()"),
        ({"scales": {"dist": "Gamma", "concentration": -2, "rate": 1}}, "found invalid values: -2.0)"),
        ({"locs": {"dist": "MultivariateStudentT", "df": 3, "loc": 0, "scale_tril": 1}}, "MultivariateStudentT cannot be made (Dimension"),
        (
            {"locs": {"dist": "GaussianMRF", "initial_dist": 1, "transition_dist": 1, "observation_dist": 1}},
            "GaussianMRF cannot be made (its",
        ),
        ({"locs": {"dist": "TorchDistribution"}}, "TorchDistribution has no support"),
        ({"locs": {"dist": "Distribution"}}, "no distribution 'Distribution'; did you mean 'TorchDistribution'"),
    ],
)
def test_refusals_name_the_site(given: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        site_priors(STRUCTURE, priors(**given))
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_priors_from_python_are_objects_or_callables() -> None:
    seen = {}

    def copula(shape: torch.Size) -> dist.TorchDistribution:
        seen["copula"] = tuple(shape)
        return dist.LKJCholesky(shape[-1], torch.tensor(7.0))

    made = site_priors(
        STRUCTURE, priors(locs={"dist": "Normal", "loc": 9, "scale": 9}), {"locs": dist.StudentT(3.0, 0.0, 1.0), "copula": copula}
    )
    assert seen == {"copula": (2, 3, 3)}
    x = torch.randn(3, 4, 2)
    torch.testing.assert_close(made["locs"].log_prob(x), dist.StudentT(3.0, 0.0, 1.0).log_prob(x).sum())
    expected = 2 * dist.LKJCholesky(3, torch.tensor(7.0)).log_prob(torch.eye(3))
    torch.testing.assert_close(made["copula"].log_prob(torch.eye(3).expand(2, 3, 3)), expected)


def test_a_vague_prior_whose_draws_round_to_the_floor_is_allowed() -> None:
    vague = {"dist": "Gamma", "concentration": 0.001, "rate": 0.001}
    made = site_priors(STRUCTURE, priors(scales=vague))["scales"]
    assert float(made.sample().min()) == pytest.approx(STRUCTURE.scale_floor)
    assert made.log_prob(torch.ones(3, 4, 2)).isfinite()


def test_the_three_names_of_lkj_are_one_prior() -> None:
    """A density over R and the one over its Cholesky factor that means the same."""
    tril = STRUCTURE.copula.priors()["copula"].sample()
    expected = dist.LKJCholesky(3, torch.tensor(5.0)).log_prob(tril).sum()
    for asked in (
        {"dist": "LKJ", "concentration": 5},
        {"dist": "LKJ", "dim": 3, "concentration": 5},
        {"dist": "LKJCholesky", "dim": 3, "concentration": 5},
        {"dist": "LKJCorrCholesky", "eta": 5},
    ):
        torch.testing.assert_close(site_priors(STRUCTURE, priors(copula=asked))["copula"].log_prob(tril), expected)
    given = dist.LKJ(3, torch.tensor(5.0))
    torch.testing.assert_close(site_priors(STRUCTURE, Priors(), {"copula": given})["copula"].log_prob(tril), expected)


def test_events_given_whole_are_the_same_prior() -> None:
    """A callable naturally makes a distribution of the site's shape, all of it one event."""
    for site, one in (("locs", dist.Normal(0.0, 2.0)), ("scales", dist.Gamma(2.0, 3.0))):
        plain = site_priors(STRUCTURE, Priors(), {site: one})[site]
        x = plain.sample()
        for made in (one.expand([2]).to_event(1), one.expand([3, 4, 2]), one.expand([3, 4, 2]).to_event(3)):
            found = site_priors(STRUCTURE, Priors(), {site: made})[site]
            assert found.event_shape == (3, 4, 2)
            torch.testing.assert_close(found.log_prob(x), plain.log_prob(x))
    given = dist.LKJCholesky(3, torch.tensor(7.0)).expand([2]).to_event(1)
    assert site_priors(STRUCTURE, Priors(), {"copula": given})["copula"].event_shape == (2, 3, 3)


def test_a_multivariate_normal_over_latent_dimensions() -> None:
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    normal = dist.MultivariateNormal(torch.tensor([1.0, -1.0]), covariance)
    made = site_priors(STRUCTURE, Priors(), {"locs": normal})["locs"]
    assert (made.batch_shape, made.event_shape) == ((), (3, 4, 2))
    x = torch.randn(3, 4, 2)
    torch.testing.assert_close(made.log_prob(x), normal.log_prob(x).sum())
    from_config = site_priors(
        STRUCTURE, priors(locs={"dist": "MultivariateNormal", "loc": [1.0, -1.0], "covariance_matrix": covariance.tolist()})
    )
    torch.testing.assert_close(from_config["locs"].log_prob(x), made.log_prob(x))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"locks": dist.Normal(0.0, 1.0)}, "no site 'locks'"),
        ({"locs": 3}, "priors.locs: found int, expected a Pyro distribution, or a callable from shape (3, 4, 2)"),
        ({"locs": lambda shape: shape}, "priors.locs: found Size"),
        ({"locs": dist.ImproperUniform(dist.constraints.real, (), ())}, "priors.locs: draws or their density fail"),
        ({"locs": dist.Normal}, "priors.locs: the callable fails on shape (3, 4, 2) (TypeError: "),
        ({"locs": torch.distributions.Normal(0.0, 1.0)}, "priors.locs: found Normal, expected a Pyro distribution"),
        ({"locs": dist.Normal(torch.zeros(5), 1.0)}, "priors.locs: shape (5,) does not expand to the site's (3, 4, 2)"),
        ({"locs": dist.MultivariateNormal(torch.zeros(3), torch.eye(3))}, "priors.locs: shape (3,) does not expand"),
        ({"scales": dist.Normal(0.0, 1.0)}, "priors.scales: Normal has support"),
        ({"weights": dist.Dirichlet(torch.ones(3))}, "priors.weights: Dirichlet has shape (3,); the site has (4,)"),
        ({"weights": dist.Beta(1.0, 1.0)}, "priors.weights: Beta has support"),
        ({"copula": dist.LKJCholesky(4, torch.tensor(1.0))}, "priors.copula: shape"),
        ({"copula_df": dist.Gamma(1.0, 1.0)}, "no site 'copula_df'"),
    ],
)
def test_refusals_of_priors_from_python(given: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        site_priors(STRUCTURE, Priors(), given)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_one_family_of_a_mixture_has_its_prior() -> None:
    structure = MixtureStructure(2, 3, 2, family="mixture", families=("gaussian", "clayton"))
    default = site_priors(structure, Priors())
    assert {name for name in default if name.startswith("copula")} == {"copula_gaussian", "copula_clayton", "copula_weights"}
    asked = {"dist": "Beta", "concentration1": 2, "concentration0": 5}
    made = site_priors(structure, priors(copula_clayton=asked, copula_weights={"dist": "Dirichlet", "concentration": 3}))
    x = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(made["copula_clayton"].log_prob(x), dist.Beta(2.0, 5.0).log_prob(x).sum())
    w = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(made["copula_weights"].log_prob(w), dist.Dirichlet(torch.tensor([3.0, 3.0])).log_prob(w))
    tril = torch.eye(2).expand(3, 2, 2)
    torch.testing.assert_close(made["copula_gaussian"].log_prob(tril), default["copula_gaussian"].log_prob(tril))
    with pytest.raises(ConfigError, match=r"priors\.copula_joe: the mixture copula has no such site"):
        site_priors(structure, priors(copula_joe=asked))


def test_head_priors() -> None:
    assert head_priors(Priors(), 2, 3) == {}
    made = head_priors(priors(head={"dist": "Laplace", "loc": 0, "scale": 0.5}), 2, 3)
    x, b = torch.randn(2, 3), torch.randn(2)
    torch.testing.assert_close(made["head"].log_prob(x), dist.Laplace(0.0, 0.5).log_prob(x).sum())
    torch.testing.assert_close(made["head_bias"].log_prob(b), dist.Normal(0.0, 5.0).log_prob(b).sum())
    given = {"head": lambda shape: dist.Normal(0.0, torch.arange(1.0, 4.0)).expand(shape), "head_bias": dist.Cauchy(0.0, 1.0)}
    made = head_priors(Priors(), 2, 3, given)
    torch.testing.assert_close(made["head"].log_prob(x), dist.Normal(0.0, torch.arange(1.0, 4.0)).log_prob(x).sum())
    torch.testing.assert_close(made["head_bias"].log_prob(b), dist.Cauchy(0.0, 1.0).log_prob(b).sum())
    with pytest.raises(ConfigError, match=r"priors\.head_bias: given, but head has no prior"):
        head_priors(Priors(), 2, 3, {"head_bias": dist.Normal(0.0, 1.0)})
    with pytest.raises(ConfigError, match=r"priors\.head: Gamma has support"):
        head_priors(priors(head={"dist": "Gamma", "concentration": 1, "rate": 1}), 2, 3)
    with pytest.raises(ConfigError, match=r"priors\.head: shape \(4,\) does not expand to the site's \(2, 3\)"):
        head_priors(priors(head={"dist": "Normal", "loc": [0, 0, 0, 0], "scale": 1}), 2, 3)


def test_a_prior_of_the_head_is_checked_with_the_config() -> None:
    """Before data are read; what only the data know, the number of classes, waits for them."""
    raw = {
        "task": {"type": "multiclass", "label": "label"},
        "modalities": {name: {"kind": "embedding", "encoder": "identity", "column": name} for name in ("a", "b")},
        "latent": {"dim": 2},
        "fusion": {"kind": "mlp", "layers": 0},
    }
    binary = raw | {"task": {"type": "binary", "label": "label"}}
    gamma, seven = {"dist": "Gamma", "concentration": 1, "rate": 1}, {"dist": "Normal", "loc": [0.0] * 7, "scale": 1}
    for config in (raw, binary):
        with pytest.raises(ConfigError, match=r"priors\.head: Gamma has support"):
            check_model(Config.from_dict(config | {"priors": {"head": gamma}}))
        with pytest.raises(ConfigError, match=r"priors\.head: HalfNormal has support"):
            check_model(Config.from_dict(config), {"head": dist.HalfNormal(1.0)})
    with pytest.raises(ConfigError, match=r"priors\.head: shape \(7,\) does not expand to the site's \(1, 4\)"):
        check_model(Config.from_dict(binary | {"priors": {"head": seven}}))
    state = torch.get_rng_state()
    check_model(Config.from_dict(raw), {"head": lambda shape: dist.Normal(torch.zeros(3, 4), 1.0)})
    check_model(Config.from_dict(binary), {"head": dist.Normal(0.0, 1.0)})
    assert torch.equal(state, torch.get_rng_state())


def test_a_symmetric_beta_of_a_number_is_that_of_a_tensor() -> None:
    x = torch.tensor([-0.5, 0.0, 0.9])
    assert torch.equal(SymmetricBeta(5.0).log_prob(x), SymmetricBeta(torch.tensor(5.0)).log_prob(x))
    assert torch.allclose(SymmetricBeta(1.0).log_prob(x), torch.tensor(0.5).log())  # uniform on (-1, 1)

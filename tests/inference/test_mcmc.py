"""NUTS on latents that stand still, against Pyro's own potential and posteriors that are known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from cm2pyro.config import Priors
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import CM2Error
from cm2pyro.inference.mcmc import Chains, Potential, approximation, sample_chains
from cm2pyro.models.priors import site_priors

pytestmark = pytest.mark.usefixtures("float64")


class Held:
    """A structure of which some sites have fixed values."""

    def __init__(self, structure: MixtureStructure, fixed: dict[str, Tensor]) -> None:
        self.structure, self.fixed = structure, fixed

    def build(self, values: dict[str, Tensor]) -> CopulaMixture:
        return self.structure.build(self.fixed | values)


def held(structure: MixtureStructure, free: str, fixed: dict[str, Tensor], z: Tensor, prior: object = None) -> Potential:
    given = {} if prior is None else {free: prior}
    priors = site_priors(structure, Priors(), given)
    return Potential(Held(structure, fixed), {free: priors[free]}, z, torch.ones(z.shape[:2], dtype=torch.bool))  # type: ignore[arg-type]


def standard_error(x: Tensor) -> Tensor:
    """Of the mean of draws (C, S, …)."""
    return x.flatten(0, 1).std(0) / effective_sample_size(x, chain_dim=0, sample_dim=1).sqrt()


FAMILIES = [("gaussian", ()), ("student_t", ()), ("clayton", ()), ("frank", ()), ("mixture", ("gaussian", "gumbel"))]


@pytest.mark.parametrize(("family", "families"), FAMILIES)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_the_potential_is_pyros(family: str, families: tuple[str, ...], missing: bool, coupling: str) -> None:
    structure = MixtureStructure(2, 2, 3, coupling, family, families=families)
    priors = site_priors(structure, Priors())
    torch.manual_seed(0)
    z = 2 * torch.randn(12, 2, 2)
    observed = torch.rand(12, 2) < 0.6 if missing else torch.ones(12, 2, dtype=torch.bool)
    assert bool(observed.all()) != missing
    known = torch.where(observed[..., None], z, torch.nan)  # what is missing must not enter

    def model() -> None:
        values = {name: pyro.sample(name, prior) for name, prior in priors.items()}
        mixture = structure.build(values)
        if missing:
            pyro.factor("z", mixture.log_prob(z, observed).sum())
        else:
            pyro.sample("z", mixture.expand([12]).to_event(1), obs=z)

    potential = Potential(structure, priors, known, observed)
    initial, theirs, _, _ = initialize_model(model)
    assert potential.size == sum(value.numel() for value in initial.values())
    for _ in range(5):
        x = torch.randn(potential.size)
        torch.testing.assert_close(potential(x), theirs(potential.free(x)), rtol=1e-9, atol=1e-9)
    values = potential.constrain(x)
    torch.testing.assert_close(potential.unconstrain(values), x, rtol=1e-5, atol=1e-5)


def test_extra_is_added_as_it_is() -> None:
    structure = MixtureStructure(2, 1, 1)
    priors = site_priors(structure, Priors()) | {"head": dist.Normal(0.0, 1.0).expand([2]).to_event(1)}
    z, observed = torch.randn(5, 2, 1), torch.ones(5, 2, dtype=torch.bool)
    with_extra = Potential(structure, priors, z, observed, lambda values, mixture: values["head"].sum() * mixture.locs.sum())
    plain = Potential(structure, priors, z, observed)
    x = torch.randn(plain.size)
    values = plain.constrain(x)
    torch.testing.assert_close(plain(x) - with_extra(x), values["head"].sum() * values["locs"].sum())


@pytest.mark.slow
def test_locations_match_the_conjugate_posterior() -> None:
    """K = 1, scales and correlation known: locs given z are normal, and correlated since the latents are."""
    structure = MixtureStructure(2, 1, 1)
    rho, n, prior_sd = 0.8, 15, 1.5
    scales = torch.tensor([0.7, 2.0])
    shrunk = structure.copula.build({"copula": torch.linalg.cholesky(torch.tensor([[[1, rho], [rho, 1]]]))}, scales).correlation[0]
    covariance = scales[:, None] * shrunk * scales
    torch.manual_seed(0)
    z = dist.MultivariateNormal(torch.tensor([1.0, -1.0]), covariance).sample((n,))
    fixed = {
        "weights": torch.ones(1),
        "scales": scales.reshape(2, 1, 1),
        "copula": torch.linalg.cholesky(torch.tensor([[[1.0, rho], [rho, 1.0]]])),
    }
    potential = held(structure, "locs", fixed, z[..., None], dist.Normal(0.0, prior_sd))
    precision = n * covariance.inverse() + torch.eye(2) / prior_sd**2
    mean = precision.inverse() @ (n * covariance.inverse() @ z.mean(0))
    mode, root = approximation(potential, torch.zeros(2))
    torch.testing.assert_close(mode, mean, atol=1e-4, rtol=0)
    # Of a normal posterior the normal approximation is exact; its curvature comes from differences.
    torch.testing.assert_close(root @ root.mT, precision.inverse(), rtol=1e-4, atol=1e-6)
    found = sample_chains(potential, {"locs": torch.zeros(2, 1, 1)}, chains=2, warmup=30, draws=150)
    draws = found.values["locs"].reshape(2, 150, 2)
    assert found.divergences == [0, 0]
    assert found.draws == 300
    assert bool(((draws.mean((0, 1)) - mean).abs() < 4.5 * standard_error(draws)).all())
    centred = draws - mean
    products = centred[..., :, None] * centred[..., None, :]
    assert bool(((products.mean((0, 1)) - precision.inverse()).abs() < 4.5 * standard_error(products)).all())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clayton", "gaussian"])
def test_kendalls_tau_matches_quadrature(family: str) -> None:
    """Everything but a copula of two coordinates is known: its posterior is one-dimensional."""
    structure = MixtureStructure(2, 1, 1, family=family)
    fixed = {"weights": torch.ones(1), "locs": torch.zeros(2, 1, 1), "scales": torch.ones(2, 1, 1)}
    torch.manual_seed(1)
    z = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])).sample((30,))[..., None]
    potential = held(structure, "copula", fixed, z)
    grid = torch.linspace(-7, 7, 141)[:, None]
    with torch.no_grad():
        mass = torch.stack([-potential(x) for x in grid]).softmax(0)
        taus = torch.stack([tau_of(structure, potential.constrain(x)) for x in grid])
    mean = float((mass * taus).sum())
    second = float((mass * taus**2).sum())
    start = potential.constrain(torch.zeros(1))
    found = sample_chains(potential, start, chains=2, warmup=30, draws=150, seed=3)
    copulas = found.values["copula"]
    tau = torch.stack([tau_of(structure, {"copula": one}) for one in copulas.flatten(0, 1)]).reshape(2, 150)
    assert float((tau.mean() - mean).abs()) < 4.5 * float(standard_error(tau))
    assert float(((tau**2).mean() - second).abs()) < 4.5 * float(standard_error(tau**2))
    assert float(taus.max()) > mean + 0.1  # the grid is wider than the posterior


def tau_of(structure: MixtureStructure, values: dict[str, Tensor]) -> Tensor:
    tau = structure.copula.build(values, values["copula"]).tau()
    return tau[..., 0, 1].reshape(()) if tau.dim() > 1 else tau.reshape(())


def small() -> tuple[Potential, dict[str, Tensor]]:
    structure = MixtureStructure(1, 1, 1)
    torch.manual_seed(0)
    z = torch.randn(20, 1, 1)
    potential = Potential(structure, site_priors(structure, Priors()), z, torch.ones(20, 1, dtype=torch.bool))
    return potential, {name: prior.sample() for name, prior in potential.priors.items()}


def drawn(potential: Potential, start: dict[str, Tensor], seed: int, **more: int) -> Chains:
    return sample_chains(potential, start, **({"chains": 2, "warmup": 10, "draws": 5} | more), seed=seed)


@pytest.mark.slow
def test_seeds_reproduce_and_chains_differ() -> None:
    potential, start = small()
    torch.manual_seed(7)
    first = drawn(potential, start, 1)
    after = torch.rand(3)
    again, other = drawn(potential, start, 1), drawn(potential, start, 2)
    for name, value in first.values.items():
        torch.testing.assert_close(again.values[name], value, rtol=0, atol=0)
    assert not torch.equal(first.values["locs"], other.values["locs"])
    assert not torch.equal(first.values["locs"][0], first.values["locs"][1])
    # The caller's random state is as it was.
    torch.manual_seed(7)
    torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)


@pytest.mark.parametrize("draws", [1, 3])
def test_few_draws_are_drawn(draws: int) -> None:
    potential, start = small()
    calls = []
    found = sample_chains(potential, start, chains=2, warmup=2, draws=draws, progress=lambda *call: calls.append(call))
    assert found.values["locs"].shape == (2, draws, 1, 1, 1)
    assert len(found.divergences) == 2
    assert found.warmup == 2
    total = 2 + draws
    assert calls == [(chain, done, total) for chain in range(2) for done in range(1, total + 1)]


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_start_where_nothing_is_finite_is_refused(bad: float) -> None:
    potential, start = small()
    potential.extra = lambda values, mixture: values["locs"].sum() * 0 + bad
    with pytest.raises(CM2Error, match="not finite near the point estimate") as refusal:
        drawn(potential, start, 0)
    assert "\n" not in str(refusal.value)


def test_a_vector_prior_is_followed() -> None:
    """A multivariate normal over latent dimensions, in the single precision in which configs make priors."""
    torch.set_default_dtype(torch.float32)
    structure = MixtureStructure(2, 2, 1)
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    priors = site_priors(structure, Priors(), {"locs": dist.MultivariateNormal(torch.zeros(2), covariance)})
    z = torch.zeros(4, 2, 2)
    potential = Potential(structure, priors, z, torch.ones(4, 2, dtype=torch.bool))
    values = {name: prior.sample().double() for name, prior in priors.items()}
    expected = dist.MultivariateNormal(torch.zeros(2).double(), covariance.double()).log_prob(values["locs"]).sum()
    others = sum(prior.log_prob(values[name]).sum() for name, prior in potential.priors.items() if name != "locs")
    torch.testing.assert_close(potential.log_prior(values), expected + others, rtol=1e-5, atol=1e-5)


def test_weights_of_distant_components_have_their_beta_posterior() -> None:
    """Where every row's component is certain, counts are all that weights learn from, and the Dirichlet prior is conjugate."""
    structure = MixtureStructure(2, 1, 2, family="gaussian")
    fixed = {
        "locs": torch.tensor([[-9.0, 9.0], [-9.0, 9.0]]).reshape(2, 2, 1),
        "scales": torch.ones(2, 2, 1),
        "copula": torch.linalg.cholesky(torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])),
    }
    values = fixed | {"weights": torch.tensor([0.2, 0.8])}
    torch.manual_seed(5)
    with torch.no_grad():
        z = structure.build(values).rsample((60,))
    first = int((z[:, 0, 0] < 0).sum())
    potential = held(structure, "weights", fixed, z, dist.Dirichlet(torch.tensor([3.0, 3.0])))
    found = sample_chains(potential, values, chains=2, warmup=30, draws=150, seed=4)
    w = found.values["weights"][..., 0]
    exact = torch.distributions.Beta(first + 3.0, 60 - first + 3.0)
    assert float((w.mean() - exact.mean).abs()) < 4.5 * float(standard_error(w))
    squares = (w - exact.mean) ** 2
    assert float((squares.mean() - exact.variance).abs()) < 4.5 * float(standard_error(squares))

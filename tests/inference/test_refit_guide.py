"""A guide fitted to the posterior of global sites on latents that stand still."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from cm2pyro.config import Priors
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.guides.globals import GLOBAL_GUIDES, GlobalGuide
from cm2pyro.inference.mcmc import Potential, sample_chains
from cm2pyro.inference.refit_guide import log_ratio, refit_guide
from cm2pyro.models.priors import site_priors

pytestmark = pytest.mark.slow

STRUCTURE = MixtureStructure(modalities=2, dim=1, components=1)
GUIDES = ("normal", "lowrank", "fullrank", "flow")


@pytest.fixture(autouse=True)
def _local() -> None:
    with pyro.settings.context(module_local_params=True):
        yield


def potential(rows: int = 200) -> Potential:
    """One component with two correlated modalities: its posterior is nearly normal."""
    torch.manual_seed(0)
    shared = torch.randn(rows, 1, 1, dtype=torch.float64)
    z = shared + 0.5 * torch.randn(rows, 2, 1, dtype=torch.float64) + 1.0
    priors = site_priors(STRUCTURE, Priors())
    return Potential(STRUCTURE, priors, z, torch.ones(rows, 2, dtype=torch.bool))


def start(found: Potential) -> dict[str, Tensor]:
    return found.constrain(torch.zeros(found.size, dtype=torch.float64))


def make(name: str, found: Potential) -> GlobalGuide:
    torch.manual_seed(1)
    return GLOBAL_GUIDES.get(name)(lambda: {site: pyro.sample(site, prior) for site, prior in found.priors.items()})


def draws(guide: GlobalGuide, n: int = 300) -> dict[str, Tensor]:
    torch.manual_seed(2)
    with torch.no_grad():
        each = [guide() for _ in range(n)]
    return {site: torch.stack([one[site] for one in each]).double() for site in each[0]}


@pytest.fixture(scope="module")
def gold() -> dict[str, Tensor]:
    found = potential()
    chains = sample_chains(found, start(found), chains=1, warmup=20, draws=150)
    return {site: value[0] for site, value in chains.values.items()}


@pytest.mark.parametrize("name", GUIDES)
def test_it_finds_the_posterior_that_nuts_draws_from(name: str, gold: dict[str, Tensor]) -> None:
    found = potential()
    guide = make(name, found)
    refit_guide([guide], found, start(found), steps=25)
    mine = draws(guide)
    for site in ("locs", "scales"):
        sd = gold[site].std(0)
        # Means of 300 and 150 draws: 5 standard errors.
        assert float(((mine[site].mean(0) - gold[site].mean(0)).abs() / sd).max()) < 5 * math.sqrt(1 / 300 + 1 / 150)
        ratio = mine[site].std(0) / sd
        # Locations, and scales too, are correlated: independent normals are narrower, by 0.6 for locations at correlation 0.8.
        low, high = (0.4, 0.85 if site == "locs" else 1.3) if name == "normal" else (0.75, 1.3)
        assert float(ratio.min()) > low
        assert float(ratio.max()) < high


@pytest.mark.parametrize("name", GUIDES)
def test_the_end_is_never_worse_than_the_beginning(name: str) -> None:
    found = potential(60)
    reached = [refit_guide([make(name, found)], found, start(found), steps=steps) for steps in (0, 10)]
    assert reached[1] >= reached[0]


def test_more_dependence_gives_a_greater_elbo() -> None:
    found = potential()
    elbo = {name: refit_guide([make(name, found)], found, start(found), steps=10) for name in ("normal", "fullrank")}
    # Two normals at correlation 0.8 lose 0.5 log(1 / (1 - 0.64)) = 0.5 nats when taken as independent.
    assert elbo["fullrank"] > elbo["normal"] + 0.25


def test_two_guides_share_the_sites_and_the_callers_generator_stays() -> None:
    found = potential(60)

    def some(names: set[str]) -> GlobalGuide:
        return GLOBAL_GUIDES.get("normal")(lambda: {s: pyro.sample(s, p) for s, p in found.priors.items() if s in names})

    parts = [some({"weights", "locs"}), some({"scales", "copula"})]
    state = torch.get_rng_state()
    together = refit_guide(parts, found, start(found), steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert math.isfinite(together)
    assert float(log_ratio(parts, found).detach()) == pytest.approx(together, abs=30)


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_takes_on_the_covariance_that_its_family_has(name: str) -> None:
    size = 5
    torch.manual_seed(3)
    guide = GLOBAL_GUIDES.get(name)(lambda: {"x": pyro.sample("x", dist.Normal(0.0, 1.0).expand([size]).to_event(1))})
    factor = torch.randn(size, 1)
    covariance = factor @ factor.mT + torch.diag(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    guide.spread(covariance)
    torch.manual_seed(4)
    with torch.no_grad():
        x = torch.stack([guide()["x"] for _ in range(2000)])
    expected = covariance
    if name == "normal":
        expected = torch.diag(1 / torch.linalg.inv(covariance).diagonal())
    # The error of a covariance of 2,000 draws is about sqrt(2 / 2000) of the variances; rank 2 leaves a little off the diagonal.
    scale = covariance.diagonal().sqrt()
    off = 0.15 if name == "lowrank" else 5 * math.sqrt(2 / 2000)
    assert float(((torch.cov(x.mT) - expected).abs() / (scale[:, None] * scale)).max()) < off

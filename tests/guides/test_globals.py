"""Guides of the global sites: starts, two in a trace, a posterior that is known, checkpoints."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from cm2pyro.guides.globals import GLOBAL_GUIDES, FlowGuide, FullRankGuide, GlobalGuide, LowRankGuide, NormalGuide

NAMES = ("delta", "normal", "lowrank", "fullrank", "flow")
VALUES = {"w": torch.tensor([0.2, 0.5, 0.3]), "x": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "s": torch.tensor([0.3, 4.0])}
POSTERIOR = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
MEAN = torch.tensor([1.0, -1.0])


def sample_globals() -> dict[str, Tensor]:
    return {
        "w": pyro.sample("w", dist.Dirichlet(torch.ones(3))),
        "x": pyro.sample("x", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2)),
        "s": pyro.sample("s", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1)),
    }


def sample_head() -> dict[str, Tensor]:
    return {"head": pyro.sample("head", dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))}


def correlated() -> dict[str, Tensor]:
    return {"v": pyro.sample("v", dist.MultivariateNormal(MEAN, POSTERIOR))}


def make(name: str) -> GlobalGuide:
    torch.manual_seed(0)
    return GLOBAL_GUIDES.get(name)(sample_globals, "globals")


def shaken(guide: GlobalGuide) -> GlobalGuide:
    """As after some steps: every parameter has moved."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


@pytest.fixture(autouse=True)
def _local() -> None:
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("moved", [False, True])
def test_start_puts_the_median_there(name: str, moved: bool) -> None:
    guide = shaken(make(name)) if moved else make(name)
    guide.start(VALUES)
    for site, value in guide.median().items():
        torch.testing.assert_close(value, VALUES[site], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_site_that_is_not_started_stays(name: str) -> None:
    guide = make(name)
    before = {site: value.detach().clone() for site, value in guide.median().items()}
    guide.start({"x": VALUES["x"]})
    after = guide.median()
    torch.testing.assert_close(after["x"], VALUES["x"])
    for site in ("w", "s"):
        torch.testing.assert_close(after[site], before[site])


@pytest.mark.parametrize("name", NAMES)
def test_globals_and_head_share_a_trace(name: str) -> None:
    first, second = make(name), GLOBAL_GUIDES.get(name)(sample_head, "head")
    trace = poutine.trace(lambda: (first(), second())).get_trace()
    trace.compute_log_prob()
    sampled = {site for site, node in trace.nodes.items() if node["type"] == "sample" and not node["infer"].get("is_auxiliary")}
    assert sampled == {"w", "x", "s", "head"}

    def model() -> None:
        sample_globals()
        pyro.sample("y", dist.Normal(sample_head()["head"].sum(), 1.0), obs=torch.tensor(2.0))

    def guide() -> None:
        first()
        second()

    loss = Trace_ELBO().differentiable_loss(model, guide)
    loss.backward()
    # Each guide learns from its own part.
    for one in (first, second):
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in one.parameters())
        assert any(bool(p.grad.abs().sum() > 0) for p in one.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "lowrank", "fullrank", "flow"])
def test_the_density_of_a_draw_is_that_of_the_guide(name: str) -> None:
    """Changes of variables included: E_q[p(v) / q(v)] = 1 for a normalised p that q covers."""
    guide = make(name)
    torch.manual_seed(2)
    guide.start({"w": torch.full((3,), 1 / 3), "x": torch.zeros(2, 2), "s": torch.ones(2)})
    with torch.no_grad():
        # As wide as the priors, or the weights would have no variance to speak of.
        for key, parameter in guide.named_parameters():
            if "scale" in key and "cov_factor" not in key and "tril" not in key:
                parameter.copy_(torch.full_like(parameter, math.log(math.e**1.6 - 1) if "unconstrained" in key else math.log(1.6)))
        ratios = []
        for _ in range(500):
            q = poutine.trace(guide).get_trace()
            p = poutine.trace(poutine.replay(sample_globals, q)).get_trace()
            ratios.append(p.log_prob_sum() - q.log_prob_sum())
    weights = torch.stack(ratios).exp()
    error = float(weights.std() / len(weights) ** 0.5)
    assert error < 0.2
    assert float(weights.mean()) == pytest.approx(1, abs=5 * error)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "joint"), [(NormalGuide, False), (LowRankGuide, True), (FullRankGuide, True), (FlowGuide, True)])
def test_a_correlated_normal_is_recovered_where_the_guide_can(cls: type[GlobalGuide], joint: bool) -> None:
    torch.manual_seed(0)
    guide = cls(correlated, "globals")
    optimiser = torch.optim.Adam(guide.parameters(), lr=0.1)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.02 ** (1 / 500))
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=0)
    for _ in range(500):
        optimiser.zero_grad()
        elbo.differentiable_loss(correlated, guide).backward()
        optimiser.step()
        decay.step()
    with torch.no_grad():
        auto = guide.auto  # type: ignore[attr-defined]
        posterior = auto.get_posterior() if joint else dist.Normal(auto.locs.v, auto.scales.v)
        draws = posterior.sample((2000,))
    torch.testing.assert_close(guide.median()["v"].detach(), MEAN, atol=0.1, rtol=0)
    sd, correlation = draws.std(0), float(torch.corrcoef(draws.T)[0, 1])
    if joint:
        # Of 2,000 draws a correlation of 0.9 has sd (1 − 0.81) / √2000 = 0.004, an sd 0.016; the rest is the optimiser's.
        assert correlation == pytest.approx(0.9, abs=0.04)
        torch.testing.assert_close(sd, torch.ones(2), atol=0.12, rtol=0)
    else:
        # Mean field: no correlation, and the sd of each given the other, √(1 − 0.81).
        assert abs(correlation) < 0.1
        torch.testing.assert_close(sd, torch.full((2,), math.sqrt(0.19)), atol=0.06, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_state_goes_through_a_checkpoint(name: str) -> None:
    guide = shaken(make(name))
    torch.manual_seed(5)
    other = GLOBAL_GUIDES.get(name)(sample_globals, "globals")
    other.load_state_dict(guide.state_dict())
    torch.manual_seed(6)
    expected = guide()
    torch.manual_seed(6)
    for site, value in other().items():
        torch.testing.assert_close(value, expected[site], rtol=0, atol=0)


def test_held_sites_take_no_gradient_and_can_be_moved() -> None:
    guide = make("delta")
    guide.hold(["w", "x"])
    loss = Trace_ELBO().differentiable_loss(sample_globals, guide)
    loss.backward()
    moving = {name for name, p in guide.named_parameters() if p.grad is not None}
    assert moving == {"auto.s_unconstrained"}
    guide.start({"w": VALUES["w"], "x": VALUES["x"]})
    torch.testing.assert_close(guide.median()["w"], VALUES["w"])
    assert not any(p.requires_grad for name, p in guide.named_parameters() if "s_un" not in name)


@pytest.mark.parametrize("name", ["lowrank", "flow"])
def test_one_number_is_enough(name: str) -> None:
    """P = 1: nothing to correlate; and a simplex of one entry has no number at all."""

    def one() -> dict[str, Tensor]:
        return {"w": pyro.sample("w", dist.Dirichlet(torch.ones(1))), "x": pyro.sample("x", dist.Normal(0.0, 1.0))}

    guide = GLOBAL_GUIDES.get(name)(one, "globals")
    guide.start({"w": torch.ones(1), "x": torch.tensor(2.0)})
    assert float(guide.median()["x"].detach()) == pytest.approx(2)
    assert float(guide()["w"].detach()) == 1


@pytest.mark.parametrize("name", ["normal", "lowrank", "fullrank", "flow"])
def test_a_free_draw_has_the_density_of_the_guide(name: str) -> None:
    """Less its Jacobian, which the guide adds for constrained values: against its own trace, by the same random numbers."""
    guide = shaken(make(name))
    torch.manual_seed(3)
    with torch.no_grad():
        free, log_q = guide.rsample_free()
        torch.manual_seed(3)
        trace = poutine.trace(guide).get_trace()
    supports = {site: node["fn"].support for site, node in guide.auto.prototype_trace.iter_stochastic_nodes()}
    jacobian = torch.zeros(())
    for site, support in supports.items():
        transform = torch.distributions.biject_to(support)
        x = free[site].reshape(transform.inverse_shape(trace.nodes[site]["value"].shape))
        torch.testing.assert_close(transform(x), trace.nodes[site]["value"])
        jacobian = jacobian + transform.log_abs_det_jacobian(x, transform(x)).sum()
    assert float(trace.log_prob_sum()) == pytest.approx(float(log_q - jacobian), abs=1e-3)

"""The last part of the way to a maximum: bounds, saddles, and agreement with plain L-BFGS."""

import pytest
import torch

from cm2pyro.config import Priors
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference import leave_out as leaving
from cm2pyro.inference.ascent import Maximum, ascend, climb
from cm2pyro.inference.curvature import derivatives
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.inference.leave_out import leave_out
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.start import start_values
from cm2pyro.models.priors import site_priors


def latents(tau: list[float], n: int) -> torch.Tensor:
    """(n, 2, D) of one Gaussian component, with Kendall's tau of a Gaussian copula per dimension."""
    torch.manual_seed(0)
    locs = torch.zeros(2, 1, len(tau), dtype=torch.float64)
    copula = make_copula("gaussian", 2, tau=torch.tensor(tau, dtype=torch.float64))
    return CopulaMixture(torch.zeros(1).double(), torch.zeros(1, 2, dtype=torch.long), locs, torch.ones_like(locs), copula).rsample((n,))


def begun(structure: MixtureStructure, z: torch.Tensor, tau: list[float]) -> tuple[FreeSites, torch.Tensor]:
    """Sites at the usual start, but for the tau of a one-parameter family; and that everything is observed."""
    observed = torch.ones(z.shape[:2], dtype=torch.bool)
    values = start_values(structure, z, observed, 1, 0) | {"copula": torch.tensor(tau, dtype=torch.float64)}
    return FreeSites(structure, site_priors(structure, Priors()), values), observed


def test_a_parameter_at_its_bound_is_held_and_the_jackknife_holds() -> None:
    # Clayton has tau > 0, and in the first dimension tau is -0.4.
    z, structure = latents([-0.4, 0.4], 200), MixtureStructure(2, 2, 1, family="clayton")
    free, observed = begun(structure, z, [0.02, 0.5])
    end = ascend(free, free.vector, z, observed)
    assert end.held.tolist() == [False] * 8 + [True, False]
    assert end.gain() < 0.01
    tau = free.values(end.x)["copula"]
    assert float(tau[0]) < 1e-5
    assert 0.1 < float(tau[1]) < 0.6
    subjects = torch.arange(200)
    found = leave_out(structure, free.priors, free.values(end.x), z, observed, subjects)
    assert found.refits <= 2
    # Exactly, with every parameter free: three subjects, first of those that matter most.
    inside = free.log_prob(end.x, z, observed)
    drop = inside - found.elpd
    order = drop.argsort(descending=True)
    for s in (int(order[0]), int(order[5]), int(order[60])):
        out = subjects == s
        values, _ = maximise(structure, free.priors, found.values, list(found.values), z[~out], observed[~out], steps=300)
        exact = float(inside[s] - structure.build(values).log_prob(z[out], observed[out])[0])
        # Of first order, see tests/inference/test_select.py.
        assert float(drop[s]) == pytest.approx(exact, abs=0.005 + float(drop[s]) ** 2)


def test_a_parameter_comes_back_from_its_bound() -> None:
    z, structure = latents([0.4], 200), MixtureStructure(2, 1, 1, family="clayton")
    free, observed = begun(structure, z, [1e-6])
    end = ascend(free, free.vector, z, observed)
    assert not bool(end.held.any())
    assert float(free.values(end.x)["copula"]) > 0.1
    away, _ = begun(structure, z, [0.3])
    assert free.objective(end.x, z, observed) == pytest.approx(float(away.objective(ascend(away, away.vector, z, observed).x, z, observed)))


@pytest.mark.parametrize("family", ["gaussian", "student_t", "mixture"])
def test_the_maximum_of_plain_steps(family: str) -> None:
    z = torch.cat([latents([0.4], 150), latents([-0.2], 150) + 4])
    structure = MixtureStructure(2, 1, 2, family=family, families=("gaussian", "clayton") if family == "mixture" else ())
    observed = torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) < 0.85
    observed[:, 0] |= ~observed.any(1)
    priors, start = site_priors(structure, Priors()), start_values(structure, z, observed, 1, 0)
    free = FreeSites(structure, priors, start)
    end = ascend(free, free.vector, z, observed)
    plain = FreeSites(structure, priors, maximise(structure, priors, start, list(start), z, observed, steps=500)[0])
    reached, expected = (float(s.objective(x, z, observed)) for s, x in ((free, end.x), (plain, plain.vector)))
    assert reached > expected - 0.01
    if family != "mixture":  # whose families tell the same story in more than one way
        assert reached == pytest.approx(expected, abs=0.01)


def test_few_steps_suffice_without_a_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    z, structure = latents([0.4, 0.3], 100), MixtureStructure(2, 2, 1)
    z[0] = torch.tensor([[4.0, 4.0], [-4.0, 4.0]], dtype=torch.float64)
    observed = torch.ones(100, 2, dtype=torch.bool)
    priors, start = site_priors(structure, Priors()), start_values(structure, z, observed, 1, 0)
    free = FreeSites(structure, priors, start)
    end = ascend(free, free.vector, z, observed)
    counted: list[int] = []
    objective = FreeSites.objective
    monkeypatch.setattr(FreeSites, "objective", lambda self, *given: counted.append(1) or objective(self, *given))
    x = climb(free, end, z[1:], observed[1:], leaving._REFIT_STEPS)
    assert len(counted) <= 15
    after = Maximum(x, derivatives(free, x, z[1:], observed[1:]), end.held)
    assert after.gain() < 1e-3
    assert float(objective(free, x, z[1:], observed[1:]) - objective(free, end.x, z[1:], observed[1:])) > 0.05

"""Prior predictive draws, against priors whose predictive is known."""

import math

import numpy as np
import pyro.distributions as dist
import torch

from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference import prior_predictive as pp
from cm2pyro.models.likelihoods import Binary, Multilabel, Regression

NAMES = ("a", "b")


def test_quantities_of_a_model_that_is_held() -> None:
    structure = MixtureStructure(2, 1, 1)
    rho = 0.6
    held = {
        "weights": torch.ones(1),
        "locs": torch.zeros(2, 1, 1),
        "scales": torch.tensor([1.0, 3.0])[:, None, None],
        "copula": torch.linalg.cholesky(torch.tensor([[[1.0, rho], [rho, 1.0]]])),
    }
    state = torch.get_rng_state()
    found = pp.prior_predictive(structure, held, NAMES, draws=20, rows=1000, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    tau = 2 / math.pi * math.asin(rho)
    # One tau of 1,000 rows has an sd of at most 0.02: the mean of 20 is within 4 sd / sqrt(20); correlations are shrunk by 1e-4.
    assert abs(found[pp.OVERALL, "a~b"].mean() - tau) < 0.018
    np.testing.assert_allclose(found[pp.INSIDE, "a~b"], tau, atol=1e-3)
    np.testing.assert_allclose(found[pp.COMPONENTS, "a"], 1)
    assert abs(found[pp.SD, "b"].mean() - 3) < 4 * 3 / math.sqrt(2 * 1000 * 20)
    again = pp.prior_predictive(structure, held, NAMES, draws=20, rows=1000, seed=1)
    assert all(np.array_equal(found[key], again[key]) for key in found)


def test_the_prior_moves_the_draws() -> None:
    structure = MixtureStructure(2, 3, 2, family="clayton")
    priors = {
        "weights": dist.Dirichlet(torch.full((2,), 1000.0)),
        "locs": dist.Normal(torch.zeros(2, 2, 3), 0.01).to_event(3),
        "scales": dist.LogNormal(torch.zeros(2, 2, 3), 0.01).to_event(3),
        "copula": dist.Beta(torch.full((3,), 500.0), 500.0).to_event(1),
    }
    head = {"head": dist.Normal(torch.zeros(1, 6), 0.001).to_event(2), "head_bias": dist.Normal(torch.full((1,), 9.0), 0.01).to_event(1)}
    outcome = pp.OutcomeModel(Binary(2), head, ("no", "yes"), lambda: torch.nn.Flatten(-2))
    found = pp.prior_predictive(structure, priors, NAMES, outcome, draws=30, rows=50)
    assert found[pp.INSIDE, "a~b"].shape == (30, 3)
    assert abs(found[pp.INSIDE, "a~b"].mean() - 0.495) < 0.01
    assert np.all(found[pp.COMPONENTS, "b"] > 1.99)
    assert found[pp.OUTCOME, "rate of yes"].mean() > 0.99  # logit 9
    np.testing.assert_allclose(found[pp.SURE, "rows"], 1)


def test_quantities_of_data_leave_out_what_is_missing() -> None:
    z = torch.tensor([[[1.0], [4.0]], [[2.0], [3.0]], [[3.0], [2.0]], [[9.0], [float("nan")]]])
    observed = torch.tensor([[True, True]] * 3 + [[True, False]])
    found = pp.latent_quantities(z, observed, NAMES)
    assert found[pp.OVERALL, "a~b"].tolist() == [-1]
    np.testing.assert_allclose(found[pp.SD, "b"], [1.0])
    assert (pp.SD, "b") not in pp.latent_quantities(z, observed & torch.tensor([True, False]), NAMES)
    rates = pp.outcome_quantities(torch.tensor([[1, -1], [0, 1]]), Multilabel(2), ("x", "y"))
    assert {of: float(value[0]) for (_, of), value in rates.items()} == {"rate of x": 0.5, "rate of y": 1.0}
    assert pp.outcome_quantities(torch.tensor([0, 1, -1, 1]), Binary(2), ("0", "1"))[pp.OUTCOME, "rate of 1"][0] == 2 / 3
    assert pp.outcome_quantities(torch.tensor([1.0, float("nan"), 3.0]), Regression(0), ())[pp.OUTCOME, "mean"][0] == 2


def test_percentile_and_frame() -> None:
    q = pp.Quantity(pp.SD, "a", np.arange(100.0)[:, None], np.array([20.0, 30.0]))
    row = pp.PriorPredictive([q], 100, 10, []).frame().iloc[0]
    assert (row["data"], row["data_low"], row["data_high"], row["percentile"]) == (25, 20, 30, 0.25)
    assert row["q50"] == 49.5

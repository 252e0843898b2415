"""The selection model's likelihood, predictions and imputed latents against quadrature, and a whole fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.impute import impute
from cm2pyro.inference.predict import predict
from cm2pyro.inference.program import Program
from tests.models.selections import config, frame, latents, make, trace_of

pytestmark = pytest.mark.slow

SLOPE, ODDS, SHIFT = 1.5, (-0.4, 2.0), 1.2  # of the outcome on z; of being observed; with class 1


def line(n: int, **options: Any) -> tuple[Program, Dataset]:
    """z ~ N(0, 1) of one modality, p(y = 1 | z) = sigmoid(1.5 z), everything missing."""
    program, dataset = make(n, 0.0, ("a",), 1, components=1, prior={"scale_floor": 0.01}, missingness=options)
    program.start({"locs": torch.zeros(1, 1, 1).double(), "scales": torch.ones(1, 1, 1).double()})
    model = program.model
    assert model.missingness is not None
    with torch.no_grad():
        model.head.weight.fill_(SLOPE)
        model.head.bias.zero_()
        model.missingness.odds[0].weight.fill_(ODDS[1])
        model.missingness.odds[0].bias.fill_(ODDS[0])
        if model.missingness.shift is not None:
            model.missingness.shift.fill_(SHIFT)
    return program, dataset.with_observed(torch.zeros(n, 1, dtype=torch.bool))


def exact(slope: float, odds: float, y: int, shift: float) -> float:
    """log p(y, r = 0) by quadrature."""
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    log_y = torch.nn.functional.logsigmoid((2 * y - 1) * slope * z)
    log_r = torch.nn.functional.logsigmoid(-(ODDS[0] + odds * z + shift * y))
    return float(torch.logsumexp(density + log_y + log_r, 0) + np.log(18 / 20_000))


@pytest.mark.parametrize("outcome", [False, True])
def test_value_and_slopes_of_the_likelihood_against_quadrature(outcome: bool) -> None:
    """400 rows of 1,000 draws: the standard error of a mean log density is below 0.002; a bound by single draws is off by 0.1 or more."""
    program, dataset = line(400, draws=1000, outcome=outcome)
    shift = SHIFT if outcome else 0.0
    torch.manual_seed(0)
    trace = trace_of(program, dataset, 1000)
    total = trace.nodes["outcome"]["log_prob"] + trace.nodes["observed_a"]["log_prob"]
    model = program.model
    assert model.missingness is not None
    z = latents(trace, ("a",))
    for y in (0, 1):
        rows = dataset.labels == y
        found, expected = total[rows].mean(), exact(SLOPE, ODDS[1], y, shift)
        assert abs(float(found.detach()) - expected) < 0.01
        log_y = torch.nn.functional.logsigmoid((2 * y - 1) * model.outputs(z))[..., 0]
        log_r = model.missingness.log_prob(z, dataset.observed)[y if outcome else 0]
        bound = (log_y + log_r).mean(0)[rows].mean()
        assert float(bound.detach()) < expected - 0.1
        slopes = torch.autograd.grad(found, [model.head.weight, model.missingness.odds[0].weight], retain_graph=True)
        step = 1e-4
        by_quadrature = [
            (exact(SLOPE + d * step, ODDS[1] + e * step, y, shift) - exact(SLOPE - d * step, ODDS[1] - e * step, y, shift)) / (2 * step)
            for d, e in ((1, 0), (0, 1))
        ]
        wrong = torch.autograd.grad(bound, [model.head.weight, model.missingness.odds[0].weight], retain_graph=True)
        np.testing.assert_allclose([float(slope) for slope in slopes], by_quadrature, atol=0.01)
        assert np.abs(np.array([float(slope) for slope in wrong]) - by_quadrature).max() > 0.1


@pytest.mark.parametrize("outcome", [False, True])
def test_draws_are_reweighted_in_prediction(outcome: bool) -> None:
    """p(y = 1 | r = 0) by quadrature; 20,000 draws shared by all rows, standard error about 0.003. Unweighted it would be 0.5."""
    program, dataset = line(2, outcome=outcome)
    prediction = predict([program], dataset, 20_000, 0)
    shift = SHIFT if outcome else 0.0
    one, zero = (np.exp(exact(SLOPE, ODDS[1], y, shift)) for y in (1, 0))
    expected = one / (one + zero)
    assert abs(expected - 0.5) > 0.1
    np.testing.assert_allclose(prediction.mean[:, 1], expected, atol=0.015)
    np.testing.assert_allclose(prediction.log_score, np.log([1 - expected, expected]), atol=0.03)
    assert (prediction.q05 < prediction.mean).all()
    assert (prediction.mean < prediction.q95).all()
    # Known latents: only a shift with the class can say more than they do.
    z = dataset.inputs["a"]["vector"][:, 0]
    complete = predict([program], dataset.with_observed(torch.ones(2, 1, dtype=torch.bool)), 5, 0)
    log_r = [torch.nn.functional.logsigmoid(ODDS[0] + ODDS[1] * z + shift * y) for y in (0, 1)]
    np.testing.assert_allclose(complete.mean[:, 1], torch.sigmoid(SLOPE * z + log_r[1] - log_r[0]), atol=1e-9)


def test_a_fit_says_what_it_rests_on_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    data, said = frame(60, 2, 0.4), []
    model = CM2.from_config(config(missingness={"outcome": True, "hidden": 4}), said.append).fit(data, tmp_path / "run")
    assert any("identified by its assumption alone" in line for line in said)
    assert model.history[-1]["missingness"] < 0
    again = CM2.load(tmp_path / "run")
    assert again.config.missingness == model.config.missingness
    pd.testing.assert_frame_equal(again.predict(data, draws=20), model.predict(data, draws=20))
    parameters = dict(again.program.model.missingness.named_parameters())  # type: ignore[union-attr]
    assert all(bool((value != 0).any()) for value in parameters.values())


def test_imputed_latents_take_the_mechanism_into_account() -> None:
    """One dimension: p(z_b | z_a, b missing) ∝ p(z_b | z_a) p(missing | z), by quadrature."""
    names, draws = ("a", "b"), 400
    program, dataset = make(n=30, names=names, dim=1, missing=0.5, components=1)
    row = next(i for i in range(30) if dataset.observed[i].tolist() == [True, False])
    with torch.no_grad():
        program.model.missingness.odds[1].weight.copy_(torch.tensor([[0.3, -2.0]]))
    z = torch.from_numpy(impute([program.eval()], dataset, draws, seed=0)[:, row, :, 0]).double()
    assert z[:, 0].unique().numel() == 1
    mixture = program.mixture()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    pairs = torch.stack([z[:1, 0].expand(4001), grid], -1)[..., None]
    observed = dataset.observed[row].expand(4001, 2)
    log_p = mixture.log_prob(pairs)
    with torch.no_grad():
        plain, selected = log_p.softmax(0), (log_p + program.model.missingness.log_prob(pairs, observed)[0]).softmax(0)
    mean, before = (selected * grid).sum(), (plain * grid).sum()
    sd = (selected * (grid - mean) ** 2).sum().sqrt()
    # Standard errors of resampled draws: those of independent ones, a little more for the finite number of proposals.
    assert abs(z[:, 1].mean() - mean) < 5 * sd / draws**0.5
    assert abs(z[:, 1].std() / sd - 1) < 5 / (2 * draws) ** 0.5
    assert abs(mean - before) > 10 * sd / draws**0.5  # the mechanism matters here

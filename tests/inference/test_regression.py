"""A number through fit, prediction and evaluation: its units, its density, its intervals."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.inference.program import Program
from tests.inference.outcomes import REGRESSION, config, table

pytestmark = pytest.mark.slow


def test_units_of_the_label_change_nothing_but_units() -> None:
    data = table()
    rescaled = data.assign(los=["" if cell == "" else repr(1000 * float(cell) - 7) for cell in data["los"]])
    one, two = (CM2.from_config(config(REGRESSION)).fit(frame) for frame in (data, rescaled))
    left, right = one.predict(data, draws=20), two.predict(rescaled, draws=20)
    for name in ("mean", "q05", "q95"):
        np.testing.assert_allclose(right[name], 1000 * left[name] - 7, rtol=1e-4)
    np.testing.assert_allclose(right["sd"], 1000 * left["sd"], rtol=1e-4)
    assert (left["q05"] < left["mean"]).all()
    assert (left["mean"] < left["q95"]).all()
    here, there = (model.evaluate(frame, bootstrap=0).metrics for model, frame in ((one, data), (two, rescaled)))
    assert there["r2"]["value"] == pytest.approx(here["r2"]["value"], abs=1e-4)
    # Standardised labels are the same, so is what stops the fit; the log score is of the label in its own units.
    assert two.history[-1]["val_log_loss"] == pytest.approx(one.history[-1]["val_log_loss"], abs=1e-4)
    assert there["log_score"]["value"] == pytest.approx(here["log_score"]["value"] - np.log(1000), abs=1e-4)


def test_the_log_score_is_the_log_density_of_the_label_in_its_own_units() -> None:
    """With latents given and everything observed the prediction is one normal."""
    data = table(missing=0.0)
    model = CM2.from_config(config(REGRESSION, "identity", prior={"components": 1})).fit(data)
    rows = data[(data["split"] == "test") & (data["los"] != "")]
    frame = model.predict(rows)
    y = rows["los"].astype(float).to_numpy()
    found = model.evaluate(data, bootstrap=0).metrics
    assert found["n"] == len(rows)
    assert found["log_score"]["value"] == pytest.approx(norm(frame["mean"], frame["sd"]).logpdf(y).mean(), abs=1e-6)
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(np.mean((y - frame["mean"]) ** 2)), rel=1e-6)
    np.testing.assert_allclose(frame["q95"] - frame["mean"], norm.ppf(0.95) * frame["sd"], rtol=1e-6)


def closed_form(model: CM2, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """log p(y | z_a) where b is missing, one component, a linear head: everything is normal. z (n,) of a, y (n,)."""
    p, program = model.mixture(), model.program
    rho = torch.sin(torch.pi / 2 * p.copula.tau()[..., 0, 1]).squeeze()
    loc_a, loc_b, scale_a, scale_b = p.locs[0, 0, 0], p.locs[1, 0, 0], p.scales[0, 0, 0], p.scales[1, 0, 0]
    given = loc_b + rho * scale_b * (z - loc_a) / scale_a
    (weights,), (bias,) = program.model.head.weight.detach(), program.model.head.bias.detach()
    noise = program.model.likelihood.scale.detach()
    sd = torch.sqrt(noise**2 + (weights[1] * scale_b) ** 2 * (1 - rho**2))
    return torch.distributions.Normal(weights[0] * z + weights[1] * given + bias, sd).log_prob(y)


def test_many_draws_of_what_is_missing_reach_the_density_of_the_outcome() -> None:
    """The log of a mean over draws rises to log p(y | z_observed); the latents' own density stays as with one draw."""
    data = table(missing=0.0)
    sections = {"prior": {"components": 1}, "fusion": {"layers": 0}, "fit": {"lr": 0.05}}
    model = CM2.from_config(config(REGRESSION, "identity", **sections)).fit(data)
    program = model.program
    dataset = model.preparation.transform(read_manifest(data.assign(b="")), labels=True)
    dataset = dataset.take(dataset.labelled.nonzero()[:, 0].tolist())
    batch = dataset.batch(torch.arange(len(dataset)))
    exact = closed_form(model, batch.inputs["a"]["vector"][:, 0], batch.labels.float())
    found, latent = {}, {}
    torch.manual_seed(0)
    with torch.no_grad():
        for draws in (1, 20, 5000):
            values = []
            for _ in range(20 if draws < 100 else 1):
                program.elbo(batch, completions=draws)
                trace = program.trace_elbo.traces[0]
                values.append(trace.nodes["outcome"]["log_prob"])
                assert trace.nodes["z_b"]["value"].shape == (draws, len(batch), 1)
            found[draws], latent[draws] = torch.stack(values).mean(0), trace.nodes["z_a"]["log_prob_sum"]
    # The standard error of the log of a mean over 5,000 draws is about 0.02.
    torch.testing.assert_close(found[5000], exact, rtol=0, atol=0.12)
    assert found[1].mean() < found[20].mean() - 0.01 < exact.mean()
    torch.testing.assert_close(latent[5000], latent[1])
    assert Program.loss(program, batch).isfinite()
    assert program.trace_elbo.traces[0].nodes["z_b"]["value"].shape[0] == program.model.likelihood.completions == 20


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_hold_the_share_that_they_say(missing: float) -> None:
    """Latents given, one component, a linear truth: 90% intervals hold 90% of 2,000 new outcomes, whatever is hidden from
    them, and whatever was missing in training.

    Within 4 standard errors: of the binomial share, and of what an error of the observation scale (1 / sqrt(2 n)) moves it by.
    """
    n, train = 3200, 1000
    data = table(n, seed=5, missing=missing)
    data["split"] = np.where(np.arange(n) < train, "train", np.where(np.arange(n) < 1200, "val", "test"))
    data.loc[1200:, ["a", "b"]] = table(n, seed=5, missing=0.0).loc[1200:, ["a", "b"]]
    fit = {"epochs": 15, "lr": 0.05, "global_lr": 0.05, "batch_size": 64, "patience": 15, "schedule": "cosine", "beta": 1.0}
    sections = {"prior": {"components": 1}, "fusion": {"layers": 0}, "fit": fit}
    model = CM2.from_config(config(REGRESSION, "identity", **sections)).fit(data)
    sd = model.program.model.likelihood.scale.item() * model.preparation.scaling.scale[0]
    complete = int(((data["split"] == "train") & (data["a"] != "") & (data["b"] != "")).sum())
    assert sd == pytest.approx(4, rel=4 / np.sqrt(2 * complete))
    metrics = model.evaluate(data, missing=("without:a", "without:b", "mcar:0.5"), bootstrap=0, draws=400).metrics
    z = norm.ppf(0.95)
    shift = 2 * z * norm.pdf(z) / np.sqrt(2 * complete)
    for values in (metrics, *metrics["missing"].values()):
        tolerance = 4 * np.hypot(np.sqrt(0.09 / values["n"]), shift)
        assert values["coverage"]["value"] == pytest.approx(0.9, abs=tolerance)
    # Exact: without b its conditional sd, 0.8, adds to the noise.
    expected = np.hypot(4, 8 * 0.5 * 0.8)
    assert metrics["missing"]["without:b"]["rmse"]["value"] == pytest.approx(expected, rel=4 / np.sqrt(2 * complete))

"""The potential of a fit whose encoders stand still: its outcome's likelihood, and what NUTS makes of it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from pyro.ops.stats import effective_sample_size

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.mcmc import Potential, sample_chains
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.program import Program
from cm2pyro.models import as_head

pytestmark = pytest.mark.slow

HEAD = {"head": {"dist": "Normal", "loc": 0, "scale": 1}}
NAMES = ("a", "b")


def config(names: tuple[str, ...] = NAMES, **changes: dict) -> dict:
    sections = {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in names},
        "latent": {"dim": 1},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"epochs": 1, "batch_size": 64, "validation": 0, "beta": 1.0},
    }
    return {key: {**sections.get(key, {}), **changes.get(key, {})} for key in {*sections, *changes}}


def frame(n: int = 60, missing: float = 0.4, names: tuple[str, ...] = NAMES) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 1)) + 0.7 * random.normal(size=(n, len(names)))
    cells = {name: [json.dumps([v]) if random.random() >= missing else "" for v in x[:, m]] for m, name in enumerate(names)}
    label = (random.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int).astype(str)
    label[:5] = ""  # these inform the latents alone
    ids = [f"s{i}" for i in range(n)]
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": label} | cells)


def made(table: pd.DataFrame, **changes: dict) -> tuple[Program, Dataset]:
    model = CM2.from_config(config(tuple(c for c in table if c in NAMES), **changes)).fit(table)
    return model.program, model.preparation.transform(read_manifest(table), labels=True)


def values_of(potential: Potential, seed: int = 0) -> tuple[torch.Tensor, dict]:
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(potential.size, generator=generator, dtype=torch.float64)
    return x, potential.constrain(x)


def test_of_complete_rows_it_is_the_models_own() -> None:
    program, dataset = made(frame(missing=0), priors=HEAD)
    potential = frozen_potential(program, dataset, 0)
    assert set(potential.priors) == {"weights", "locs", "scales", "copula", "head", "head_bias"}
    _, values = values_of(potential)
    mixture = potential.structure.build(values)
    z = latents(program, dataset, seed=0)
    labelled = dataset.labelled
    assert int(labelled.sum()) == len(dataset) - 5
    head = tuple(part.float() for part in as_head(values))
    outputs = program.model.outputs(z[labelled], head)
    own = program.model.outcome_dist(outputs).log_prob(dataset.labels[labelled].float()).sum()
    torch.testing.assert_close(potential.extra(values, mixture).float(), own, rtol=1e-5, atol=1e-4)
    expected = mixture.log_prob(z.double()).sum() + potential.extra(values, mixture)
    torch.testing.assert_close(potential.log_likelihood(values), expected)


def test_a_head_without_prior_asks_incomplete_rows_alone() -> None:
    program, dataset = made(frame(missing=0))
    assert frozen_potential(program, dataset, 0).extra is None
    program, dataset = made(frame())
    potential = frozen_potential(program, dataset, 0)
    assert "head" not in potential.priors
    _, values = values_of(potential)
    some = (dataset.labelled & ~dataset.observed.all(1)).nonzero()[:, 0].tolist()
    again = frozen_potential(program, dataset.take(some), 0)
    mixture = potential.structure.build(values)
    torch.testing.assert_close(potential.extra(values, mixture), again.extra(values, mixture))


@pytest.mark.parametrize("family", ["gaussian", "clayton"])
@pytest.mark.parametrize("head", [HEAD, {}], ids=["site", "parameter"])
def test_of_incomplete_rows_it_is_the_integral(family: str, head: dict) -> None:
    """Against as many draws of the missing latents given the observed; a row is −log E p(y | z)."""
    S = 3000
    program, dataset = made(frame(30), priors=head, guide={"completions": S}, prior={"components": 2, "copula": {"family": family}})
    potential = frozen_potential(program, dataset, 0)
    _, values = values_of(potential)
    asked = dataset.labelled & ~dataset.observed.all(1) if not head else dataset.labelled
    assert bool((~dataset.observed[asked].any(1)).any())  # a row of which nothing is observed is among them
    with torch.no_grad():
        mixture = potential.structure.build(values)
        z, observed = potential.z[asked], dataset.observed[asked]
        torch.manual_seed(5)
        drawn = mixture.conditional(z.expand(S, *z.shape), observed.expand(S, *observed.shape)).float()
        head_values = as_head(values)
        outputs = program.model.outputs(drawn, None if head_values is None else tuple(part.float() for part in head_values))
        p = program.model.outcome_dist(outputs).log_prob(dataset.labels[asked].float()).exp().double()
        expected = p.mean(0).log().sum()
        # The delta method for each row's log mean; the potential's own draws, stratified by component, err no more.
        error = math.sqrt(2 * float((p.var(0) / S / p.mean(0) ** 2).sum()))
        found = float(potential.extra(values, mixture))
        assert found == pytest.approx(float(expected), abs=4.5 * error)
        if not head:
            return  # a head after one epoch says too little
        # Missing latents do say something here: the plain completion by zeros is another number.
        flat = torch.where(observed[..., None], z, 0.0).float()
        outputs = program.model.outputs(flat, None if head_values is None else tuple(part.float() for part in head_values))
        wrong = program.model.outcome_dist(outputs).log_prob(dataset.labels[asked].float()).sum()
    assert abs(float(wrong) - float(expected)) > 5 * error


@pytest.mark.parametrize("family", ["gaussian", "clayton", "frank"])
def test_gradients_are_finite_and_those_of_the_value(family: str) -> None:
    program, dataset = made(frame(30), priors=HEAD, prior={"components": 2, "copula": {"family": family}}, fusion={"layers": 0})
    potential = frozen_potential(program, dataset, 0)
    x, _ = values_of(potential)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(potential(x), x)
    assert bool(torch.isfinite(gradient).all())
    step = 1e-3  # features are in single precision
    with torch.no_grad():
        for i in range(potential.size):
            e = torch.zeros_like(x)
            e[i] = step
            slope = float((potential(x + e) - potential(x - e)) / (2 * step))
            assert float(gradient[i]) == pytest.approx(slope, rel=2e-2, abs=2e-2), i


def test_the_fit_is_left_as_it_was() -> None:
    """No gradients in its parameters, the potential a function of the seed."""
    program, dataset = made(frame(30))
    program.zero_grad(set_to_none=True)
    potential = frozen_potential(program, dataset, 0)
    x, _ = values_of(potential)
    x.requires_grad_()
    potential(x).backward()
    assert all(p.grad is None for p in program.parameters())
    torch.testing.assert_close(frozen_potential(program, dataset, 0)(x), potential(x), rtol=0, atol=0)
    assert not torch.equal(frozen_potential(program, dataset, 1)(x), potential(x))


def test_nuts_of_a_logistic_head_matches_quadrature() -> None:
    """One given latent, complete: weight and bias have a posterior in two dimensions, whatever the mixture does."""
    table = frame(50, 0.0, ("a",))
    program, dataset = made(table, priors=HEAD, prior={"components": 1}, fusion={"layers": 0})
    potential = frozen_potential(program, dataset, 0)
    feature = potential.z[dataset.labelled, 0, 0]
    y = dataset.labels[dataset.labelled].double()
    weight, bias = torch.meshgrid(torch.linspace(-3, 6, 181).double(), torch.linspace(-4, 4, 161).double(), indexing="ij")
    logits = weight[..., None] * feature + bias[..., None]
    log_p = -torch.nn.functional.softplus(torch.where(y == 1, -logits, logits)).sum(-1) - weight**2 / 2 - (bias / 5) ** 2 / 2
    mass = log_p.flatten().softmax(0).reshape(log_p.shape)
    torch.manual_seed(0)
    start = {name: prior.sample() for name, prior in potential.priors.items()}
    found = sample_chains(potential, start, chains=2, warmup=40, draws=120, seed=1)
    for name, grid in (("head", weight), ("head_bias", bias)):
        x = found.values[name].reshape(2, 120)
        for power in (1, 2):
            expected = float((mass * grid**power).sum())
            error = float((x**power).std() / effective_sample_size(x[..., None] ** power, 0, 1).sqrt())
            assert float((x**power).mean()) == pytest.approx(expected, abs=4.5 * error), (name, power)
    assert float(mass[0].sum() + mass[-1].sum() + mass[:, 0].sum() + mass[:, -1].sum()) < 1e-6


def test_what_it_cannot_stand_for_is_refused() -> None:
    program, dataset = made(frame(30), guide={"missing": "marginal"})
    with pytest.raises(ConfigError, match=r"nuts needs guide\.missing conditional"):
        frozen_potential(program, dataset, 0)

"""Where the mixture starts, and what is watched."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.data.manifest import read_manifest
from cm2pyro.distributions import make_copula
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference import monitor
from cm2pyro.inference.start import start_values

LOCS = torch.tensor([[[-4.0, 0.0], [0.0, 4.0], [4.0, -4.0]], [[3.0, 3.0], [-3.0, 0.0], [0.0, -3.0]]])


def draws(n: int, tau: float) -> torch.Tensor:
    torch.manual_seed(0)
    weights, assignment = torch.tensor([0.5, 0.3, 0.2]), torch.arange(3)[:, None].expand(3, 2)
    return CopulaMixture(weights.log(), assignment, LOCS, torch.full_like(LOCS, 0.8), make_copula("gaussian", 2, tau=tau)).rsample((n,))


@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_the_start_is_near_the_truth(coupling: str) -> None:
    structure = MixtureStructure(2, 2, 3, coupling)
    z = draws(3000, 0.6)
    values = start_values(structure, z, torch.ones(3000, 2, dtype=torch.bool), 3, 0)
    p = structure.build(values)
    assert float((p.copula.tau()[:, 0, 1] - 0.6).abs().max()) < 0.1
    for m in range(2):
        distance = torch.cdist(LOCS[m], p.locs[m])
        assert float(distance.min(1).values.max()) < 0.3
    # Joint components match clusters across modalities: the density is that of the truth.
    loss = -float(p.log_prob(z).mean())
    shuffled = dataclasses.replace(structure)
    values["locs"][1] = values["locs"][1].roll(1, 0)
    if coupling == "shared":
        assert loss < -float(shuffled.build(values).log_prob(z).mean()) - 1


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_the_start_survives_few_rows_and_gaps(n: int, coupling: str) -> None:
    structure = MixtureStructure(2, 2, 3, coupling)
    z = draws(n, 0.5)
    observed = torch.rand(n, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    values = start_values(structure, torch.where(observed[..., None], z, torch.zeros(())), observed, 2, 0)
    p = structure.build(values)
    assert torch.isfinite(p.log_prob(z)).all()
    constant = start_values(structure, torch.zeros(n, 2, 2), torch.ones(n, 2, dtype=torch.bool), 2, 0)
    assert torch.isfinite(structure.build(constant).log_prob(z)).all()


def state(**changes: dict) -> monitor.Health:
    base = {"effective_components": {"a": 2.0, "b": 2.0}, "tau": {"a~b": 0.1}, "latent_sd": {"a": 1.0, "b": 1.0}}
    return monitor.Health(**{**base, **changes})


def config(**sections: dict) -> Config:
    modalities = {name: {"kind": "embedding", "encoder": "mlp"} for name in "ab"}
    return Config.from_dict({"modalities": modalities, "prior": {"components": 3}, "latent": {"dim": 2}, **sections})


def test_warnings_name_what_is_wrong_and_only_that() -> None:
    kl = {"a": 3.0, "b": 3.0}
    assert monitor.warnings(config(), 9, state(), kl, 1.0) == {}
    cases = [
        (state(effective_components={"a": 1.01, "b": 2.0}), kl, 1.0, "mixture collapse: modality a"),
        (state(latent_sd={"a": 1.0, "b": 1e-7}), kl, 1.0, "latent collapse: a latent dimension of b"),
        (state(), {"a": 3.0, "b": 1e-4}, 1.0, "unused latents: those of b"),
        (state(), kl, 1e-12, "dead copula"),
    ]
    for health, terms, gradient, expected in cases:
        found = monitor.warnings(config(), 9, health, terms, gradient)
        assert len(found) == 1
        assert next(iter(found.values())).startswith(expected)
        assert monitor.warnings(config(), 1, health, terms, gradient) == {}
    # One component cannot collapse, and a point has no KL to vanish.
    assert monitor.warnings(config(prior={"components": 1}), 9, cases[0][0], kl, None) == {}
    assert monitor.warnings(config(guide={"local": "delta"}), 9, state(), {"a": 0.0, "b": 0.0}, None) == {}


@pytest.mark.slow
def test_effective_components_are_counted_by_health() -> None:
    """Three clusters of shares 0.5, 0.3, 0.2 that every modality shows: exp(entropy) of the shares; one cluster: 1."""
    n = 600
    z = draws(n, 0.3)
    ids = [f"s{i}" for i in range(n)]
    columns = {name: [json.dumps(row.tolist()) for row in z[:, m]] for m, name in enumerate("ab")}
    table = pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": ["0", "1"] * (n // 2), **columns})
    raw = {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in "ab"},
        "latent": {"dim": 2},
        "prior": {"components": 3, "scale_floor": 0.02},
        "guide": {"local": "delta"},
        "fit": {"epochs": 1, "lr": 1e-6},
    }
    fitted = CM2.from_config(raw).fit(table)
    dataset = fitted.preparation.transform(read_manifest(table), labels=False)
    share = np.array([0.5, 0.3, 0.2])
    expected = float(np.exp(-(share * np.log(share)).sum()))
    found = monitor.health(fitted.program, dataset).effective_components
    # The sd of a share of 600 draws is 0.02; exp(entropy) moves by less than ten times that.
    assert found == pytest.approx({"a": expected, "b": expected}, abs=0.2)
    hard = fitted.mixture().responsibilities(fitted.program.guide.represent(dataset.batch(torch.arange(n)))[0]).argmax(-1)
    alone = dataset.take((hard == hard[0]).nonzero()[:, 0].tolist())
    assert monitor.health(fitted.program, alone).effective_components == pytest.approx({"a": 1.0, "b": 1.0}, abs=0.05)

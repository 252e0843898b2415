"""What replaces the copula mixture in ablations: the prior N(0, I), and penalties between modalities."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError

pytestmark = pytest.mark.slow

STANDARD = {"kind": "standard", "components": 1, "copula": {"family": "independence"}}


def config(**sections: dict) -> dict:
    return {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 8, "dropout": 0.0} for name in ("a", "b")},
        "latent": {"dim": 2},
        "fusion": {"kind": "mlp", "hidden": 8},
        "fit": {"epochs": 4, "batch_size": 40, "lr": 0.02, "beta": 0.1, "warmup": 2, **sections.pop("fit", {})},
        **sections,
    }


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = 2 + random.normal(size=(120, 2, 3))
    label = (random.random(120) < 0.4).astype(int)
    columns = {name: [json.dumps(row.tolist()) for row in z[:, m]] for m, name in enumerate(("a", "b"))}
    columns["b"][:30] = [""] * 30
    ids = [f"s{i}" for i in range(120)]
    return pd.DataFrame(
        {"sample_id": ids, "subject_id": ids, "split": np.where(np.arange(120) < 90, "train", "val"), "label": label.astype(str), **columns}
    )


def test_the_standard_prior_stays_what_it_is(table: pd.DataFrame) -> None:
    fitted = CM2.from_config(config(prior=STANDARD)).fit(table)
    mixture = fitted.mixture()
    assert mixture.locs.abs().max() == 0
    assert torch.equal(mixture.scales, torch.ones(2, 1, 2)) or (mixture.scales - 1).abs().max() < 1e-6
    assert mixture.log_weights.item() == 0
    # Its KL is that of diagonal normals to N(0, I): the program's own terms, over many draws.
    dataset = fitted.preparation.transform(read_manifest(table), labels=True)
    program = fitted.program.eval()
    batch = dataset.batch(torch.arange(len(dataset)))
    loc, scale = program.guide.represent(batch)
    exact = kl_divergence(Normal(loc, torch.where(batch.observed[..., None], scale, 1.0)), Normal(0.0, 1.0)).sum(-1)
    torch.manual_seed(0)
    found = []
    for _ in range(300):
        program.loss(batch)
        found.append([program.terms(batch).kl[name] for name in ("a", "b")])
    for m in range(2):
        expected = torch.where(batch.observed[:, m], exact[:, m], 0.0).sum().item() / len(dataset)
        draws = np.array(found)[:, m]
        assert abs(draws.mean() - expected) < 4 * draws.std() / np.sqrt(len(draws))


def test_alignment_brings_latents_together(table: pd.DataFrame) -> None:
    distance = {}
    for kind in ("none", "cosine"):
        fitted = CM2.from_config(config(alignment={"kind": kind, "weight": 3.0}, fit={"epochs": 8})).fit(table)
        dataset = fitted.preparation.transform(read_manifest(table), labels=False)
        with torch.no_grad():
            loc, _ = fitted.program.eval().guide.represent(dataset.batch(torch.arange(30, 120)))
        distance[kind] = 1 - torch.nn.functional.cosine_similarity(loc[:, 0], loc[:, 1], -1).mean().item()
    assert distance["cosine"] < 0.5 * distance["none"]


def test_the_penalty_is_added_to_the_loss(table: pd.DataFrame) -> None:
    losses = []
    for weight in (1.0, 3.0):
        fitted = CM2.from_config(config(alignment={"kind": "kl", "weight": weight}, fit={"lr": 1e-9})).fit(table)
        batch = fitted.preparation.transform(read_manifest(table), labels=True).batch(torch.arange(60))
        torch.manual_seed(0)
        losses.append(fitted.program.eval().loss(batch).item())
        loc, scale = fitted.program.guide.represented
        both = batch.observed.all(1)
        a, b = Normal(loc[both, 0], scale[both, 0]), Normal(loc[both, 1], scale[both, 1])
        each = (kl_divergence(a, b) + kl_divergence(b, a)).sum().item() / 2 / len(batch)
    assert losses[1] - losses[0] == pytest.approx(2 * each, rel=1e-3)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"prior": {"kind": "standard"}}, "prior.kind: standard has one component"),
        ({"alignment": {"kind": "kl"}, "guide": {"local": "delta"}}, "latents are points; set it to cosine"),
        ({"alignment": {"kind": "euclid"}}, "alignment.kind: Input should be 'none', 'cosine' or 'kl'; found 'euclid'"),
    ],
)
def test_refusals(sections: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CM2.from_config(config(**sections))

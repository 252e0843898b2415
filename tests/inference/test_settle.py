"""`fit.settle`: at the end the mixture describes the latents as the encoders have left them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError
from cm2pyro.inference import monitor
from cm2pyro.models import check_model

NAMES = ("a", "b")


def config(**changes: dict) -> dict:
    sections = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 8} for name in NAMES},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "fusion": {"kind": "mlp", "layers": 0},
        "fit": {"epochs": 3, "batch_size": 64, "validation": 0, "beta": 1e-2},
    }
    return {key: {**sections.get(key, {}), **changes.get(key, {})} for key in {*sections, *changes}}


def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 1, 3)) + random.normal(size=(300, 2, 3))
    cells = {name: [str(row.tolist()) if random.random() < 0.8 else "" for row in x[:, m]] for m, name in enumerate(NAMES)}
    label = (x[:, 0, 0] + random.normal(size=300) > 0).astype(int)
    ids = [f"s{i}" for i in range(300)]
    return pd.DataFrame({"sample_id": ids, "subject_id": ids, "split": "train", "label": label.astype(str)} | cells)


def mean_log_prob(model: CM2) -> float:
    """Of a draw of the training latents, per row; the draw is the same whatever the mixture."""
    dataset = model.preparation.transform(read_manifest(frame()), labels=True)
    z = monitor.latents(model.program, dataset, seed=7)
    return float(model.mixture().log_prob(z, dataset.observed).mean().detach())


def test_the_mixture_moves_to_the_latents_and_nothing_else_moves(tmp_path: Path) -> None:
    plain = CM2.from_config(config()).fit(frame())
    settled = CM2.from_config(config(fit={"settle": True})).fit(frame(), out=tmp_path / "run")
    before, after = plain.program.state_dict(), settled.program.state_dict()
    for name, tensor in before.items():
        if not name.startswith("guide.globals."):
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
    # Another draw than the one that was fitted: what 300 rows overfit is less than what three epochs leave undone.
    assert mean_log_prob(settled) > mean_log_prob(plain)
    loaded = CM2.load(tmp_path / "run")
    for name, value in settled.program.values().items():
        torch.testing.assert_close(loaded.program.values()[name], value)


def test_a_standard_prior_has_nothing_to_settle() -> None:
    prior = {"kind": "standard", "components": 1, "copula": {"family": "independence"}}
    settled = CM2.from_config(config(prior=prior, fit={"settle": True})).fit(frame())
    assert float(settled.mixture().locs.abs().max()) == 0


def test_what_it_does_not_go_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fit.settle: True gives point estimates, guide.globals is normal; set guide.globals to delta"):
        Config.from_dict(config(fit={"settle": True}, guide={"globals": "normal"}))
    with pytest.raises(ConfigError, match=r"fit.settle: found True, the selection model needs False"):
        check_model(Config.from_dict(config(fit={"settle": True}, missingness={"model": "selection"})))

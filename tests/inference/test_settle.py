"""`fit.settle`: at the end the mixture describes the latents as the encoders have left them."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.data.manifest import read_manifest
from cm2pyro.diagnostics.khat import log_ratios
from cm2pyro.errors import ConfigError
from cm2pyro.inference import fit, monitor
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.mcmc import approximation
from cm2pyro.inference.refit_guide import refit_guide
from cm2pyro.models import check_model

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("guide", ["normal", "lowrank", "fullrank", "flow"])
def test_a_guide_with_a_spread_moves_to_the_posterior_given_the_latents(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "refit_guide", functools.partial(refit_guide, steps=5))
    own = {"guide": {"globals": guide}, "priors": {"head": {"dist": "Normal", "loc": 0, "scale": 1}}}
    # As long as the encoders learn, the global sites are points: so nothing else differs from a fit of points.
    plain = CM2.from_config(config(**own | {"guide": {"globals": "delta"}})).fit(frame())
    settled = CM2.from_config(config(**own, fit={"settle": True})).fit(frame(), out=tmp_path / "run")
    assert settled.program.settled
    assert settled.program.random
    for name, tensor in plain.program.state_dict().items():
        if not name.startswith(("guide.globals.", "guide.head.")):
            torch.testing.assert_close(settled.program.state_dict()[name], tensor, rtol=0, atol=0)
    # Learned beside the encoders, a guide is further from the posterior given where they end.
    beside = CM2.from_config(config(**own)).fit(frame())
    reached = {}
    for key, model in (("beside", beside), ("settled", settled)):
        dataset = model.preparation.transform(read_manifest(frame()), labels=True)
        potential = frozen_potential(model.program, dataset, model.config.fit.seed)
        mode = float(-potential(approximation(potential, potential.unconstrain(model.program.values()))[0]))
        reached[key] = float(torch.stack(log_ratios(model.program.global_guides, potential, 20, 0)).mean()) - mode
    assert reached["settled"] > reached["beside"]
    again = CM2.load(tmp_path / "run").program
    for name, value in settled.program.values().items():
        torch.testing.assert_close(again.values()[name], value)


def test_a_run_that_was_cut_before_has_points_and_goes_on_to_the_same_posterior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "refit_guide", functools.partial(refit_guide, steps=2))
    own = config(guide={"globals": "flow"}, fit={"settle": True})
    whole = CM2.from_config(own).fit(frame(), out=tmp_path / "whole")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fit, "frozen_potential", cut)
        with pytest.raises(KeyboardInterrupt):
            CM2.from_config(own).fit(frame(), out=tmp_path / "cut")
    assert not CM2.load(tmp_path / "cut").program.random
    again = CM2.from_config(own).fit(frame(), out=tmp_path / "cut", resume=True)
    for name, tensor in whole.program.state_dict().items():
        torch.testing.assert_close(again.program.state_dict()[name], tensor, rtol=0, atol=0)


def test_what_it_does_not_go_with_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"fit.settle with guide.globals normal needs guide.missing conditional, found marginal; set it, or fit"
    ):
        Config.from_dict(config(fit={"settle": True}, guide={"globals": "normal", "missing": "marginal"}))
    with pytest.raises(ConfigError, match=r"fit.settle: found True, the selection model needs False"):
        check_model(Config.from_dict(config(fit={"settle": True}, missingness={"model": "selection"})))

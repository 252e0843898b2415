"""Paired comparison of models by elpd, and what `select` says of it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2pyro.config import Config
from cm2pyro.diagnostics.family_choice import FamilyChoice
from cm2pyro.diagnostics.paired_elpd import paired_elpd
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.leave_out import LeftOut
from cm2pyro.inference.select import Candidate

ONE = MixtureStructure(2, 1, 1)
CONFIG = Config.from_dict({"modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in "ab"}, "latent": {"dim": 1}})


def test_ties_go_to_the_simpler() -> None:
    rng = np.random.default_rng(0)
    base, noise = rng.normal(size=400), rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)  # a gain of g a subject has a standard error of exactly 20

    def chosen(gain: float, simplicity: list[tuple[int, ...]]) -> int:
        return paired_elpd(np.stack([base, base + gain / 400 + noise], 1), simplicity).chosen

    assert chosen(39, [(1,), (2,)]) == 0
    assert chosen(41, [(1,), (2,)]) == 1
    assert chosen(39, [(1,), (1,)]) == 1  # equally simple: the better
    assert chosen(-39, [(2,), (1,)]) == 1
    found = paired_elpd(np.stack([base, base + 0.1 + noise], 1), [(1,), (2,)])
    assert found.difference.tolist() == pytest.approx([-40, 0])
    assert found.se_difference.tolist() == pytest.approx([20, 0])
    # At exactly two standard errors chance decides.
    assert found.picked[0] == pytest.approx(0.5, abs=0.1)
    assert found.weights[1] > 0.95


def choice(**gains: float) -> FamilyChoice:
    """Candidates `family_K`, each that many nats better than nothing; every paired difference has a standard error of about 5."""
    rng = np.random.default_rng(0)
    made = []
    for name, gain in gains.items():
        family, K = name.rsplit("_", 1)
        noise = rng.normal(size=500)
        elpd = gain / 500 + (noise - noise.mean()) / noise.std() * 5 / np.sqrt(1000)
        members = ("gaussian", "frank") if family == "mixture" else ()
        structure = dataclasses.replace(ONE, components=int(K), family=family, families=members)
        optima = (gain, gain - 0.5, gain - 3) if family == "joe" else (gain,)
        made.append(Candidate(structure, 5 * int(K), 2, LeftOut(torch.from_numpy(elpd), 4.0, 0, {}, gain), optima))
    return FamilyChoice.of(made, CONFIG, 0)


def test_one_family_stands_out(tmp_path: Path) -> None:
    found = choice(gaussian_1=0, frank_1=5, gaussian_2=50, frank_2=100, joe_2=20)
    text = found.text()
    assert "**Recommended: frank, K = 2** (10 free parameters). It has the greatest" in text
    assert "No other is within 2 standard errors of the greatest elpd; next is gaussian, K = 2, 50.0 ± 5." in text
    assert "The data tell the family: frank. Of the others gaussian, K = 2 comes nearest" in text
    assert "K = 2 is the largest number tried" in text
    assert "different optima for joe K = 2: the highest" in text
    assert found.frame()["local_optima"].tolist() == [0, 0, 1, 0, 0]
    found.draw(tmp_path / "a.png", "a title")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_families_that_cannot_be_told_apart() -> None:
    found = choice(gaussian_2=100, frank_2=101, mixture_2=103, gaussian_3=104, frank_1=0)
    assert (found.chosen.family, found.chosen.components) == ("frank", 2)
    assert found.comparison.best == 3
    text = found.text()
    assert "gaussian, K = 3 has the greatest expected log predictive density" in text
    assert "within 2 standard errors the simpler is taken" in text
    assert "The data tell none of these families apart" in text
    assert "Their mixture, which holds each of them, does as well" in text
    assert "largest number tried" not in text
    assert "Also plausible, within 2 standard errors of the greatest elpd: gaussian, K = 3; mixture of gaussian, frank, K = 2 (" in text
    assert found.config.prior.components == 2


def test_only_the_mixture_is_left() -> None:
    found = choice(gaussian_2=0, frank_2=10, mixture_2=100)
    assert found.config.prior.copula.families == ["gaussian", "frank"]
    assert "only their mixture is" in found.text()

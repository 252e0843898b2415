"""A known truth is recovered from given latents, and learned latents do not collapse."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.distributions import CopulaMixture, make_copula
from tests.inference.fits import manifest, small

pytestmark = pytest.mark.slow

DOUBLE = torch.float64
LOCS = torch.tensor(
    [[[-4.0, 4.0], [0.0, 0.0], [4.0, -4.0]], [[3.5, 0.0], [-3.5, -3.5], [0.0, 3.5]], [[0.0, -3.0], [3.0, 3.0], [-3.0, 0.0]]]
)
SCALES = torch.tensor([[[1.0, 0.8], [0.9, 1.0], [1.1, 0.7]], [[0.8, 1.0], [1.0, 0.9], [0.7, 1.0]], [[0.9, 0.8], [0.8, 0.9], [0.9, 0.8]]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.7])
def test_recovery_of_the_truth_from_given_latents(tau: float) -> None:
    """4,000 samples, D = 2, K = 3, centres at least 3 sd apart and in different orders per modality.

    Locations and scales are within 5 standard errors of a component's own mean and sd, weights within 5 of a
    binomial share, tau within 0.05.
    """
    n = 4000
    torch.manual_seed(11)
    truth = CopulaMixture(
        WEIGHTS.log().to(DOUBLE),
        torch.arange(3)[:, None].expand(3, 3),
        LOCS.to(DOUBLE),
        SCALES.to(DOUBLE),
        make_copula("gaussian", 3, tau=tau, dtype=DOUBLE),
    )
    z = truth.rsample((n + 200,)).numpy()
    data = manifest(z, np.ones((len(z), 3), dtype=bool), 0, val=200 / len(z))
    config = Config.from_file(Path(__file__).parents[2] / "configs" / "simulated-embedding.yaml").to_dict()
    config["modalities"] = {f"m{m}": {"kind": "embedding", "encoder": "identity"} for m in range(3)}
    fitted = CM2.from_config(config).fit(data)
    p = fitted.mixture()
    scaling = [kind.scaling for kind in fitted.preparation.kinds.values()]
    locs = np.stack([scaling[m].inverse(p.locs[m].numpy()) for m in range(3)])
    scales = np.stack([p.scales[m].numpy() * scaling[m].scale for m in range(3)])
    order = min(itertools.permutations(range(3)), key=lambda o: np.abs(locs[:, list(o)] - LOCS.numpy()).sum())
    order = list(order)
    weights = p.log_weights.exp().numpy()[order]
    counts = n * WEIGHTS.numpy()
    assert (np.abs(weights - WEIGHTS.numpy()) < 5 * np.sqrt(WEIGHTS.numpy() * (1 - WEIGHTS.numpy()) / n)).all()
    assert (np.abs(locs[:, order] - LOCS.numpy()) < 5 * SCALES.numpy() / np.sqrt(counts)[:, None]).all()
    assert (np.abs(scales[:, order] / SCALES.numpy() - 1) < 5 / np.sqrt(2 * counts)[:, None]).all()
    learned = p.copula.tau().numpy()
    for a, b in itertools.combinations(range(3), 2):
        assert (np.abs(learned[:, a, b] - tau) < 0.05).all()


def test_deterministic_representations_do_not_collapse() -> None:
    """The paper's objective with learned encoders, a strong prior and many epochs: its optimum without the three
    safeguards is sd 0 and an infinite density."""
    random = np.random.default_rng(3)
    z = random.normal(size=(300, 3, 2)) + 3 * random.integers(0, 2, size=(300, 1, 1))
    data = manifest(z, random.random((300, 3)) < 0.8, 1)
    config = small(guide={"local": "delta"}, fit={"epochs": 250, "beta": 0.5, "batch_size": 80, "patience": 250, "lr": 0.02})
    fitted = CM2.from_config(config).fit(data)
    records = fitted.history
    assert len(records) == 250
    assert min(records[-1]["latent_sd"].values()) > 0.5
    assert all(math.isfinite(record["elbo"]) for record in records)
    # Bounded: with sd floor 0.1 the log density of 6 coordinates is at most 6 log(1 / (0.1 sqrt(2 pi))) + the copula's share.
    late = [record["elbo"] for record in records[-50:]]
    assert max(late) < 0.5 * (6 * math.log(1 / (0.1 * math.sqrt(2 * math.pi))) + 2 * 2 * 4.2)
    p = fitted.mixture()
    assert float(p.scales.min()) > 0.1
    assert float((p.copula.tau() - torch.eye(3)).abs().max()) <= 0.99
    assert fitted.predict(data)["probability"].std() > 0.05

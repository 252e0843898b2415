"""The truth of simulated data, and boosting on its latents."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fusion.folds import Fold, labelled, make_fold, whole
from benchmarks.fusion.methods import fit_method
from cm2pyro.config import Config
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.simulation import SimulationSettings, simulate
from cm2pyro.errors import ConfigError

NAMES = ("series", "image", "note")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Fold:
    """All 400 rows are scored, complete ones."""
    out = tmp_path_factory.mktemp("truth") / "data"
    simulate(out, SimulationSettings(samples=400, tau=0.6, missing=0.0))
    modalities = {name: {"kind": "embedding", "encoder": "identity", "column": f"latent_{name}"} for name in NAMES}
    config = Config.from_dict({"modalities": modalities, "latent": {"dim": 2}})
    manifest = read_manifest(out / "manifest.csv")
    return make_fold(config, whole(manifest, 0.2), labelled(manifest, config))


def log_loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log(np.where(y == 1, p, 1 - p))


@pytest.mark.slow
def test_with_everything_known_it_is_the_probability_that_drew_the_outcome(simulated: Fold) -> None:
    p = fit_method("truth", simulated, 0)(simulated.test.observed.numpy())
    latents = pd.read_parquet(Path(simulated.testing.root) / "latents.parquet").set_index("sample_id")
    np.testing.assert_allclose(p, latents.loc[list(simulated.testing.ids), "probability"], rtol=1e-6)


@pytest.mark.slow
def test_with_less_it_is_the_mean_over_what_is_not_known(simulated: Fold) -> None:
    predict, seen = fit_method("truth", simulated, 0), simulated.test.observed.numpy()
    p, q = predict(seen), predict(seen & [False, True, False])
    # E[p | q] = q: neither p − q nor its product with q is other than 0 on average, to four standard errors.
    for residual in (p - q, (p - q) * (q - q.mean())):
        assert abs(residual.mean()) < 4 * residual.std() / len(p) ** 0.5
    assert q.std() > 0.05
    assert (p - q).std() > 0.05
    # Nothing known: the prevalence for every row, but for 500 draws whose sd is at most 1/2.
    nothing = predict(np.zeros_like(seen))
    assert np.abs(nothing - 0.3).max() < 4.5 * 0.5 / 500**0.5


def test_boosting_reads_vectors(simulated: Fold) -> None:
    y = simulated.test.labels.numpy()
    p = fit_method("boosting", simulated, 0)(simulated.test.observed.numpy())
    gain = log_loss(np.full(len(y), y.mean()), y) - log_loss(p, y)
    assert gain.mean() > 2 * gain.std() / len(y) ** 0.5


def test_data_that_were_not_simulated_have_no_truth(fold: Fold) -> None:
    with pytest.raises(ConfigError, match=r"truth: .* holds no truth.json; expected data that"):
        fit_method("truth", fold, 0)

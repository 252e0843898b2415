"""Draws of latents against the closed form of one normal component."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError

DRAWS = 4000


def table(n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    z = random.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=n)
    cells = [[json.dumps([float(v)]) for v in column] for column in z.T]
    cells[1] = ["" if i % 3 == 0 else cell for i, cell in enumerate(cells[1])]
    cells[0] = ["" if i % 6 == 0 else cell for i, cell in enumerate(cells[0])]
    ids = [f"s{i}" for i in range(n)]
    split = ["train" if i < 40 else "val" for i in range(n)]
    return pd.DataFrame(
        {"sample_id": ids, "subject_id": ids, "split": split, "label": (z.sum(1) > 0).astype(int).astype(str), "a": cells[0], "b": cells[1]}
    )


def fitted(encoder: str, **fit: int) -> CM2:
    modality = {"kind": "embedding", "encoder": encoder}
    return CM2.from_config(
        {
            "modalities": {"a": modality, "b": modality},
            "latent": {"dim": 1},
            "prior": {"components": 1},
            "fusion": {"kind": "mlp", "layers": 0},
            "fit": {"epochs": 3, "lr": 0.01, **fit},
        }
    ).fit(table())


def test_missing_latents_have_the_moments_of_the_conditional() -> None:
    model = fitted("identity")
    found = model.impute(table(), draws=DRAWS)
    assert found["z"].dims == ("draw", "sample_id", "modality", "latent")
    assert found["z"].dtype == np.float32
    assert found["observed"].dtype == bool
    p = model.mixture()
    rho = float(torch.sin(torch.pi / 2 * p.copula.tau()[..., 0, 1]).squeeze())
    (mu_a, mu_b), (sd_a, sd_b) = p.locs[:, 0, 0].tolist(), p.scales[:, 0, 0].tolist()
    for name in ("s0", "s3", "s1"):
        z, seen = found["z"].sel(sample_id=name, latent=0), found["observed"].sel(sample_id=name)
        a, b = z.sel(modality="a").values, z.sel(modality="b").values
        if name == "s1":
            assert seen.values.all()
            assert np.ptp(a) == np.ptp(b) == 0
        elif name == "s3":
            assert np.ptp(a) == 0
            mean, sd = mu_b + rho * sd_b * (a[0] - mu_a) / sd_a, sd_b * np.sqrt(1 - rho**2)
            assert b.mean() == pytest.approx(mean, abs=5 * sd / np.sqrt(DRAWS))
            assert b.std() == pytest.approx(sd, rel=5 / np.sqrt(2 * DRAWS))
        else:
            assert a.mean() == pytest.approx(mu_a, abs=5 * sd_a / np.sqrt(DRAWS))
            assert np.corrcoef(a, b)[0, 1] == pytest.approx(rho, abs=5 / np.sqrt(DRAWS))
    # Rows are independent: those of no two go together.
    none = found["z"].sel(sample_id=["s0", "s6", "s12"], modality="a", latent=0).values
    assert np.abs(np.corrcoef(none.T) - np.eye(3)).max() < 5 / np.sqrt(DRAWS)


def test_observed_latents_have_the_moments_of_the_encoder() -> None:
    model = fitted("mlp")
    found = model.impute(table(), draws=DRAWS, split="val")
    assert found.sizes["sample_id"] == 20
    dataset = model.preparation.transform(read_manifest(table()), labels=False)
    with torch.no_grad():
        loc, scale = model.program.eval().guide.represent(dataset.batch(torch.arange(60)))
    z = found["z"].sel(sample_id="s41", modality="a", latent=0).values
    assert z.mean() == pytest.approx(loc[41, 0, 0].item(), abs=5 * scale[41, 0, 0].item() / np.sqrt(DRAWS))
    assert z.std() == pytest.approx(scale[41, 0, 0].item(), rel=5 / np.sqrt(2 * DRAWS))
    alone = model.impute(table().iloc[[41]], draws=DRAWS)
    np.testing.assert_allclose(alone["z"].sel(sample_id="s41"), found["z"].sel(sample_id="s41"), rtol=1e-4, atol=1e-5)


def test_members_stand_side_by_side_under_their_names() -> None:
    model = fitted("mlp", ensemble=2)
    found = model.impute(table(), draws=3)
    assert found.sizes["draw"] == 6
    assert found["member"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.attrs["draws"] == 3
    assert not np.allclose(found["z"].values[:3], found["z"].values[3:])


def test_no_draws_are_refused() -> None:
    with pytest.raises(ConfigError, match="draws: found 0"):
        fitted("identity").impute(table(), draws=0)

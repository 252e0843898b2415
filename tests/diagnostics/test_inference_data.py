"""The fit as ArviZ sees it, and the k-hat of its guide."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats

from cm2pyro import CM2
from cm2pyro.diagnostics.inference_data import posterior_values, to_arviz, write_groups
from cm2pyro.diagnostics.khat import KHat, log_ratios, shape
from cm2pyro.diagnostics.report.posterior import section
from cm2pyro.errors import ConfigError
from cm2pyro.inference.frozen import frozen_potential

N = 60


def manifest(task: str = "binary") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 2, N)
    z = rng.normal(size=(N, 2, 2)) + 4 * cluster[:, None, None]
    frame = pd.DataFrame({"sample_id": [f"s{i}" for i in range(N)], "subject_id": [f"p{i}" for i in range(N)]})
    frame["split"] = np.where(np.arange(N) < 40, "train", np.where(np.arange(N) < 50, "val", "test"))
    for m, name in enumerate(("a", "b")):
        for j in range(2):
            frame[f"{name}{j}"] = [f"{x:.6f}" for x in z[:, m, j]]
    frame.loc[5:9, ["a0", "a1"]] = ""
    frame["label"] = (
        cluster.astype(str) if task == "binary" else [f"{100 + 20 * c + e:.4f}" for c, e in zip(cluster, rng.normal(size=N), strict=True)]
    )
    frame.loc[[0, 55], "label"] = ""
    return frame


def fitted(globals_: str, task: str = "binary", **fit: object) -> CM2:
    config = {
        "task": {"type": task},
        "modalities": {name: {"kind": "embedding", "encoder": "identity", "columns": [f"{name}0", f"{name}1"]} for name in "ab"},
        "latent": {"dim": 2},
        "prior": {"components": 2},
        "guide": {"local": "delta", "globals": globals_},
        "priors": {"head": {"dist": "Normal", "loc": 0, "scale": 1}},
        "fusion": {"kind": "mlp", "layers": 0},
        "nuts": {"chains": 2, "warmup": 10, "draws": 15},
        "fit": {"epochs": 2, "beta": 1.0, "batch_size": 20, "lr": 0.01, "restarts": 1, **fit},
    }
    return CM2.from_config(config).fit(manifest(task))


@pytest.fixture(scope="module")
def normal() -> CM2:
    return fitted("normal")


@pytest.fixture(scope="module")
def groups(normal: CM2) -> dict[str, xr.Dataset]:
    return normal.posterior_groups(manifest(), draws=30, completions=4)


def test_groups_have_named_dims(groups: dict[str, xr.Dataset]) -> None:
    assert set(groups) == {"posterior", "prior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data"}
    posterior = groups["posterior"]
    assert posterior["locs"].dims == ("chain", "draw", "modality", "component", "latent")
    assert posterior["copula"].dims == ("chain", "draw", "latent", "modality", "modality_other")
    assert posterior["tau"].dims == ("chain", "draw", "pair", "latent")
    assert posterior["pair"].values.tolist() == ["a~b"]
    assert posterior["head"].dims == ("chain", "draw", "output", "feature")
    assert posterior.sizes["draw"] == 30
    assert {name: v.dims for name, v in groups["prior"].items()} == {name: v.dims for name, v in posterior.items()}
    assert groups["log_likelihood"]["outcome"].shape == (1, 30, N - 2)  # rows without a label have no likelihood
    assert groups["constant_data"]["trained"].values.sum() == 40
    assert groups["constant_data"].sizes["sample_id"] == N
    assert posterior.attrs["inference"] == "SVI, guide normal"
    assert posterior.attrs["tempered"] == "False"


def test_components_are_in_order_in_every_draw(groups: dict[str, xr.Dataset]) -> None:
    for name in ("posterior", "prior"):
        first = groups[name]["locs"].isel(modality=0, latent=0).values
        assert (np.diff(first, axis=-1) >= 0).all()


def test_likelihood_of_complete_rows_is_that_of_the_head(normal: CM2, groups: dict[str, xr.Dataset]) -> None:
    """Given latents leave nothing to integrate: log Bernoulli of the head's logit at every draw."""
    head, bias = (groups["posterior"][name].values[0] for name in ("head", "head_bias"))
    frame = manifest()
    rows = [i for i in range(N) if frame["label"][i] and frame["a0"][i]]
    raw = frame.loc[rows, ["a0", "a1", "b0", "b1"]].astype(float).to_numpy()
    z = normal.preparation.transform(_read(frame), labels=True)
    latent = torch.cat([z.inputs[name]["vector"] for name in "ab"], 1).numpy()[rows]
    assert np.corrcoef(latent[:, 0], raw[:, 0])[0, 1] > 0.999  # standardised, else the same
    logit = latent @ head[:, 0].T + bias[:, 0]
    y = frame.loc[rows, "label"].astype(int).to_numpy()[:, None]
    expected = stats.bernoulli.logpmf(y, 1 / (1 + np.exp(-logit))).T
    found = groups["log_likelihood"]["outcome"].sel(sample_id=[f"s{i}" for i in rows]).values[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _read(frame: pd.DataFrame):
    from cm2pyro.data.manifest import read_manifest

    return read_manifest(frame)


@pytest.mark.slow
def test_the_file_opens_in_a_fresh_process(groups: dict[str, xr.Dataset], tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    write_groups(groups, path)
    script = """
import sys, warnings; warnings.simplefilter("ignore")
import matplotlib; matplotlib.use("Agg")
import arviz as az
data = az.from_netcdf(sys.argv[1])
assert az.summary(data, var_names=["tau", "locs"])["sd"].notna().all()
loo = az.loo(data, pointwise=True)
assert loo.n_data_points == 58, loo
az.compare({"one": data, "two": data})
az.plot_forest(data, var_names=["tau"]); az.plot_khat(loo); az.plot_ppc(data, num_pp_samples=5)
az.plot_loo_pit(data, y="outcome", y_hat="outcome")
print(data.posterior.attrs["component_order"])
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "components ordered" in done.stdout


def test_to_arviz_is_arviz_own_object(groups: dict[str, xr.Dataset]) -> None:
    assert to_arviz(groups).posterior.sizes["draw"] == 30


@pytest.mark.slow
def test_chains_keep_their_dimension() -> None:
    model = fitted("nuts")
    values = posterior_values(model.program, 20, 0)
    assert values["locs"].shape[:2] == (2, 10)
    made = model.posterior_groups(manifest(), draws=20)
    assert made["posterior"].attrs["inference"].startswith("NUTS")
    assert made["log_likelihood"].sizes["chain"] == 2
    text = model.diagnose_posterior(manifest(), made).parts[0]
    assert "Of 30 draws 20, evenly spaced, are in posterior.nc" in str(text)


def test_whether_chains_have_mixed_is_told_from_all_draws() -> None:
    """A file of 200 draws never has 100 effective ones of each of four chains; 2,000 independent ones have."""
    draws = np.random.default_rng(0).normal(size=(4, 500, 1, 1))
    whole = xr.Dataset({"tau": (("chain", "draw", "pair", "latent"), draws)})
    kept = {"posterior": whole.isel(draw=slice(None, None, 10)).assign_attrs(inference="NUTS")}
    assert not section(kept, None, [0] * 4, False, whole).findings
    apart = whole + np.arange(4)[:, None, None, None]
    assert "have not mixed" in section(kept, None, [0] * 4, False, apart).findings[0].text


def test_point_estimates_are_one_draw() -> None:
    """Of the posterior; prior and outcomes are drawn as often as asked."""
    made = fitted("delta").posterior_groups(manifest(), draws=25)
    assert made["posterior"].sizes["draw"] == made["log_likelihood"].sizes["draw"] == 1
    assert "MAP" in made["posterior"].attrs["inference"]
    assert made["prior"].sizes["draw"] == 25
    outcome = made["posterior_predictive"]["outcome"]
    assert outcome.shape == (1, 25, N - 2)
    # The mean outcome of 25 draws is the probability of the label that is there, within four standard errors over all rows.
    p = np.exp(made["log_likelihood"]["outcome"].values[0, 0])
    y = made["observed_data"]["outcome"].values
    right = (outcome.values[0] == y).mean(0)
    assert abs((right - p).mean()) < 4 * np.sqrt((p * (1 - p)).mean() / (25 * (N - 2)))


def test_a_regression_is_in_the_units_of_its_label() -> None:
    made = fitted("normal", "regression", epochs=4).posterior_groups(manifest("regression"), draws=10)
    labels = made["observed_data"]["outcome"].values
    assert labels.min() > 90
    assert labels.max() < 130
    assert 60 < float(made["posterior_predictive"]["outcome"].mean()) < 160
    # A density of a number with sd about 10 is a tenth of that of the standardised one.
    assert -8 < float(made["log_likelihood"]["outcome"].mean()) < -2


def test_unlabelled_data_have_no_likelihood(normal: CM2) -> None:
    made = normal.posterior_groups(manifest().drop(columns="label"), draws=5)
    assert set(made) == {"posterior", "prior", "constant_data"}
    with pytest.raises(ConfigError, match="draws: found 0, expected 1 or more"):
        normal.posterior_groups(manifest(), draws=0)


def test_ratios_do_not_depend_on_the_coordinates(normal: CM2) -> None:
    """log p − log q of constrained values is that of unconstrained ones: Jacobians cancel."""
    dataset = normal.preparation.transform(_read(manifest()).take(range(40)), labels=True)
    potential = frozen_potential(normal.program, dataset, 0)
    found = log_ratios(normal.program.global_guides, potential, 3, seed=1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for ratio in found:
            values = normal.program._draw()
            x = potential.unconstrain(values)
            log_q = torch.zeros((), dtype=torch.float64)
            for name, part in potential.free(x).items():
                auto = (normal.program.guide.head if name.startswith("head") else normal.program.guide.globals).auto
                loc, scale = (getattr(side, name).double() for side in (auto.locs, auto.scales))
                log_q = log_q + torch.distributions.Normal(loc, scale).log_prob(part).sum()
            assert float(ratio) == pytest.approx(float(-potential(x) - log_q), abs=2e-2)  # the guide computes in float32


def test_shape_of_known_tails() -> None:
    import arviz as az

    rng = np.random.default_rng(0)
    for k in (0.2, 0.9):
        ratios = np.log(stats.genpareto.rvs(k, size=20_000, random_state=rng))
        # PSIS fits the largest 3 sqrt(S) ratios: the estimate's sd is about (1 + k) / sqrt(424) there.
        assert shape(ratios, az) == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(424))
    assert [KHat(k, 10).verdict for k in (0.3, 0.6, 0.8)] == ["good", "usable", "not to be believed"]

"""priors list, check and sensitivity as a user types them."""

from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.api import CM2
from tests.cli.commands import call, done, refused

SMALL = ["--set", "latent.dim=2", "--set", "prior.components=1", "--set", "fit.epochs=2", "--set", "fusion={kind: mlp, layers: 0}"]
HEAD = "priors.head={dist: Normal, loc: 0, scale: 0.5}"


@pytest.mark.slow
def test_list_names_every_site_and_what_a_config_has(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "priors", "list")
    assert code == 0
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert {"weights", "locs", "scales", "head", "head_bias", "copula", "copula_df", "copula_weights"} <= set(lines)
    assert "(M, K, D)" in lines["locs"]
    assert "Normal(loc=0, scale=2)" in lines["locs"]
    assert "positive, the site is 2 + it" in lines["copula_df"]
    for family in ("clayton", "frank (M = 2)", "frank (M > 2)", "gumbel_90 (M = 2)", "survival_joe"):
        assert family in out
    config = root / "configs" / "simulated-embedding.yaml"
    code, out, _ = call(capsys, "priors", "list", config, "--set", HEAD, "--set", "priors.scales={dist: HalfNormal, scale: 1}")
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in out.splitlines()}
    assert code == 0
    assert set(lines) == {"site", "weights", "locs", "scales", "copula", "head", "head_bias"}
    assert "(3, 3, 2) positive, the site is 0.02 + it HalfNormal(scale=1) config" in lines["scales"]
    assert "(1, 16) real Normal(loc=0, scale=0.5) config" in lines["head"]
    assert lines["copula"].endswith("LKJCholesky(concentration=2) default")
    _, out, _ = call(capsys, "priors", "list", config, "--set", "prior.copula.family=independence")
    assert "copula" not in out
    assert "no site" in out
    assert "priors.locs" in refused(capsys, 2, "priors", "list", config, "--set", "priors.locs={dist: LogNormal, loc: 0, scale: 1}")
    assert "--set" in refused(capsys, 2, "priors", "list", "--set", HEAD)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and two runs on given latents: of points, and of a normal guide."""
    folder = tmp_path_factory.mktemp("priors")
    done("simulate", folder / "data", "--samples", 150, "--seed", 3)
    for name in ("delta", "normal"):
        overrides = (*SMALL[1::2], f"guide.globals={name}", HEAD)
        CM2.from_config(root / "configs" / "simulated-embedding.yaml", overrides=overrides).fit(
            folder / "data" / "manifest.csv", folder / name
        )
    (folder / "tight.yaml").write_text("priors: {locs: {dist: Normal, loc: 0, scale: 0.01}}")
    return folder


@pytest.mark.slow
def test_check(made: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = root / "configs" / "simulated-embedding.yaml", made / "check"
    data = ["--data", made / "data" / "manifest.csv", "--draws", 20, "--rows", 50, "--out", out]
    code, said, err = call(capsys, "priors", "check", config, *data)
    assert code == 0, err
    assert "the outcome is left out" in said
    table = pd.read_csv(out / "prior_predictive.csv")
    assert "outcome" not in set(table["quantity"])
    own = table[table["quantity"] == "sd of latents"]
    assert own["data"].between(0.9, 1.1).all()  # given latents are standardised
    assert (out / "prior_predictive.png").read_bytes().startswith(b"\x89PNG")
    code, said, _ = call(capsys, "priors", "check", config, *data, "--set", HEAD, "--set", "priors.scales={dist: HalfNormal, scale: 0.01}")
    narrow = pd.read_csv(out / "prior_predictive.csv").set_index(["quantity", "of"])
    assert narrow.loc[("outcome", "rate of 1"), "percentile"] > 0
    assert "fusion network has no prior" in said
    assert "--draws" in refused(capsys, 2, "priors", "check", config, *data, "--draws", 1)


@pytest.mark.slow
def test_sensitivity(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--data", made / "data" / "manifest.csv", "--draws", 100]
    out = made / "sensitivity"
    code, said, err = call(capsys, "priors", "sensitivity", made / "normal", *base, "--refit", made / "tight.yaml", "--out", out)
    assert code == 0, err
    assert "draws are of the guide (normal)" in said
    scaling = pd.read_csv(out / "power_scaling.csv")
    assert {"prior_locs", "prior_head", "diagnosis", "likelihood"} <= set(scaling)
    assert len(scaling[scaling["quantity"].str.startswith("tau[")]) == 6
    moved = pd.read_csv(out / "refits.csv").set_index("quantity")
    assert moved.loc["locs[series, 1, 1]", "tight"] == pytest.approx(0, abs=0.05)
    assert moved.loc["log likelihood", "own priors"] >= moved.loc["log likelihood", "tight"]
    assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    code, said, err = call(capsys, "priors", "sensitivity", made / "delta", *base, "--refit", made / "tight.yaml", "--out", made / "points")
    assert code == 0, err
    assert "no power-scaling" in said
    assert not (made / "points" / "power_scaling.csv").exists()


def test_sensitivity_refuses(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = ["--data", made / "data" / "manifest.csv", "--out", tmp_path / "out"]
    assert "--refit" in refused(capsys, 2, "priors", "sensitivity", made / "delta", *base)
    for text, word in (
        ("priors: {loks: {dist: Normal}}", "loks"),
        ("priors: {head: {dist: Normal, loc: 0, scale: 1}}", "head"),
        ("a: 1", "priors"),
    ):
        (tmp_path / "p.yaml").write_text(text)
        assert word in refused(capsys, 2, "priors", "sensitivity", made / "delta", *base, "--refit", tmp_path / "p.yaml")
    assert not (tmp_path / "out").exists()
    assert "is no run folder" in refused(capsys, 1, "priors", "sensitivity", tmp_path, *base)

"""`cm2pyro select` as a user types it."""

import json
from pathlib import Path

import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import yaml

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.errors import ConfigError
from tests.cli.commands import call, refused

pytestmark = pytest.mark.slow

CONFIG = {
    "modalities": {"a": {"kind": "embedding", "encoder": "identity"}, "b": {"kind": "embedding", "encoder": "identity"}},
    "latent": {"dim": 1},
    "prior": {"components": 1, "copula": {"family": "gaussian"}},
    "priors": {"copula": {"dist": "LKJCorrCholesky", "eta": 2}},
    "guide": {"local": "delta"},
    "fusion": {"kind": "mlp", "layers": 0},
    "fit": {"epochs": 1, "batch_size": 64, "restarts": 1},
}
FILES = {"config.yaml", "recommendation.md", "run", "selection.csv", "selection.png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, and a manifest of 300 rows of 150 subjects: Clayton, K = 1, a tenth of the second modality missing."""
    folder = tmp_path_factory.mktemp("select")
    torch.manual_seed(0)
    copula = make_copula("clayton", 2, tau=0.6)
    prior = CopulaMixture(torch.zeros(1), torch.zeros(1, 2, dtype=torch.long), torch.zeros(2, 1, 1), torch.ones(2, 1, 1), copula)
    z = prior.rsample((300,)).tolist()
    columns = {"sample_id": [f"s{i}" for i in range(300)], "subject_id": [f"p{i // 2}" for i in range(300)]}
    columns |= {"split": ["train" if i < 240 else "val" for i in range(300)], "label": [str(i % 2) for i in range(300)]}
    columns |= {"a": [json.dumps(row[0]) for row in z], "b": ["" if i % 10 == 0 else json.dumps(row[1]) for i, row in enumerate(z)]}
    pd.DataFrame(columns).to_csv(folder / "manifest.csv", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


def test_a_fit_its_selection_and_another_from_the_same_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--data", made / "manifest.csv", "--out"]
    first = [*base, made / "chosen", "--families", "gaussian,clayton", "--components", "1,2"]
    code, out, err = call(capsys, "select", made / "config.yaml", *first)
    assert code == 0, err
    assert {path.name for path in (made / "chosen").iterdir()} == FILES
    assert "240 rows with split 'train'" in out
    assert "clayton, K = 2: elpd" in out
    assert "recommended: clayton, K = 1." in out
    table = pd.read_csv(made / "chosen" / "selection.csv")
    columns = ["family", "components", "parameters", "elpd", "se", "difference", "se_difference", "weight", "effective_parameters"]
    assert list(table)[:9] == columns
    assert len(table) == 4
    assert table.query("chosen == 1")[["family", "components", "parameters"]].to_numpy().tolist() == [["clayton", 1, 5]]
    assert table["weight"].sum() == pytest.approx(1)
    text = (made / "chosen" / "recommendation.md").read_text()
    assert "**Recommended: clayton, K = 1** (5 free parameters)" in text
    assert "bootstraps of the 120 subjects" in text
    assert (made / "chosen" / "selection.png").read_bytes()[1:4] == b"PNG"

    # The config is the one given with the choice filled in; a prior that Clayton does not have is gone. It can be fitted.
    filled = Config.from_file(made / "chosen" / "config.yaml")
    assert (filled.prior.components, filled.prior.copula.family, filled.priors.copula) == (1, "clayton", None)
    assert filled.modalities == Config.from_dict(CONFIG).modalities
    CM2.from_config(filled)

    run = made / "chosen" / "run"
    code, out, err = call(capsys, "select", "--run", run, *base, made / "again", "--families", "clayton,gaussian", "--components", "1")
    assert code == 0, err
    assert {path.name for path in (made / "again").iterdir()} == FILES - {"run"}
    again = pd.read_csv(made / "again" / "selection.csv").set_index(["family", "components"])
    # The same latents and seeds give the same numbers, whatever the order of the families; only ends of searches may differ.
    for _, row in table.query("components == 1").iterrows():
        assert again.loc[(row["family"], row["components"]), "elpd"] == pytest.approx(row["elpd"], abs=0.5)

    arguments = ["select", made / "config.yaml", "--run", run, *base, made / "again", "--families", "gaussian,frank", "--components", "1"]
    assert "not empty" in refused(capsys, 2, *arguments)
    line = refused(capsys, 2, *arguments, "--overwrite", "--set", "latent.dim=2")
    assert "latent: the config differs from the run" in line
    code, out, err = call(capsys, *arguments, "--overwrite", "--set", "prior.copula.tied=true", "--set", "fit.restarts=2", "--seed", 3)
    assert code == 0, err
    filled = Config.from_file(made / "again" / "config.yaml")
    assert (filled.prior.copula.tied, filled.fit.restarts, filled.fit.seed) == (True, 2, 3)


def test_priors_given_from_python_count(made: Path) -> None:
    manifest, families = made / "manifest.csv", ["gaussian", "clayton"]
    model = CM2.from_config(CONFIG, priors={"scales": lambda shape: dist.LogNormal(1.5, 0.01).expand(shape)})
    model.fit(manifest)
    found = model.select(manifest, families, (1,))
    for candidate in found.candidates:
        # The data have scale 1; the prior says 0.1, the floor, + exp(1.5) within 1%.
        assert candidate.fit.values["scales"].flatten().tolist() == pytest.approx([4.58] * 2, rel=0.05)
    two = CM2.from_config(CONFIG, overrides=("prior.components=2",), priors={"scales": dist.LogNormal(torch.zeros(2, 2, 1), 1.0)})
    with pytest.raises(ConfigError, match=r"priors\.scales: shape \(2, 2, 1\) does not expand to the site's \(2, 1, 1\)"):
        two.select(made / "none.csv", families, (1, 2))  # before a file is read


def test_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = ["--data", made / "manifest.csv"], ["--out", tmp_path / "out"]
    command = ["select", made / "config.yaml", *data, *out]
    assert "did you mean 'clayton'" in refused(capsys, 2, *command, "--families", "claton,frank")
    assert "not a list of whole numbers" in refused(capsys, 2, *command, "--components", "1,two")
    assert "leave nothing to choose" in refused(capsys, 2, *command, "--families", "frank", "--components", "2")
    assert "neither CONFIG nor --run" in refused(capsys, 2, "select", *data, *out)
    assert "--set changes CONFIG" in refused(capsys, 2, "select", "--run", tmp_path, *data, *out, "--set", "fit.restarts=1")
    assert "is no run folder" in refused(capsys, 1, "select", "--run", tmp_path, *data, *out)
    assert "cannot be read" in refused(capsys, 2, "select", tmp_path / "none.yaml", *data, *out)
    assert "unknown key" in refused(capsys, 2, *command, "--set", "fit.epoch=1")
    assert "none.csv" in refused(capsys, 1, "select", made / "config.yaml", "--data", tmp_path / "none.csv", *out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    line = refused(capsys, 2, "select", made / "config.yaml", *data, "--out", tmp_path / "full", "--overwrite")
    assert "holds selection.csv" in line
    few = pd.read_csv(made / "manifest.csv", dtype=str, keep_default_na=False).iloc[:20]
    few.to_csv(tmp_path / "few.csv", index=False)
    line = refused(capsys, 1, "select", made / "config.yaml", "--data", tmp_path / "few.csv", *out)
    assert "found 10 subjects" in line
    assert not (tmp_path / "out").exists()

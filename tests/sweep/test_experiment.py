"""Experiment files, those that are shipped among them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cm2pyro.errors import ConfigError
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.space import Choice, every
from tests.inference.fits import settings

SHIPPED = {"ablations": 13, "components": 6, "family": 7, "lambda": 7, "missing": 15}


@pytest.mark.slow
@pytest.mark.parametrize("base", ["simulated", "physionet2012", "mimic4"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_ones_go_with_simulated_physionet_and_mimic(name: str, base: str, root: Path) -> None:
    experiment = Experiment.read(root / "configs" / "experiments" / f"{name}.yaml", root / "configs" / f"{base}.yaml")
    configs = {experiment.config(setting, 0).model_dump_json() for setting in every(experiment.axes)}
    # The fusion of these two configs is that of an ablation.
    assert len(configs) == SHIPPED[name] - (name == "ablations" and base in ("simulated", "physionet2012"))
    assert experiment.seeds == (0, 1, 2)
    assert experiment.metric == "val_log_loss"
    assert experiment.config(next(every(experiment.axes))).fit.validation == 0.2
    assert experiment.conditions == (("missingness.mask",) if name == "missing" else ())


def test_all_shipped_ones_are_tested(root: Path) -> None:
    assert {path.stem for path in (root / "configs" / "experiments").iterdir()} == {*SHIPPED, "published"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings()))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(settings(latent={"dim": 3})))
    (tmp_path / "free.yaml").write_text("base: nowhere.yaml\nprior: {copula: {family: independence}}\n")
    return tmp_path


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"experiment": "A test", "base": "config.yaml"} | keys))
    return path


def test_a_file_and_what_the_command_line_puts_over_it(folder: Path) -> None:
    path = write(
        folder,
        grid={"prior.components": [1, 2]},
        variants={"as it is": {}, "free": "free.yaml"},
        set={"fit": {"lr": 0.5}},
        seeds=[3, 4],
        metric="auroc",
        reference=[
            {"source": "A 2020", "bases": ["other.yaml"], "points": [{"at": {"prior.components": 4}, "values": {"test_auroc": 0.8}}]}
        ],
    )
    plain = Experiment.read(path)
    assert (plain.title, plain.seeds, plain.metric, plain.show) == ("A test", (3, 4), "val_auroc", ("auroc",))
    assert plain.references == ()
    config = plain.config({"prior.components": 2, "variant": "free"}, 4)
    assert (config.prior.components, config.prior.copula.family, config.fit.seed, config.fit.lr) == (2, "independence", 4, 0.5)
    changed = Experiment.read(
        path,
        folder / "other.yaml",
        ("fit.lr=0.25",),
        [Choice("prior.components", (4,)), Choice("fit.beta", (0.1, 0.2)), Choice("variant", ("free",))],
        (0,),
        "val_brier",
    )
    assert [axis.key for axis in changed.axes] == ["prior.components", "variant", "fit.beta"]
    assert (changed.seeds, changed.metric) == ((0,), "val_brier")
    assert [reference.points[0].values for reference in changed.references] == [{"test_auroc": 0.8}]
    config = changed.config(next(every(changed.axes)))
    assert (config.latent.dim, config.fit.lr, config.prior.components, config.prior.copula.family) == (3, 0.25, 4, "independence")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"grid": {"prior.componets": [1]}}, r"prior\.componets=1: unknown key 'prior\.componets'; did you mean 'components'"),
        ({"grid": {"prior.components": [1, 0]}}, r"prior\.components=0: prior\.components: Input should be greater than 0"),
        ({"grid": {"prior.copula.family": ["gausian"]}}, "did you mean 'gaussian'"),
        ({"grid": {"modalities.a.hiden": [4]}}, "did you mean 'hidden'"),
        ({}, "nothing is varied"),
        ({"gird": {"prior.components": [1]}}, "unknown key 'gird'; did you mean 'grid'"),
        ({"grid": {"fit.lr": [1]}, "seeds": [0, 0]}, "one stands twice"),
        ({"grid": {"fit.lr": [1]}, "seeds": [-1]}, r"seeds\.0"),
        ({"grid": {"fit.lr": [1]}, "metric": "test_auroc"}, "validation rows alone; write val_auroc"),
        ({"grid": {"fit.lr": [1]}, "metric": "rmse"}, "task binary has no such metric"),
        ({"grid": {"fit.lr": [1]}, "show": ["aucroc"]}, "did you mean 'auroc'"),
        ({"grid": {"fit.lr": [1]}, "panels": ["fit.beta"]}, r"'fit\.beta' is not varied"),
        ({"grid": {"fit.lr": [1]}, "base": "none.yaml"}, "none.yaml: cannot be read"),
        ({"variants": {"a": "none.yaml"}}, "none.yaml: cannot be read"),
        ({"variants": {"a": {"base": "x"}}}, "the experiment has one"),
        ({"random": {"fit.lr": "1"}}, "expected low:high"),
        ({"grid": {"fit.lr": [1]}, "reference": [{"source": "A", "points": []}]}, "points"),
        (
            {"grid": {"fit.lr": [1]}, "reference": [{"source": "A", "points": [{"values": {"auroc": 1}}]}]},
            r"experiment\.yaml: .*which rows",
        ),
        ({"grid": {"fit.lr": [1]}, "reference": "none.yaml"}, "none.yaml: cannot be read"),
        ({"grid": {"fit.lr": [1]}, "reference": "config.yaml"}, r"config\.yaml: (reference|latent|task)"),
    ],
)
def test_refusals(keys: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Experiment.read(write(folder, **keys))
    assert "\n" not in str(refused.value)


def test_a_file_of_published_numbers_is_no_experiment(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"published\.yaml: holds published numbers alone"):
        Experiment.read(root / "configs" / "experiments" / "published.yaml", axes=[Choice("fit.lr", (1,))])


def test_refusals_of_the_command_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to an experiment file"):
        Experiment.read(folder / "config.yaml", folder / "other.yaml", axes=[Choice("fit.lr", (1,))])
    with pytest.raises(ConfigError, match="no variant 'fre'; did you mean 'free'"):
        Experiment.read(write(folder, variants={"free": "free.yaml"}), axes=[Choice("variant", ("fre",))])
    with pytest.raises(ConfigError, match="unknown key 'variant'"):
        Experiment.read(folder / "config.yaml", axes=[Choice("variant", ("a",))])

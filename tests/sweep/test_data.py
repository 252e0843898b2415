from pathlib import Path

import pytest
import yaml

from cm2pyro.errors import DataError
from cm2pyro.sweep.data import digest
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.space import Choice
from tests.inference.fits import settings


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    config = settings()
    config["modalities"] = {"m": {"kind": "timeseries", "encoder": "summary", "table": "a.csv"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("manifest", "a", "b", "of_nothing"):
        (tmp_path / f"{name}.csv").write_text("sample_id\n1\n")
    return Experiment.read(tmp_path / "config.yaml", axes=[Choice("modalities.m.table", ("a.csv", "b.csv", "absent.csv"))])


@pytest.mark.parametrize(("changed", "differs"), [("manifest", True), ("a", True), ("b", True), ("of_nothing", False)])
def test_other_data_have_another_digest(changed: str, differs: bool, experiment: Experiment, tmp_path: Path) -> None:
    """Tables of every setting count, those that no modality reads do not."""
    before = digest(str(tmp_path / "manifest.csv"), experiment)
    (tmp_path / f"{changed}.csv").write_text("sample_id\n2\n")
    assert (digest(str(tmp_path / "manifest.csv"), experiment) != before) is differs


def test_what_cannot_be_read_is_named(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        digest(str(tmp_path / "none.csv"), experiment)

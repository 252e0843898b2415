from pathlib import Path

import pytest
import yaml

from cm2pyro.errors import DataError
from cm2pyro.sweep.data import changed, digests
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


@pytest.mark.parametrize(("name", "differs"), [("manifest", True), ("a", True), ("b", True), ("of_nothing", False)])
def test_what_has_changed(name: str, differs: bool, experiment: Experiment, tmp_path: Path) -> None:
    """Tables of every setting count, those that no modality reads do not."""
    data = tmp_path / "manifest.csv"
    before = digests(str(data), experiment)
    (tmp_path / f"{name}.csv").write_text("sample_id\n2\n")
    assert changed(str(data), before, digests(str(data), experiment)) == (tmp_path / f"{name}.csv" if differs else None)


def test_a_table_more_is_no_change_and_another_form_is_one(experiment: Experiment, tmp_path: Path) -> None:
    data = str(tmp_path / "manifest.csv")
    now = digests(data, experiment)
    assert changed(data, {name: now[name] for name in ("", "a.csv")}, now) is None
    assert changed(data, now, {name: now[name] for name in ("", "a.csv")}) is None
    for kept in (None, "abc", {}, {"a.csv": now["a.csv"]}):
        assert changed(data, kept, now) == tmp_path / "manifest.csv"


def test_what_cannot_be_read_is_named(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        digests(str(tmp_path / "none.csv"), experiment)

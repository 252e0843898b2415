"""configs list and copy: what an installed package brings, where a user can change it."""

from pathlib import Path

import pytest

from cm2pyro.api import CM2
from cm2pyro.sweep.experiment import Experiment
from tests.cli.commands import call, refused


def test_list_names_every_config_and_what_it_is_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "configs", "list")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert {f"{name}.yaml" for name in lines} == {str(path.relative_to(root / "configs")) for path in (root / "configs").rglob("*.yaml")}
    assert all(len(comment) > 20 for comment in lines.values())


def test_copies_are_whole_and_good(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "configs", "copy", "--out", tmp_path / "all")
    assert code == 0
    written = sorted(path.relative_to(tmp_path / "all") for path in (tmp_path / "all").rglob("*.yaml"))
    assert written == sorted(path.relative_to(root / "configs") for path in (root / "configs").rglob("*.yaml"))
    assert all((tmp_path / "all" / path).read_bytes() == (root / "configs" / path).read_bytes() for path in written)
    assert len(out.splitlines()) == len(written)


def test_a_config_comes_with_what_it_is_based_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "configs", "copy", "ablations/frank", "simulated.yaml", "--out", tmp_path)[0] == 0
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")}
    assert files == {"ablations/frank.yaml", "physionet2012.yaml", "simulated.yaml"}
    assert CM2.from_config(tmp_path / "ablations" / "frank.yaml").config.prior.copula.family == "frank"


@pytest.mark.slow
def test_an_experiment_comes_with_what_it_names(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone in its folder each is what it is among all the others."""
    for path in (root / "configs" / "experiments").iterdir():
        if path.stem == "published":
            continue
        out = tmp_path / path.stem
        assert call(capsys, "configs", "copy", f"experiments/{path.stem}", "--out", out)[0] == 0
        copied, shipped = (Experiment.read(folder / "experiments" / path.name) for folder in (out, root / "configs"))
        assert (copied.base, copied.axes) == (shipped.base, shipped.axes)
        assert (out / "experiments" / "published.yaml").is_file()
    assert {path.name for path in (tmp_path / "components").iterdir()} == {"experiments", "simulated.yaml"}


def test_what_a_user_has_changed_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "configs", "copy", "simulated", "--out", tmp_path)[0] == 0
    assert call(capsys, "configs", "copy", "simulated", "--out", tmp_path)[0] == 0  # the same again loses nothing
    (tmp_path / "simulated.yaml").write_text("mine")
    line = refused(capsys, 2, "configs", "copy", "physionet2012", "simulated", "--out", tmp_path)
    assert "simulated.yaml: is there already and differs" in line
    assert "--overwrite" in line
    assert [path.name for path in tmp_path.iterdir()] == ["simulated.yaml"]  # nothing of the others either
    assert (tmp_path / "simulated.yaml").read_text() == "mine"
    assert call(capsys, "configs", "copy", "simulated", "--out", tmp_path, "--overwrite")[0] == 0
    assert (tmp_path / "simulated.yaml").read_text() != "mine"


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'ablations/frank'" in refused(capsys, 2, "configs", "copy", "frank", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(capsys, 1, "configs", "copy", "simulated", "--out", tmp_path / "file" / "out")
    (tmp_path / "simulated.yaml").mkdir()
    assert "simulated.yaml" in refused(capsys, 2, "configs", "copy", "simulated", "--out", tmp_path)
    assert "simulated.yaml" in refused(capsys, 1, "configs", "copy", "simulated", "--out", tmp_path, "--overwrite")

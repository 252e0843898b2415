"""data shard, and the commands that take shards."""

from pathlib import Path

import pytest

from tests.cli.commands import call, refused
from tests.inference.fits import small

pytestmark = pytest.mark.slow


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """manifest.csv and config.yaml."""
    import numpy as np
    import yaml

    from tests.inference.fits import manifest

    random = np.random.default_rng(0)
    z = random.normal(size=(60, 3, 2))
    manifest(z, random.random((60, 3)) < 0.7, 1).to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small(fit={"epochs": 1})))
    return tmp_path


def test_the_whole_way(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, run, config = files / "shards", files / "run", files / "config.yaml"
    code, out, err = call(capsys, "data", "shard", files / "manifest.csv", "--out", shards, "--config", config, "--rows-per-shard", 20)
    assert (code, err) == (0, "")
    assert "60 rows" in out
    assert "splits: train 48, val 12, test 0" in out
    _, said, _ = call(capsys, "data", "check", files / "manifest.csv", "--config", config)
    assert out.splitlines()[-10:] == said.splitlines()[-10:]  # modalities and patterns, line by line
    assert call(capsys, "data", "check", shards)[0] == 0
    assert call(capsys, "fit", config, "--data", shards, "--out", run)[0] == 0
    code, out, _ = call(capsys, "predict", run, "--data", shards, "--out", files / "p.csv", "--draws", 2)
    assert code == 0
    assert "60 predictions" in out
    assert len((files / "p.csv").read_text().splitlines()) == 61
    code, out, _ = call(capsys, "evaluate", run, "--data", shards, "--out", files / "m.json", "--draws", 2, "--bootstrap", 5, "--rows", 30)
    assert code == 0
    assert "30 of 60 rows" in out
    for name in ("report", "figure"):
        assert "all rows in memory" in refused(
            capsys, 2, "predict", run, "--data", shards, "--out", files / "q.csv", f"--{name}", files / "r"
        )
    for command in (("diagnose", run), ("impute", run, "--out", files / "x.nc"), ("recalibrate", run)):
        assert "is a folder of shards" in refused(capsys, 1, *command, "--data", shards)
    assert "directory" in refused(capsys, 1, "predict", run, "--data", files, "--out", files / "q.csv")
    assert "not empty" in refused(capsys, 2, "data", "shard", files / "manifest.csv", "--out", shards)
    assert call(capsys, "data", "shard", files / "manifest.csv", "--out", shards, "--overwrite")[0] == 0


def test_a_changed_shard_is_refused_in_one_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = files / "shards"
    assert call(capsys, "data", "shard", files / "manifest.csv", "--out", shards, "--rows-per-shard", 20)[0] == 0
    path = shards / "train-00001" / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:-10] + bytes(10))
    assert "train-00001" in refused(capsys, 1, "data", "check", shards)
    assert "train-00001" in refused(capsys, 1, "fit", files / "config.yaml", "--data", shards, "--out", files / "run")
    assert not (files / "run").exists()

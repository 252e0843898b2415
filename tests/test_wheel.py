"""The sdist and the wheel, built and installed where nothing else of this project is; the version comes from the tag."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", ".coverage*", "__pycache__", "*.egg-info", "build", "dist", "demo", "runs")
TAG = "9.8.7"


def run(*command: str | Path, cwd: Path) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files without git's."""
    place = tmp_path_factory.mktemp("tree") / "cm2pyro"
    shutil.copytree(root, place, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return place


@pytest.fixture(scope="module")
def tagged(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of these files, whose commit is tagged."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    tagged = tmp_path_factory.mktemp("tagged") / "cm2pyro"
    shutil.copytree(tree, tagged)
    git = ("git", "-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all"), ("tag", f"v{TAG}")):
        run(*git, *command, cwd=tagged)
    return tagged


@pytest.fixture(scope="module")
def built(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tagged commit, and the wheel made from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=tagged)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment with the wheel, which sees the other packages of this one but not its cm2pyro."""
    place = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", place / "env", cwd=place)
    python = place / "env" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    # Files .pth inside these folders, such as that of an editable installation, are not read.
    (site,) = (place / "env").glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")))
    return python.parent


def test_the_version_is_the_tag(built: Path, installed: Path) -> None:
    assert sorted(path.name for path in built.iterdir()) == [f"cm2pyro-{TAG}-py3-none-any.whl", f"cm2pyro-{TAG}.tar.gz"]
    code = "import cm2pyro, importlib.util as u; print(cm2pyro.__version__, cm2pyro.__file__, u.find_spec('tests'))"
    version, file, tests = run(installed / "python", "-c", code, cwd=built).split()
    assert version == TAG
    assert Path(file).is_relative_to(installed.parent)
    assert tests == "None"
    assert run(installed / "cm2pyro", "--version", cwd=built).split() == ["cm2pyro,", "version", TAG]


def test_without_git_there_is_a_version_too(tree: Path) -> None:
    settings = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    assert run(sys.executable, "-m", "setuptools_scm", cwd=tree).strip() == settings["fallback_version"]


def test_an_archive_of_a_tag_knows_it(tagged: Path, tmp_path: Path) -> None:
    """What GitHub gives as the source of a release, and what is kept of it elsewhere."""
    run("git", "archive", "--output", tmp_path / "source.tar", f"v{TAG}", cwd=tagged)
    with tarfile.open(tmp_path / "source.tar") as archive:
        archive.extractall(tmp_path / "source", filter="data")
    assert run(sys.executable, "-m", "setuptools_scm", cwd=tmp_path / "source").strip() == TAG


def test_nothing_is_left_out_and_nothing_else_is_in(built: Path, tree: Path) -> None:
    ours = {f"cm2pyro/{path.relative_to(tree / 'cm2pyro')}" for path in (tree / "cm2pyro").rglob("*") if path.is_file()}
    configs = {f"cm2pyro/configs/{path.relative_to(tree / 'configs')}" for path in (tree / "configs").rglob("*.yaml")}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if not name.startswith(f"cm2pyro-{TAG}.dist-info/")}
    assert names == ours | configs
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert ours | {"LICENSE", "CHANGELOG.md", "Makefile", "configs/simulated.yaml", "tests/test_wheel.py", "docs/method.md"} <= inside


def test_the_first_commands_of_a_user(installed: Path, tmp_path: Path) -> None:
    """No file of the checkout is at hand."""
    command = installed / "cm2pyro"
    assert "simulate" in run(command, "--help", cwd=tmp_path)
    assert "next: cm2pyro configs copy" in run(command, "simulate", "data", "--samples", "120", cwd=tmp_path)
    run(command, "configs", "copy", "simulated", cwd=tmp_path)
    manifest = ("--data", "data/manifest.csv")
    run(command, "fit", "configs/simulated.yaml", *manifest, "--out", "run", "--set", "fit.epochs=2", cwd=tmp_path)
    run(command, "predict", "run", *manifest, "--out", "predictions.csv", "--draws", "10", cwd=tmp_path)
    assert pd.read_csv(tmp_path / "predictions.csv").probability.between(0, 1).all()
    run(command, "diagnose", "run", *manifest, "--draws", "10", cwd=tmp_path)
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")[:200]
    assert (tmp_path / "run" / "posterior.nc").stat().st_size > 0

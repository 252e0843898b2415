"""Each example of docs/extending.md is one new file and one line, and then works: in a copy of the package, in processes of their own."""

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from cm2pyro.distributions import make_copula
from docs.examples.exchangeable import ExchangeableCopula
from docs.examples.half_student_t import HalfStudentT
from docs.examples.tcn import TCN

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"```{literalinclude} (examples/\w+\.py)\n:language: python\n:caption: (\S+)\n```")
LINE = re.compile(r"in `(cm2pyro/\S+\.py)`.*:\n\n    (.+)\n")
TOPICS = ["A copula family", "An encoder", "A prior", "A data source"]

RECORDS = 60


def add(root: Path, tree: Path, topic: str) -> None:
    """What the section of the page says: copy its file, write its line below the last of its kind."""
    section = PAGE.split(f"\n## {topic}\n")[1].split("\n## ")[0]
    ((example, place),) = FILE.findall(section)
    ((registry, line),) = LINE.findall(section)
    assert not (tree / place).exists()
    shutil.copy(root / "docs" / example, tree / place)
    lines = (tree / registry).read_text(encoding="utf-8").splitlines(keepends=True)
    call = line.split("(")[0]
    heads = [i for i, text in enumerate(lines) if text.startswith((f"{call}(", "SOURCES = ("))]
    at = heads[-1] + 1
    lines.insert(at, f"    {line}\n" if call == "Source" else f"{line}\n")
    (tree / registry).write_text("".join(lines), encoding="utf-8")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}


def copied(root: Path, tree: Path) -> Path:
    shutil.copytree(root / "cm2pyro", tree / "cm2pyro", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def run(tree: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=tree, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def tree(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with all four examples, and the tests of its families."""
    made = copied(root, tmp_path_factory.mktemp("tree"))
    for topic in TOPICS:
        add(root, made, topic)
    shutil.copytree(root / "tests" / "distributions", made / "tests" / "distributions")
    shutil.copy(root / "tests" / "conftest.py", made / "tests" / "conftest.py")
    shutil.copy(root / "pyproject.toml", made / "pyproject.toml")
    return made


@pytest.mark.parametrize("topic", TOPICS)
def test_an_addition_is_one_file_and_one_line(root: Path, tmp_path: Path, topic: str) -> None:
    before = files(copied(root, tmp_path))
    add(root, tmp_path, topic)
    after = files(tmp_path)
    assert len(set(after) - set(before)) == 1
    (changed,) = (name for name in before if after[name] != before[name])
    difference = list(difflib.ndiff(before[changed].splitlines(), after[changed].splitlines()))
    assert [line[0] for line in difference if line[0] in "+-?"] == ["+"]


def test_the_additions_are_as_well_kept_as_the_package(tree: Path) -> None:
    """Lines of the page fit where they go: within the width, and formatted."""
    if shutil.which("ruff", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("ruff is not installed")
    run(tree, "-m", "ruff", "check", "cm2pyro")
    run(tree, "-m", "ruff", "format", "--check", "cm2pyro")


@pytest.mark.slow
def test_the_family_passes_the_tests_of_every_family(tree: Path) -> None:
    folder = Path("tests", "distributions", "copulas")
    names = ("test_contract.py", "test_density.py", "test_draws.py", "test_conditionals.py")
    found = run(tree, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", "exchangeable", *(str(folder / n) for n in names))
    passed = re.search(r"(\d+) passed", found)
    assert passed is not None
    assert int(passed[1]) >= 20


def test_the_family_is_the_gaussian_one_with_equal_correlations() -> None:
    generator = torch.Generator().manual_seed(0)
    tau = torch.tensor(0.4, dtype=torch.float64)
    ours, known = ExchangeableCopula.from_tau(tau, 4), make_copula("gaussian", 4, tau=tau)
    s, noise = (torch.randn(50, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    observed = torch.rand(50, 4, generator=generator) < 0.5
    torch.testing.assert_close(ours.log_prob(s), known.log_prob(s))
    torch.testing.assert_close(ours.log_prob(s, observed), known.log_prob(s, observed))
    draws = [copula.conditional(s, observed).rsample(noise=noise) for copula in (ours, known)]
    torch.testing.assert_close(*draws, rtol=0, atol=1e-6)


def test_the_prior_is_a_density_and_its_draws_have_it() -> None:
    prior = HalfStudentT(torch.tensor(3.0), torch.tensor(2.0)).expand((4, 2))
    x, known = torch.linspace(0.1, 30, 50), stats.t(3, scale=2)
    found = prior.log_prob(x[:, None, None].expand(50, 4, 2))
    assert found.shape == (50, 4, 2)
    torch.testing.assert_close(found[:, 3, 1], torch.tensor(np.log(2) + known.logpdf(x)).float(), rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    draws = prior.sample((500,)).flatten()
    assert bool((draws > 0).all())
    assert stats.kstest(draws, lambda q: 2 * known.cdf(q) - 1).pvalue > 1e-3


def test_the_encoder_looks_at_measured_bins_and_no_other_row() -> None:
    torch.manual_seed(0)
    encoder = TCN({"binned": (24, 6), "measured": (24,)}, hidden=8).eval()
    x, measured = torch.randn(5, 24, 6), torch.zeros(5, 24)
    measured[:, :10] = 1
    out = encoder({"binned": x, "measured": measured})
    assert out.shape == (5, encoder.width)
    later, other = x.clone(), x.clone()
    later[:, 10:], other[1:] = 9.0, 9.0
    torch.testing.assert_close(encoder({"binned": later, "measured": measured}), out)
    torch.testing.assert_close(encoder({"binned": other, "measured": measured})[0], out[0])
    assert not torch.allclose(encoder({"binned": x + 1, "measured": measured}), out)
    assert bool(torch.isfinite(encoder({"binned": x, "measured": torch.zeros(5, 24)})).all())


def write_records(folder: Path) -> dict[str, str]:
    """Stays in the challenge's format; stay -> why it is left out, or its label."""
    random = np.random.default_rng(0)
    folder.mkdir()
    expected = {}
    for i in range(RECORDS):
        hours = 8 if i % 10 == 0 else 20
        onset = {1: 5, 2: 15}.get(i % 5, 99)  # the hour from which the label is 1
        clock = np.arange(1, hours + 1)
        septic = clock >= onset
        stay = pd.DataFrame({"HR": 80 + 25.0 * (onset == 15) + random.normal(size=hours), "Temp": 37 + random.normal(size=hours)})
        stay = stay.mask(random.random(stay.shape) < 0.3)
        stay = stay.assign(
            Age=60 + i, Gender=i % 2, Unit1=np.nan, Unit2=np.nan, HospAdmTime=-3.0, ICULOS=clock, SepsisLabel=septic.astype(int)
        )
        stay.to_csv(folder / f"p{i:06d}.psv", sep="|", index=False, na_rep="NaN")
        expected[f"p{i:06d}"] = "short" if hours == 8 else "early" if onset == 5 else str(int(onset == 15))
    return expected


@pytest.mark.slow
def test_the_source_is_prepared_and_fitted_with_the_family_the_encoder_and_the_prior(tree: Path) -> None:
    expected = write_records(tree / "records")
    config = {
        "modalities": {
            "series": {"kind": "timeseries", "encoder": "tcn", "table": "series.parquet", "hours": 12, "layers": 2, "hidden": 8},
            "static": {"kind": "tabular", "encoder": "mlp", "table": "static.parquet", "hidden": 4},
        },
        "latent": {"dim": 2},
        "prior": {"components": 2, "copula": {"family": "exchangeable"}},
        "priors": {"scales": {"dist": "HalfStudentT", "df": 3, "scale": 1}},
        "fusion": {"kind": "mlp", "hidden": 4},
        "fit": {"epochs": 2, "batch_size": 16, "lr": 0.01},
    }
    (tree / "config.yaml").write_text(yaml.safe_dump(config))
    commands = [
        ["prepare", "physionet2019", "--records", "records", "--out", "data"],
        ["fit", "config.yaml", "--data", "data/manifest.csv", "--out", "run"],
        ["predict", "run", "--data", "data/manifest.csv", "--out", "predictions.csv"],
        ["priors", "list", "config.yaml"],
    ]
    code = "import json, sys\nfrom cm2pyro.cli import main\nfor words in json.loads(sys.argv[1]):\n"
    code += "    try: main(words)\n    except SystemExit as stop: assert not stop.code, words\n"
    said = run(tree, "-c", code, json.dumps(commands))
    assert "HalfStudentT(df=3, scale=1)" in said
    kept = {stay: label for stay, label in expected.items() if label in "01"}
    assert f"left out: {list(expected.values()).count('short')} shorter" in said
    assert f"{list(expected.values()).count('early')} septic inside" in said
    manifest = pd.read_csv(tree / "data" / "manifest.csv", dtype=str)
    assert dict(zip(manifest.sample_id, manifest.label, strict=True)) == kept
    series = pd.read_parquet(tree / "data" / "series.parquet")
    assert series.hours.max() <= 12  # nothing of what comes later
    assert set(series.variable) == {"HR", "Temp"}
    predictions = pd.read_csv(tree / "predictions.csv")
    assert len(predictions) == len(kept)
    assert predictions.probability.between(0, 1).all()
    mixture = json.loads((tree / "run" / "mixture.json").read_text())
    assert "exchangeable" in json.dumps(mixture)


def test_a_source_refuses_in_one_line(tree: Path) -> None:
    broken = tree / "broken"
    broken.mkdir()
    (broken / "p000001.psv").write_text("HR|Temp\n80|warm\n")
    done = subprocess.run(
        [sys.executable, "-m", "cm2pyro", "prepare", "physionet2019", "--records", "broken", "--out", "none"],
        cwd=tree, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tree)}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {Path('broken', 'p000001.psv')}: cannot be read")
    assert done.stderr.count("\n") == 1
    assert not (tree / "none").exists()

"""`cm2pyro prepare`: what it prints, what it passes on, and that its help loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cm2pyro.cli.prepare import SOURCES, Source, _command, prepare
from cm2pyro.errors import ConfigError, DataError


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """A folder with ten small records, of which two end in death, and their outcomes."""
    records = tmp_path / "set-a"
    records.mkdir()
    lines = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    for record in range(201, 211):
        gases = "03:00,pH,7.4\n" if record % 2 else ""
        (records / f"{record}.txt").write_text(
            f"Time,Parameter,Value\n00:00,RecordID,{record}\n00:00,Age,60\n00:00,ICUType,3\n01:00,HR,80\n02:00,HR,0\n03:00,Na,140\n{gases}"
        )
        lines.append(f"{record},6,1,5,-1,{int(record > 208)}")
    (tmp_path / "Outcomes-a.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def invoke(challenge: Path, *extra: str) -> str:
    arguments = ["physionet2012", "--records", str(challenge / "set-a"), "--out", str(challenge / "out"), *extra]
    result = CliRunner().invoke(prepare, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_it_wrote(challenge: Path) -> None:
    output = invoke(challenge, "--outcomes", str(challenge / "Outcomes-a.txt"))
    assert "wrote" in output
    assert str(challenge / "out") in output
    assert "stays: 10, 2 deaths; train 8, val 2" in output
    assert "static 10 (100.0%), vitals 10 (100.0%), labs 10 (100.0%), gases 5 (50.0%)" in output
    assert "impossible 10" in output
    assert (challenge / "out" / "manifest.csv").read_text().startswith("sample_id,subject_id,split,label\n")


def test_splits_seed_and_overwrite_are_passed_on(challenge: Path) -> None:
    manifest = challenge / "out" / "manifest.csv"
    assert "test 10" in invoke(challenge, "--splits", "test=1")
    assert "label" not in manifest.read_text()
    invoke(challenge, "--overwrite", "--seed", "1")
    one = manifest.read_text()
    invoke(challenge, "--overwrite", "--seed", "2")
    assert manifest.read_text() != one
    with pytest.raises(ConfigError, match="--overwrite"):
        invoke(challenge)


def test_refusals_are_ours(challenge: Path) -> None:
    with pytest.raises(ConfigError, match="--splits"):
        invoke(challenge, "--splits", "train:0.8")
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        invoke(challenge, "--outcomes", str(challenge / "nowhere.txt"))
    assert not (challenge / "out").exists()


def test_wrong_command_lines_exit_with_2() -> None:
    for arguments in (["physionet2012"], ["physionet1999"], ["physionet2012", "--records", "a", "--out", "b", "--seed", "-1"]):
        assert CliRunner().invoke(prepare, arguments).exit_code == 2


def test_help_names_every_source_and_imports_nothing_heavy() -> None:
    output = CliRunner().invoke(prepare, ["--help"]).output
    for source in SOURCES:
        assert source.name in output
    code = "import sys, cm2pyro.cli.prepare; sys.exit(bool({'torch', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_source_may_have_options_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another source is one module and one `Source` line."""
    (tmp_path / "cm2_test_source.py").write_text(
        "class Summary:\n    def lines(self): return ['done']\n"
        "def prepare(records, out, splits, seed, overwrite, notes):\n"
        "    assert (splits, notes) == ({'train': 1.0}, 'yes')\n    return Summary()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    command = _command(Source("other", "cm2_test_source", "Help.", "A folder.", "train=1", (click.option("--notes"),)))
    result = CliRunner().invoke(command, ["--records", "a", "--out", "b", "--notes", "yes"], catch_exceptions=False)
    assert result.output == "done\n"

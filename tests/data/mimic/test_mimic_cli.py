"""`cm2pyro prepare mimic3` and `mimic4` as typed: what is printed, and one line and an exit code for bad input."""

from pathlib import Path
from typing import Any

import pytest

from cm2pyro.cli import main


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *arguments])
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def refused(capsys: pytest.CaptureFixture[str], code: int, says: str, *arguments: str) -> None:
    found, out, error = typed(capsys, *arguments)
    assert found == code
    assert out == ""
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("source", ["mimic3", "mimic4"])
def test_the_counts_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, source: str) -> None:
    records = request.getfixturevalue(source).write(tmp_path / "mimic")
    code, out, _ = typed(capsys, source, "--records", str(records), "--out", str(tmp_path / "out"), "--hours", "24", "--splits", "train=1")
    assert code == 0
    assert "in the tables: 16 stays of 14 admissions, 15 patients" in out
    assert "shorter than 24 h: -0" in out
    assert "samples: 5 stays, 5 patients; train " in out
    assert "labels: mortality 2 (40.0%), readmission 3 (60.0%), 25 phenotypes" in out
    assert (tmp_path / "out" / "manifest.csv").is_file()


@pytest.mark.parametrize("source", ["mimic3", "mimic4"])
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, source: str) -> None:
    tables: Any = request.getfixturevalue(source)
    out = str(tmp_path / "out")
    refused(capsys, 1, "absent: does not exist", source, "--records", str(tmp_path / "absent"), "--out", out)
    (tmp_path / "file.csv").write_text("x\n")
    refused(capsys, 1, "file.csv: is a file", source, "--records", str(tmp_path / "file.csv"), "--out", out)
    records = tables.write(tmp_path / "mimic")
    given = (source, "--records", str(records), "--out", out)
    refused(capsys, 2, "--splits", *given, "--splits", "train:1")
    refused(capsys, 2, "--hours: found -1", *given, "--hours", "-1")
    assert typed(capsys, *given, "--pairs", "all")[0] == 2
    charts = next(path for path in records.rglob("*.gz") if path.name.lower() == "chartevents.csv.gz")
    whole = charts.read_bytes()
    charts.write_bytes(whole[:-20])
    refused(capsys, 1, f"{charts}: cannot be read", *given)
    charts.unlink()
    refused(capsys, 1, "has no chartevents.csv or chartevents.csv.gz", *given)
    charts.write_bytes(whole)
    stays = next(table for table in tables.rows if table.lower().endswith("icustays"))
    for cell in ("INTIME", "intime"):
        if cell in tables.rows[stays][1]:
            tables.rows[stays][1][cell] = "soon"
    tables.write(tmp_path / "mimic")
    refused(capsys, 1, "found the time 'soon', expected one such as 2150-03-01 07:30:00", *given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--cxr", "--notes"])
def test_a_linked_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], mimic4: Any, option: str) -> None:
    records = mimic4.write(tmp_path / "mimic")
    refused(capsys, 1, "nowhere", "mimic4", "--records", str(records), "--out", str(tmp_path / "out"), option, str(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()

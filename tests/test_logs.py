"""log.jsonl: a line an event, appended when a fit goes on, and nothing of a patient in a run folder but where it is documented."""

import json
import logging
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from cm2pyro import logs
from cm2pyro.api import CM2
from cm2pyro.errors import CheckpointError, DataError
from tests.inference.fits import CutError, settings, table

# docs/robustness.md: what the run needs to hold out, hide and read the same again.
IDENTIFIERS = {"holdout.json", "mask.csv"}
WORDS = {"tokenizer.json", "preprocessing.json"}


def read(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / logs.FILE).open()]


@pytest.mark.slow
def test_a_line_an_event_and_appended_on_resume(tmp_path: Path) -> None:
    def cut(record: dict, warnings: list[str]) -> None:
        if record["epoch"] == 2:
            raise CutError

    run = tmp_path / "run"
    with pytest.raises(CutError):
        CM2.from_config(settings()).fit(table(), out=run, report=cut)
    first = read(run)
    with (run / logs.FILE).open("a") as file:
        file.write('{"time": "2026')  # the process died there
    CM2.from_config(settings()).fit(table(), out=run, resume=True)
    lines = read(run)
    assert lines[: len(first)] == first
    assert first[-1]["event"] == "error"
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2, 3]
    assert [line["resumed"] for line in lines if line["event"] == "fit"] == [False, True]
    assert lines[-1]["event"] == "end"
    begin = lines[0]
    assert {"torch", "pyro-ppl", "python", "cm2pyro", "device", "train_rows", "config"} <= set(begin)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"]) for line in lines)
    assert {line["level"] for line in lines} <= {"info", "warning", "error"}
    CM2.from_config(settings(fit={"epochs": 1})).fit(table(), out=run, overwrite=True)
    assert [line["event"] for line in read(run)].count("fit") == 1


def test_nothing_of_a_patient_in_a_run(tmp_path: Path) -> None:
    """Identifiers, labels of subjects and the words of notes; a fit that warns, is cut, fails and goes on."""
    frame = table()
    frame["sample_id"] = [f"sample-Qx{i:03}" for i in range(len(frame))]
    frame["subject_id"] = [f"subject-Wz{i:03}" for i in range(len(frame))]
    frame["note"] = [f"Mrs Zyxwvut{i:03} of Quillbury breathes calmly" for i in range(len(frame))]
    config = settings()
    config["modalities"] |= {"note": {"kind": "text", "encoder": "bag", "max_tokens": 8, "hidden": 4}}
    run, data = tmp_path / "run", tmp_path / "manifest.csv"
    frame.to_csv(data, index=False)
    CM2.from_config(config).fit(data, out=run)
    with pytest.raises(DataError, match="sample-Qx000"):  # the message is the user's, not the log's
        CM2.from_config(config).fit(pd.concat([frame, frame]), out=run, resume=True)
    assert read(run)[-1] | {"time": ""} == {"time": "", "level": "error", "event": "error", "kind": "DataError", "message": None}
    holds: dict[str, set[str]] = {}
    for path in run.rglob("*"):
        for what, pattern in (("identifier", rb"sample-Qx|subject-Wz"), ("word", rb"(?i)zyxwvut|quillbury|breathes")):
            if path.is_file() and re.search(pattern, path.read_bytes()):
                holds.setdefault(what, set()).add(path.name)
    assert holds.get("identifier", set()) <= IDENTIFIERS
    assert holds.get("word", set()) <= WORDS
    assert holds["word"], "the test would see nothing"


def test_messages_that_may_quote_data_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cm2pyro"):
        for error in (DataError("row 3: 'Mrs Smith'"), ValueError("Mrs Smith"), CheckpointError("cut short")):
            logs.failure(error)
    assert [record.fields["message"] for record in caplog.records] == [None, None, "cut short"]


def test_importing_shows_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logs.event("x", logging.WARNING, number=float("nan"))
    with logs.into(tmp_path):
        logs.event("x", number=float("nan"), deep=[{"y": float("inf")}])
    assert capsys.readouterr() == ("", "")
    (line,) = read(tmp_path)
    assert (line["number"], line["deep"]) == (None, [{"y": None}])


def test_a_log_that_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A link would lead out of the run, and a pipe would wait for its reader for ever."""
    (tmp_path / "outside").write_text("precious")
    (tmp_path / logs.FILE).symlink_to("outside")
    with logs.into(tmp_path):
        logs.event("x")
    assert (tmp_path / "outside").read_text() == "precious"
    (tmp_path / logs.FILE).unlink()
    os.mkfifo(tmp_path / logs.FILE)
    with logs.into(tmp_path):
        logs.event("x")


def test_a_torn_line_is_dropped_however_long_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LONGEST", 64)
    (tmp_path / logs.FILE).write_text('{"event": "earlier"}\n' * 100 + '{"event": "to')
    with logs.into(tmp_path):
        logs.event("x")
    assert [line["event"] for line in read(tmp_path)] == ["earlier"] * 100 + ["x"]


def test_a_log_that_cannot_be_written_costs_no_fit(tmp_path: Path) -> None:
    with logs.into(tmp_path / "nowhere"):
        logs.event("x")

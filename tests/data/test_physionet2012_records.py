"""Records and outcomes of the challenge as they come: what is passed over, and every refusal."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2pyro.data.physionet2012 import prepare
from cm2pyro.errors import DataError
from tests.data.challenge import FIRST, HEADER, OUTCOMES, RECORDS, SPLITS, make_archive, make_folder, refused, run


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    extra = {"Outcomes-a.txt": "no record", "set-a/._101.txt": "\0", "set-a/notes.md": "x", "README.txt": "y"}
    for make in (make_folder, make_archive):
        (tmp_path / make.__name__).mkdir()
        _, summary = run(tmp_path / make.__name__, make(tmp_path / make.__name__, RECORDS | extra))
        assert summary.stays == 3


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "set-a.tar"
    secret = tmp_path / "secret"
    secret.write_text(RECORDS["set-a/101.txt"])
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            link = tarfile.TarInfo("101.txt")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
    refused(tmp_path, path, DataError, "101.txt: is a link or a device", outcomes=None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (FIRST + "03:00,HR\n", ("line 21", "2 fields in '03:00,HR'", "expected 3")),
        (FIRST + "03:00,HR,70,71\n", ("line 21", "4 fields")),
        (FIRST + "03:00,HR,fast\n", ("line 21", "the value 'fast'", "a finite number")),
        (FIRST + "03:00,HR,\n", ("line 21", "the value ''")),
        (FIRST + "03:00,HR,nan\n", ("line 21", "the value 'nan'")),
        (FIRST + "03:00,HR,1e999\n", ("line 21", "the value '1e999'")),
        (FIRST + "03:00,HR,1_0\n", ("line 21", "the value '1_0'")),
        (FIRST + "03:60,HR,70\n", ("line 21", "the time '03:60'", "HH:MM")),
        (FIRST + "3:00,HR,70\n", ("line 21", "the time '3:00'")),
        (FIRST.replace("RecordID,101", "RecordID,999"), ("line 2", "RecordID '999'", "expected 101")),
        (FIRST.replace("00:00,RecordID,101\n", ""), ("no RecordID row",)),
    ],
)
@pytest.mark.parametrize("make", [make_folder, make_archive])
def test_a_malformed_record_is_named_with_its_line(
    tmp_path: Path, make: Callable[[Path, dict[str, str]], Path], body: str, says: tuple[str, ...]
) -> None:
    records = make(tmp_path, RECORDS | {"set-a/101.txt": HEADER + body})
    refused(tmp_path, records, DataError, "set-a/101.txt", *says)


@pytest.mark.parametrize("text", ["", FIRST, "Time;Parameter;Value\n", "\x00" * 100])
def test_a_file_without_the_header_is_refused(tmp_path: Path, text: str) -> None:
    refused(
        tmp_path, make_folder(tmp_path, RECORDS | {"set-a/101.txt": text}), DataError, "101.txt, line 1", "expected Time,Parameter,Value"
    )


def test_binary_records_are_refused(tmp_path: Path) -> None:
    records = make_folder(tmp_path, RECORDS)
    (records / "set-a" / "101.txt").write_bytes(HEADER.encode() + b"\xff\xfe")
    refused(tmp_path, records, DataError, "101.txt", "not UTF-8")


@pytest.mark.parametrize("make", [make_folder, make_archive])
def test_a_record_that_is_too_large_is_refused(tmp_path: Path, make: Callable[[Path, dict[str, str]], Path]) -> None:
    records = make(tmp_path, RECORDS | {"set-a/104.txt": "x" * 10_000_001})
    refused(tmp_path, records, DataError, "104.txt", "10,000,001 bytes", "at most 10,000,000")


def test_a_repeated_record_is_refused(tmp_path: Path) -> None:
    records = make_archive(tmp_path, RECORDS | {"set-b/101.txt": RECORDS["set-a/101.txt"]})
    refused(tmp_path, records, DataError, "set-b/101.txt", "also", "set-a/101.txt")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "set-a.tar.gz"
    plain.write_text("hello")
    refused(tmp_path, plain, DataError, "set-a.tar.gz", "no complete tar archive")
    plain.unlink()
    whole = make_archive(tmp_path, RECORDS).read_bytes()
    plain.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, plain, DataError, "no complete tar archive")
    refused(tmp_path, tmp_path / "absent.tar.gz", DataError, "absent.tar.gz: does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", DataError, "found no record")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outcomes", "says"),
    [
        (OUTCOMES.replace("102,21", "202,21"), ("1 of 3 records", "such as 102", "1 of 3 outcomes", "'202'")),
        (OUTCOMES.replace("102,21,11,19,-1,1\n", ""), ("1 of 3 records have no outcome (such as 102)",)),
        (OUTCOMES + "104,1,1,1,-1,0\n", ("1 of 4 outcomes have no record (such as '104')",)),
        (OUTCOMES + "101,1,1,1,-1,0\n", ("line 5", "'101'", "repeated")),
        (OUTCOMES.replace("-1,1\n", "-1,2\n"), ("line 4", "found In-hospital_death '2'", "0 or 1")),
        (OUTCOMES + "104\n", ("line 5", "found In-hospital_death 'None'")),
        (OUTCOMES.replace("In-hospital_death", "death"), ("line 1", "no column In-hospital_death")),
        ("", ("no column RecordID",)),
    ],
)
def test_wrong_outcomes_are_refused(tmp_path: Path, outcomes: str, says: tuple[str, ...]) -> None:
    refused(tmp_path, make_folder(tmp_path, RECORDS), DataError, "Outcomes-a.txt", *says, outcomes=outcomes)


def test_absent_and_binary_outcomes_are_refused(tmp_path: Path) -> None:
    records = make_folder(tmp_path, RECORDS)
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read"):
        prepare(records, tmp_path / "nowhere.txt", tmp_path / "out", SPLITS, 0, False)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.txt: is no CSV text"):
        prepare(records, tmp_path / "binary.txt", tmp_path / "out", SPLITS, 0, False)

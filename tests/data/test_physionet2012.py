"""Challenge records become tables: every cleaning rule, every refusal, and the real set A where CM2_DATA names it."""

import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data import physionet2012
from cm2pyro.data.physionet2012 import MODALITIES, RANGES, PreparedSummary, prepare
from cm2pyro.errors import CM2Error, ConfigError, DataError
from tests import refusals

HEADER = "Time,Parameter,Value\n"
FIRST = """00:00,RecordID,101
00:00,Age,54
00:00,Gender,0
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,81.5
00:07,HR,73
00:07,HR,75
00:07,Temp,-17.8
00:37,HR,0
01:30,Weight,82
02:00,pH,735
02:00,pH,7.31
02:00,Na,-1
02:00,K,4.1
02:15,,5
02:20,,
02:30,Shoesize,43
48:00,MechVent,1
"""
SECOND = "00:00,RecordID,102\n00:00,Age,61\n00:00,Gender,-1\n00:00,Height,431.8\n00:00,ICUType,2\n00:00,Weight,-1\n05:00,Weight,70\n"
THIRD = "00:00,RecordID,103\n00:00,Age,90\n00:00,Gender,1\n00:00,Height,180\n00:00,ICUType,9\n00:00,Weight,70\n"
RECORDS = {"set-a/101.txt": HEADER + FIRST, "set-a/102.txt": HEADER + SECOND, "set-a/103.txt": HEADER + THIRD}
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n101,6,1,5,-1,0\n103,16,8,8,-1,0\n102,21,11,19,-1,1\n"
SPLITS = {"train": 0.67, "val": 0.33}


def make_folder(root: Path, records: dict[str, str]) -> Path:
    for name, text in records.items():
        path = root / "records" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "records"


def make_archive(root: Path, records: dict[str, str], mode: str = "w:gz") -> Path:
    path = root / ("set-a.tar" if mode == "w" else "set-a.tar.gz")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, text in records.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def run(root: Path, records: Path, outcomes: str | None = OUTCOMES, **changes: object) -> tuple[Path, PreparedSummary]:
    if outcomes is not None:
        (root / "Outcomes-a.txt").write_text(outcomes)
    arguments: dict = {"out": root / "out", "splits": SPLITS, "seed": 0, "overwrite": False} | changes
    return root / "out", prepare(records, None if outcomes is None else root / "Outcomes-a.txt", **arguments)


def refused(root: Path, records: Path, kind: type[CM2Error], *says: str, **changes: object) -> None:
    with refusals.refused(kind, *says):
        run(root, records, **changes)  # type: ignore[arg-type]
    refusals.nothing_left(root / "out")


def rows(path: Path) -> list[tuple]:
    return list(pd.read_parquet(path).itertuples(index=False, name=None))


MAKERS = [make_folder, make_archive, lambda root, records: make_archive(root, records, "w")]


@pytest.mark.parametrize("make", MAKERS, ids=["folder", "tar.gz", "tar"])
def test_tables_hold_the_clean_values(tmp_path: Path, make: Callable[[Path, dict[str, str]], Path]) -> None:
    out, summary = run(tmp_path, make(tmp_path, RECORDS))
    assert rows(out / "vitals.parquet") == [("101", 7 / 60, "HR", 74.0), ("101", 1.5, "Weight", 82.0), ("102", 5.0, "Weight", 70.0)]
    assert rows(out / "labs.parquet") == [("101", 2.0, "K", 4.1)]
    assert rows(out / "gases.parquet") == [("101", 2.0, "pH", 7.31), ("101", 48.0, "MechVent", 1.0)]
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    assert list(static.columns) == ["Age", "Gender", "Height", "Weight", "ICUType"]
    assert static.Age.to_dict() == {"101": 54, "102": 61, "103": 90}
    assert static.Gender.isna().to_dict() == {"101": False, "102": True, "103": False}
    assert static.Height.isna().to_dict() == {"101": True, "102": True, "103": False}
    assert static.ICUType.isna().to_dict() == {"101": False, "102": False, "103": True}
    assert static.ICUType[["101", "102"]].tolist() == ["surgical", "cardiac_surgery"]
    assert static.Weight["101"] == 81.5
    assert pd.isna(static.Weight["102"]), "a later weight must not stand in for the one at admission"
    assert summary.dropped == {"not_recorded": 4, "impossible": 5, "duplicate": 1, "empty_parameter": 2, "unknown_parameter": 1}
    assert summary.impossible == {"HR": 1, "Height": 1, "ICUType": 1, "Temp": 1, "pH": 1}
    assert summary.coverage == {"static": 3, "vitals": 2, "labs": 1, "gases": 1}


def test_manifest_and_counts(tmp_path: Path) -> None:
    out, summary = run(tmp_path, make_archive(tmp_path, RECORDS))
    manifest = pd.read_csv(out / "manifest.csv", dtype=str)
    assert list(manifest.columns) == ["sample_id", "subject_id", "split", "label"]
    assert manifest.sample_id.tolist() == manifest.subject_id.tolist() == ["101", "102", "103"]
    assert manifest.label.tolist() == ["0", "1", "0"]
    assert manifest.split.value_counts().to_dict() == summary.splits == {"train": 2, "val": 1}
    assert (summary.stays, summary.deaths) == (3, 1)
    content = json.loads((out / "prepared.json").read_text())
    assert content["source"] == "physionet2012"
    assert content["deaths"] == 1
    assert content["coverage"] == summary.coverage
    assert content["dropped"] == summary.dropped
    assert str(tmp_path) not in (out / "prepared.json").read_text()
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["manifest.csv", "prepared.json", "static.parquet", "vitals.parquet", "labs.parquet", "gases.parquet"]
    )


def test_the_same_files_whatever_their_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = run(tmp_path / "a", make_archive(tmp_path / "a", RECORDS))
    two, _ = run(tmp_path / "b", make_archive(tmp_path / "b", dict(reversed(RECORDS.items()))))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_without_outcomes_there_is_no_label(tmp_path: Path) -> None:
    out, summary = run(tmp_path, make_folder(tmp_path, RECORDS), outcomes=None)
    assert list(pd.read_csv(out / "manifest.csv").columns) == ["sample_id", "subject_id", "split"]
    assert summary.deaths is None
    assert "no outcomes given" in "\n".join(summary.lines())


def test_a_set_with_no_value_of_a_modality_still_has_its_table(tmp_path: Path) -> None:
    records = make_folder(tmp_path, {"102.txt": HEADER + SECOND.replace("\n", "\r\n")})
    out, summary = run(tmp_path, records, outcomes=None, splits={"test": 1.0})
    assert rows(out / "gases.parquet") == []
    assert list(pd.read_parquet(out / "gases.parquet").columns) == ["sample_id", "hours", "variable", "value"]
    assert summary.coverage["vitals"] == 1


def test_every_variable_of_a_modality_has_a_range() -> None:
    names = [name for variables in MODALITIES.values() for name in variables]
    assert len(names) == len(set(names)) == 37
    assert set(names) | {"Age", "Gender", "Height", "ICUType"} == set(RANGES)


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


def test_wrong_splits_are_refused_before_reading(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path / "absent", ConfigError, "sum to 0.9", splits={"train": 0.9})
    refused(tmp_path, make_folder(tmp_path, RECORDS), DataError, "3 subjects are too few", splits={"train": 0.9, "val": 0.1})


def test_an_earlier_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    records = make_folder(tmp_path, RECORDS)
    out, _ = run(tmp_path, records)
    (out / "stale").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path, records)
    with pytest.raises(DataError):
        run(tmp_path, records, outcomes=OUTCOMES + "104,1,1,1,-1,0\n", overwrite=True)
    assert (out / "stale").exists(), "a failed run must leave the earlier folder alone"
    run(tmp_path, records, overwrite=True)
    assert not (out / "stale").exists()


def test_overwrite_never_deletes_its_own_input(tmp_path: Path) -> None:
    out, _ = run(tmp_path, make_folder(tmp_path, RECORDS))
    records = make_archive(out, RECORDS)
    with pytest.raises(ConfigError, match="holds the input"):
        run(tmp_path, records, overwrite=True)
    assert records.exists()


@pytest.fixture(scope="module")
def set_a(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedSummary, float]:
    """The prepared folder, its summary, and the seconds it took."""
    if "CM2_DATA" not in os.environ:
        pytest.skip("CM2_DATA is not set")
    source = Path(os.environ["CM2_DATA"]) / "physionet2012"
    out = tmp_path_factory.mktemp("physionet2012") / "out"
    start = time.perf_counter()
    summary = prepare(source / "set-a.tar.gz", source / "Outcomes-a.txt", out, {"train": 0.8, "val": 0.2}, 0, False)
    return out, summary, time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.real
def test_set_a_has_its_known_counts(set_a: tuple[Path, PreparedSummary, float]) -> None:
    out, summary, seconds = set_a
    assert (summary.stays, summary.deaths) == (4000, 554)
    assert summary.splits == {"train": 3200, "val": 800}
    assert 0.8 < summary.coverage["gases"] / summary.stays < 0.9
    assert summary.coverage["static"] == 4000
    assert summary.dropped["unknown_parameter"] == summary.dropped["empty_parameter"] == 0
    assert seconds < 60  # about 5 on two cores; the bound catches a quadratic slip, not a busy machine
    manifest = pd.read_csv(out / "manifest.csv", dtype={"sample_id": str})
    assert (len(manifest), int(manifest.label.sum())) == (4000, 554)


@pytest.mark.slow
@pytest.mark.real
def test_set_a_holds_nothing_impossible(set_a: tuple[Path, PreparedSummary, float]) -> None:
    out, summary, _ = set_a
    ids = set(pd.read_csv(out / "manifest.csv", dtype=str).sample_id)
    for name, variables in MODALITIES.items():
        table = pd.read_parquet(out / f"{name}.parquet")
        assert not table.isna().any().any()
        assert not table.duplicated(["sample_id", "hours", "variable"]).any()
        assert table.equals(table.sort_values(["sample_id", "hours", "variable"], ignore_index=True))
        assert set(table.variable) == set(variables)
        assert set(table.sample_id) <= ids - {"140501", "140936", "141264"}, "these three stays have static values only"
        assert table.sample_id.nunique() == summary.coverage[name]
        assert table.hours.between(0, 48).all()
        low, high = (table.variable.map({v: bounds[side] for v, bounds in RANGES.items()}) for side in (0, 1))
        assert table.value.between(low, high).all()
    static = pd.read_parquet(out / "static.parquet")
    assert set(static.sample_id) == ids
    assert set(static.ICUType.dropna()) == set(physionet2012.ICU_TYPES.values())
    for name in ("Age", "Gender", "Height", "Weight"):
        assert static[name].dropna().between(*RANGES[name]).all()

"""Three records of the challenge in small, as a folder or as an archive."""

import io
import tarfile
from pathlib import Path

from cm2pyro.data.physionet2012 import PreparedSummary, prepare
from cm2pyro.errors import CM2Error
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

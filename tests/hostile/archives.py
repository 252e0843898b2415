"""What `prepare` is given: archives, records, outcomes, tables."""

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.world import FOLDER, TAR, Case, Corpus, Spoil, cut, directory, doing, gone, link, outside, pipe, put, swap

archive = Corpus("archive", TAR, 1, "records.tar.gz")
RECORD = b"Time,Parameter,Value\n00:00,RecordID,132539\n00:07,HR,73\n"


def member(name: str, content: bytes = RECORD, kind: bytes = tarfile.REGTYPE, to: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Spoil:
    def spoil(folder: Path) -> None:
        with tarfile.open(folder / "records.tar.gz", mode) as made:  # type: ignore[call-overload]
            for info, content in members:
                made.addfile(info, io.BytesIO(content) if info.isreg() else None)

    return spoil


def stream(parts: Callable[[], object], opened: Callable[..., object] = gzip.open) -> Spoil:
    """An archive written header by header, without the file that it says it holds lying anywhere."""

    def spoil(folder: Path) -> None:
        with opened(folder / "records.tar.gz", "wb") as out:  # type: ignore[attr-defined]
            for part in parts():  # type: ignore[attr-defined]
                out.write(part)

    return spoil


def zeros(megabytes: int) -> object:
    return (bytes(1 << 20) for _ in range(megabytes))


def large(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


archive.add("not there", lambda folder: None, "does not exist")
archive.add("empty", put("records.tar.gz", b""), "archive")
archive.add("text", put("records.tar.gz", "records"), "archive")
archive.add("gzip of text", put("records.tar.gz", gzip.compress(b"records" * 100)), "archive")
archive.add("gzip cut short", doing(packed(member("132539.txt", os.urandom(5000))), cut("records.tar.gz", 0.5)), "archive")
archive.add(
    "gzip with a wrong checksum",
    doing(packed(member("132539.txt")), lambda f: (f / "records.tar.gz").write_bytes((f / "records.tar.gz").read_bytes()[:-8] + bytes(8))),
    "archive",
)
archive.add("a zip", put("records.tar.gz", b"PK\x03\x04" + bytes(60)), "archive")
archive.add("a pipe", pipe("records.tar.gz"), "not a regular file")
archive.add("a device without end", link("records.tar.gz", "/dev/zero"), "not a regular file")
archive.add("no member", packed(), "no record")
archive.add("no record", packed(member("readme.txt")), "no record")
archive.add("a record twice", packed(member("132539.txt"), member("a/132539.txt")), "132539")
archive.add("links alone", packed(member("132539.txt", kind=tarfile.SYMTYPE, to="/etc/passwd")), "link")
archive.add("a hard link out", packed(member("132539.txt", kind=tarfile.LNKTYPE, to="../../etc/passwd")), "132539.txt", "link")
archive.add("a device named as a record", packed(member("132539.txt", kind=tarfile.CHRTYPE)), "132539.txt")
archive.add("a pipe named as a record", packed(member("132539.txt", kind=tarfile.FIFOTYPE)), "132539.txt")
archive.add("a record that climbs out", packed(member("../../132539.txt")), "leaves")
archive.add("a record of an absolute path", packed(member("/etc/132539.txt")), "leaves")
archive.add("a name of escapes", packed(member("\x1b[2J/132539.txt", b"no header\n")), "132539.txt")
archive.add("a record of another's id", packed(member("132540.txt")), "132539", "132540")
archive.add("a record without a header", packed(member("132539.txt", b"00:07,HR,73\n")), "132539.txt", "line 1")
archive.add("a record of latin-1", packed(member("132539.txt", "Müde".encode("latin-1"))), "132539.txt", "UTF-8")
archive.add("a record of NUL bytes", packed(member("132539.txt", bytes(100))), "132539.txt")
archive.add("a record of 20 MB", packed(member("132539.txt", bytes(20_000_000))), "132539.txt", "20,000,000")
archive.add("a record of a terabyte", stream(lambda: [large("132539.txt", 1 << 40), *zeros(1)]), "expected at most", bomb=True)
archive.add("a sparse record", stream(lambda: [large("132539.txt", 512, tarfile.GNUTYPE_SPARSE), bytes(1024)]), "records.tar.gz", bomb=True)
archive.add("a bomb beside the records", stream(lambda: [large("readme.bin", 6000 << 20), *zeros(2)]), "expected at most", bomb=True)
archive.add(
    "a bomb of a long name",
    stream(lambda: [large("././@LongLink", 3000 << 20, tarfile.GNUTYPE_LONGNAME), *zeros(2)]),
    "expected at most",
    bomb=True,
)
archive.add(
    "a bomb of an extended header",
    stream(lambda: [large("x", 3000 << 20, tarfile.XHDTYPE), *zeros(2)]),
    "expected at most",
    bomb=True,
)
archive.add("a bomb of members", stream(lambda: [large(f"{i}.bin", 0) for i in range(50_100)]), "expected at most", bomb=True)
archive.add("a bomb in xz", stream(lambda: [large("readme.bin", 3000 << 20), *zeros(2)], lzma.open), "expected at most", bomb=True)
archive.add("a header of a negative size", packed(member("132539.txt", b"x")), "132539.txt")
archive.add(
    "a link in the middle of a cut archive", doing(packed(member("132539.txt"), mode="w"), cut("records.tar.gz", 0.05)), "records.tar.gz"
)

for digits in (30, 5000):

    def endless(digits: int = digits) -> list[bytes]:
        """An extended header whose first entry says how long it is, in so many digits."""
        entry = b"9" * digits + b" path=x\n"
        return [large("x", len(entry), tarfile.XHDTYPE), entry.ljust(-(-len(entry) // 512) * 512, b"\0"), large("y", 0), bytes(1024)]

    archive.add(f"an extended header of a length of {digits} digits", stream(endless), "archive")

folder_of = Corpus("archive as a folder", FOLDER, 1, "132539.txt")


def record(content: str | bytes) -> Spoil:
    return put("records/132539.txt", content)


START = "Time,Parameter,Value\n00:00,RecordID,132539\n"
folder_of.add("empty", record(""), "line 1")
folder_of.add("another header", record("time,parameter,value\n"), "line 1")
folder_of.add("no id", record("Time,Parameter,Value\n00:07,HR,73\n"), "RecordID")
folder_of.add("another's id", record(START.replace("132539", "132540")), "132540")
folder_of.add("a field too many", record(START + "00:07,HR,73,1\n"), "line 3", "4 fields")
folder_of.add("a time that does not exist", record(START + "12:75,HR,73\n"), "line 3", "12:75")
folder_of.add("a date for a time", record(START + "2150-02-30,HR,73\n"), "line 3")
folder_of.add("a value of underscores", record(START + "00:07,HR,7_3\n"), "line 3")
folder_of.add("a value of nan", record(START + "00:07,HR,nan\n"), "line 3")
folder_of.add("a value of 1e400", record(START + "00:07,HR,1e400\n"), "line 3")
folder_of.add("a value of five thousand digits", record(START + f"00:07,HR,{'9' * 5000}\n"), "line 3")
folder_of.add("terminal escapes", record(START + "\x1b[2J,HR,73\n"), "line 3")
folder_of.add("UTF-16", record(START.encode("utf-16")), "UTF-8")
folder_of.add("a link that leaves", lambda folder: link("records/132539.txt", str(outside(folder)))(folder), "leaves")
folder_of.add("sparse, of forty gigabytes", lambda folder: os.truncate(folder / "records" / "132539.txt", 40 << 30), "bytes", bomb=True)

given = Corpus("archive: outcomes", FOLDER, 1, "outcomes.txt")
given.add("not there", gone("outcomes.txt"), "No such file")
given.add("a folder", directory("outcomes.txt"), "directory")
given.add("a pipe", pipe("outcomes.txt"), "not a regular file")
given.add("empty", put("outcomes.txt", ""), "RecordID")
given.add("another column", swap("outcomes.txt", "In-hospital_death", "Death"), "In-hospital_death")
given.add("a column twice", put("outcomes.txt", "RecordID,In-hospital_death,In-hospital_death\n132539,0,1\n132540,1,0\n"), "twice")
given.add("a label of 2", swap("outcomes.txt", "132539,0", "132539,2"), "line 2")
given.add("a label absent", swap("outcomes.txt", "132539,0", "132539"), "line 2")
given.add("a field too many", swap("outcomes.txt", "132539,0", "132539,0,1"), "line 2")
given.add("an id twice", swap("outcomes.txt", "132540", "132539"), "line 3")
given.add("an id empty", swap("outcomes.txt", "132540", ""), "line 3")
given.add("an id without a record", swap("outcomes.txt", "132540", "132541"), "132540")
given.add("latin-1", put("outcomes.txt", "Müde\n".encode("latin-1")), "CSV")
given.add("NUL bytes", put("outcomes.txt", "RecordID,In-hospital_death\n132539,\0\n"), "outcomes.txt")

tables = Corpus("archive: MIMIC", "prepare mimic3 --records mimic --out prepared --splits train=1", 1, "mimic")


def mimic(name: str, content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "mimic").mkdir(exist_ok=True)
        (folder / "mimic" / name).write_bytes(content)

    return spoil


tables.add("not there", lambda folder: None, "does not exist")
tables.add("a file", put("mimic", "x"), "file")
tables.add("empty", lambda folder: (folder / "mimic").mkdir(), "mimic")
tables.add("patients twice", doing(mimic("PATIENTS.csv", b"a\n"), mimic("PATIENTS.csv.gz", b"a\n")), "mimic")
for name, content in {"empty": b"", "gzip that is none": b"text", "gzip cut short": gzip.compress(os.urandom(3000))[:500]}.items():
    tables.add(f"patients {name}", mimic("PATIENTS.csv.gz", content), "mimic")
tables.add("patients without columns", mimic("PATIENTS.csv", b"a,b\n1,2\n"), "PATIENTS.csv", "mimic")
tables.add("patients in latin-1", mimic("PATIENTS.csv", "Müde,b\n".encode("latin-1")), "mimic")
tables.add("patients: a line without end", mimic("PATIENTS.csv.gz", gzip.compress(bytes(64 << 20), 1)), "mimic", bomb=True)

films = Corpus("archive: X-rays", "prepare covid-cxr --records covid --out prepared --splits train=1", 1, "covid")
HEAD = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,needed_supplemental_O2,"
    "extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,modality,date,location,folder,"
    "filename,doi,url,license,clinical_notes,other_notes\n"
)


def film(name: str) -> str:
    filled = {"patientid": "1", "finding": "COVID-19", "view": "PA", "modality": "X-ray", "filename": name, "folder": "images"}
    return ",".join(filled.get(column, "") for column in HEAD.strip().split(",")) + "\n"


def covid(content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "covid" / "images").mkdir(parents=True)
        (folder / "covid" / "metadata.csv").write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


films.add("no metadata", lambda folder: (folder / "covid").mkdir(), "metadata.csv")
films.add("metadata empty", covid(""), "metadata.csv")
films.add("metadata in latin-1", covid("Müde\n".encode("latin-1")), "UTF-8")
films.add("metadata of NUL bytes", covid(HEAD + film("a\0b")), "metadata.csv")
films.add("a column twice", covid(HEAD.replace("offset", "patientid")), "twice")
films.add("a field too few", covid(HEAD + "1,2\n"), "row 2")
films.add("a film that climbs out", covid(HEAD + film("../../x.png")), "row 2", "file name")
films.add("a film of an absolute path", covid(HEAD + film("/etc/passwd")), "row 2", "file name")
films.add(
    "a film that is a link out", doing(covid(HEAD + film("a.png")), lambda f: (f / "covid/images/a.png").symlink_to(outside(f))), "a.png"
)

CASES: list[Case] = [*archive.cases, *folder_of.cases, *given.cases, *tables.cases, *films.cases]

"""Manifests: text that is no table, ids, splits, and paths that lead elsewhere."""

import os
from pathlib import Path

import pandas as pd

from tests.hostile.world import (
    CHECK,
    FIT,
    Case,
    Change,
    Corpus,
    Spoil,
    cell,
    cut,
    directory,
    doing,
    frame,
    gone,
    link,
    outside,
    parquet,
    pipe,
    put,
    swap,
)

text = Corpus("manifest", CHECK, 1, "manifest.csv")


# --- not a table ---------------------------------------------------------------------------------------------------------

text.add("not there", gone("manifest.csv"), "No such file")
text.add("a folder", directory("manifest.csv"), "directory")
text.add("a pipe that nobody writes to", pipe("manifest.csv"), "not a regular file")
text.add("a link to a device without end", link("manifest.csv", "/dev/zero"), "not a regular file")
text.add("a link to itself", link("manifest.csv", "manifest.csv"), "link")
text.add("empty", put("manifest.csv", ""), "empty")
text.add("blank lines alone", put("manifest.csv", "\n\n  \n"), "empty")
text.add("a byte-order mark alone", put("manifest.csv", b"\xef\xbb\xbf"), "empty")
text.add("a header alone", put("manifest.csv", "sample_id,label\n"), "no rows")
text.add("NUL bytes", put("manifest.csv", "sample_id,label\na\0b,0\n"), "line 2", "NUL")
text.add("zeros alone", put("manifest.csv", bytes(5000)), "NUL")
text.add("latin-1", put("manifest.csv", "sample_id,note\na,Müde\n".encode("latin-1")), "line 2", "UTF-8")
text.add("UTF-16", put("manifest.csv", "sample_id,label\na,1\n".encode("utf-16")), "UTF-8")
text.add("UTF-32 without a mark", put("manifest.csv", "sample_id,label\na,1\n".encode("utf-32-le")), "NUL")
text.add("lone surrogates", put("manifest.csv", b"sample_id,note\na,\xed\xa0\x80\n"), "line 2", "UTF-8")
text.add("overlong UTF-8", put("manifest.csv", b"sample_id,note\na,\xc0\xaf\n"), "line 2", "UTF-8")
text.add("a gzip named csv", put("manifest.csv", b"\x1f\x8b\x08\x00" + bytes(20)), "UTF-8")
text.add("a parquet named csv", lambda folder: pd.read_csv(folder / "manifest.csv").to_parquet(folder / "manifest.csv"), "manifest.csv")
text.add("a quote that never closes", swap("manifest.csv", "p03,", '"p03,'), "quote")
text.add("text after a closing quote", swap("manifest.csv", "p03,", '"p03"x,'), "line 5", "quote")
text.add("a field too many", swap("manifest.csv", "p03,s03", "p03,s03,s03"), "line 5", "11 fields", "expected 10")
text.add("a field too few", swap("manifest.csv", "p03,s03,", "p03,"), "line 5", "9 fields")
text.add(
    "semicolons between fields",
    lambda folder: put("manifest.csv", (folder / "manifest.csv").read_text().replace(",", ";"))(folder),
    "semicolons",
)
text.add("cut in the middle of a record", cut("manifest.csv", 0.5), "line")
text.add("carriage returns inside a field", swap("manifest.csv", "p03,s03", "p03,s\r03"), "line")
text.add("a hundred thousand quotes", put("manifest.csv", "sample_id\n" + '"' * 100_001), "quote")
text.add("a header of ten thousand names that repeat", put("manifest.csv", ",".join(["a"] * 10_000) + "\n"), "stands twice")
text.add("HTML in place of the file", put("manifest.csv", "<!DOCTYPE html>\n<html><body>404</body></html>\n"), "manifest.csv")
text.add("terminal escapes in the header", put("manifest.csv", "\x1b[2J\x1b]0;owned\x07,label\na,0\n"), "sample_id")
text.add("JSON in place of the file", put("manifest.csv", '[{"sample_id": "a"}]\n'), "manifest.csv")

# --- columns -------------------------------------------------------------------------------------------------------------

text.add("no sample_id", frame(lambda f: f.drop(columns="sample_id")), "sample_id")
text.add("sample_id in another case", frame(lambda f: f.rename(columns={"sample_id": "Sample_ID"})), "sample_id")
text.add("sample_id after a space", frame(lambda f: f.rename(columns={"sample_id": " sample_id"})), "sample_id")
text.add("a column twice", swap("manifest.csv", "label,ehr", "label,label"), "'label' stands twice")
text.add("a column without a name", swap("manifest.csv", "label,ehr", "label,"), "column 5 has no name")
text.add("no label at training", frame(lambda f: f.drop(columns="label")), "label", command=FIT)
text.add("no split at training", frame(lambda f: f.drop(columns="split")), "split", command=FIT)
text.add("no subject at training", frame(lambda f: f.drop(columns="subject_id")), "subject_id", command=FIT)
text.add("every label the same", frame(lambda f: f.assign(label="1")), "label", command=FIT)
text.add("every label empty", frame(lambda f: f.assign(label="")), "label", command=FIT)
text.add("a modality missing throughout", frame(lambda f: f.assign(image="")), "image", command=FIT)
text.add("no training rows", frame(lambda f: f.assign(split="test")), "train", command=FIT)
text.add("a label that is a path", cell(3, "label", "../../etc/passwd"), "row 5", "label")
text.add("a label of a thousand digits", cell(3, "label", "1" * 1000), "row 5", "label")
text.add("a label that says nan", cell(3, "label", "nan"), "row 5", "label")
text.add("age infinite", cell(3, "age", "inf"), "age", "p03", command=FIT)

# --- ids and splits ------------------------------------------------------------------------------------------------------

text.add("an id twice", cell(3, "sample_id", "p01"), "row 5", "stands already in row 3")
text.add("an id empty", cell(3, "sample_id", ""), "row 5", "empty")
text.add("an id of spaces", cell(3, "sample_id", "   "), "row 5", "empty")
text.add("a subject empty", cell(3, "subject_id", ""), "row 5", "subject_id")
text.add("a subject in two splits", cell(11, "subject_id", "s01"), "row 13", "splits train and val")
text.add("a subject in two splits behind a space", cell(11, "subject_id", " s01"), "row 13", "splits")
text.add("an unknown split", cell(3, "split", "TRAIN"), "row 5", "train, val, test")
text.add("a split of escapes", cell(3, "split", "\x1b[31mtrain"), "row 5", "train, val, test")
for name, start in {
    "equals": '=HYPERLINK("http://a.example","x")',
    "plus": "+cmd|'/C calc'!A0",
    "minus": "-2+3+cmd|'/C calc'!A0",
    "at": "@SUM(1+1)*cmd",
    "tab": "\t=1+1",
    "carriage return": "\r=1+1",
    "line feed": "\n=1+1",
    "full-width equals": "＝1+1",
}.items():
    text.add(f"a formula as an id, {name}", cell(3, "sample_id", start), "formula", "row")
    if name != "carriage return":  # bare, it ends the line
        text.add(f"a formula as a subject, {name}", cell(3, "subject_id", start), "formula", "row 5")

# --- paths ---------------------------------------------------------------------------------------------------------------


def absolute(column: str) -> Spoil:
    def spoil(folder: Path) -> None:
        cell(3, column, str(outside(folder)))(folder)

    return spoil


def climbing(column: str) -> Spoil:
    def spoil(folder: Path) -> None:
        cell(3, column, f"../{outside(folder).name}")(folder)

    return spoil


def linked(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        link(name, str(outside(folder)))(folder)

    return spoil


def linked_folder(folder: Path) -> None:
    outside(folder)
    (folder / "sub").symlink_to(folder.parent)
    cell(3, "ehr", f"sub/{folder.name}-secret.csv")(folder)


def unreadable(folder: Path) -> None:
    # A superuser reads everything; a name longer than any file system takes cannot be opened by anybody.
    if os.geteuid() == 0:
        cell(3, "ehr", "x" * 300 + ".csv")(folder)
    else:
        (folder / "p03.csv").chmod(0)


for column, suffix in (("ehr", "csv"), ("image", "png"), ("vector", "npy"), ("note", "txt")):
    file = f"p03.{suffix}"
    where = ("row 5", "p03")
    if column != "note":
        text.add(f"{column}: an absolute path", absolute(column), *where, "leaves the manifest's folder")
        text.add(f"{column}: a path that climbs out", climbing(column), *where, "leaves the manifest's folder")
        text.add(f"{column}: the root", cell(3, column, "/"), *where, "leaves")
        text.add(f"{column}: the folder itself", cell(3, column, "."), *where)
        text.add(f"{column}: a NUL in the name", cell(3, column, "a%00b"), *where, "not there")
        text.add(f"{column}: a name of 5,000 characters", cell(3, column, "x" * 5000), *where)
        text.add(f"{column}: a home folder", cell(3, column, "~/x"), *where, "not there")
        text.add(f"{column}: a URL", cell(3, column, "https://a.example/x.csv"), *where, "not there")
    text.add(f"{column}: a link that leaves", linked(file), *where, "leaves the manifest's folder")
    text.add(f"{column}: a link to nothing", link(file, "nowhere"), *where, "not there")
    text.add(f"{column}: a link to itself", link(file, file), *where)
    text.add(f"{column}: not there", gone(file), *where, "not there")
    text.add(f"{column}: a folder", directory(file), *where, "not a file")
    text.add(f"{column}: a pipe", pipe(file), *where, "not a file")
    text.add(f"{column}: a device", link(file, "/dev/zero"), *where, "leaves")
text.add("ehr: through a link to a folder outside", linked_folder, "row 5", "leaves")
text.add("ehr: cannot be opened", unreadable, "row 5", "p03")
text.add("note: climbs out", cell(3, "note", "../secret.txt"), "row 5", "leaves")
text.add("note: an absolute path", cell(3, "note", "/etc/passwd.txt"), "row 5", "leaves")

# --- Parquet -------------------------------------------------------------------------------------------------------------

pq = Corpus("manifest as Parquet", "data check manifest.parquet --config config.yaml", 1, "manifest.parquet")


def as_parquet(*steps: Spoil) -> Spoil:
    def convert(folder: Path) -> None:
        pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False).to_parquet(folder / "manifest.parquet", index=False)

    return doing(convert, *steps)


def change(what: Change) -> Spoil:
    return as_parquet(parquet("manifest.parquet", what))


pq.add("text named parquet", put("manifest.parquet", "sample_id\na\n"), "Parquet")
pq.add("empty", put("manifest.parquet", ""), "Parquet")
pq.add("cut short", as_parquet(cut("manifest.parquet", 0.7)), "Parquet")
pq.add(
    "a footer of another file",
    as_parquet(lambda f: (f / "manifest.parquet").write_bytes(bytes(500) + (f / "manifest.parquet").read_bytes()[-300:])),
    "Parquet",
)
pq.add("a footer longer than the file", put("manifest.parquet", b"PAR1" + bytes(20) + b"\xff\xff\xff\x7fPAR1"), "Parquet")
pq.add("magic words alone", put("manifest.parquet", b"PAR1PAR1"), "Parquet")
pq.add("a folder", directory("manifest.parquet"), "manifest.parquet")
pq.add("a pipe", pipe("manifest.parquet"), "not a regular file")
pq.add("no rows", change(lambda f: f.head(0)), "no rows")
pq.add("an id twice", change(lambda f: f.assign(sample_id="a")), "row 3", "stands already")
pq.add("ids missing", change(lambda f: f.assign(sample_id=None)), "row 2", "empty")
pq.add("a formula as an id", change(lambda f: f.assign(sample_id=[f"=A{i}" for i in range(len(f))])), "row 2", "formula")
pq.add("bytes that are not UTF-8", change(lambda f: f.assign(note=[b"\xff\xfe"] * len(f))), "manifest.parquet")

CASES: list[Case] = [*text.cases, *pq.cases]

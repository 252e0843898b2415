"""Series as files, and tables for all samples."""

import base64
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.world import (
    CHECK,
    FIT,
    LONG,
    Case,
    Change,
    Corpus,
    Spoil,
    config,
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

# --- a file a sample -----------------------------------------------------------------------------------------------------

series = Corpus("series", CHECK, 1, "p03.csv", "row 5")


def of(content: str | bytes) -> Spoil:
    return put("p03.csv", content)


series.add("empty", of(""), "empty")
series.add("no hours", of("time,hr\n1,80\n"), "hours")
series.add("hours twice", of("hours,hours,hr\n1,2,80\n"), "stands twice")
series.add("hours twice in two cases", of("hours,Hours,hr\n1,2,80\n"), "both are hours")
series.add("hours alone", of("hours\n1\n"), "only hours")
series.add("an hour empty", of("hours,variable,value\n,hr,80\n"), "line 2", "hours")
series.add("an hour that is a word", of("hours,variable,value\nnoon,hr,80\n"), "line 2", "noon")
series.add("an hour that is a date", of("hours,hr\n2150-02-30 25:61:00,80\n"), "line 2", "2150-02-30")
series.add("an hour that is nan", of("hours,hr\nnan,80\n"), "line 2", "hours")
series.add("an hour infinite", of("hours,hr\n-inf,80\n"), "line 2", "-inf")
series.add("a value infinite", of("hours,variable,value\n1,hr,Infinity\n"), "line 2", "Infinity")
series.add("a value beyond double precision", of("hours,variable,value\n1,hr,1e400\n"), "line 2", "1e400")
series.add("a value of five thousand digits", of(f"hours,variable,value\n1,hr,{'9' * 5000}\n"), "line 2", "999")
series.add("a value that is a formula", of("hours,variable,value\n1,hr,=1+1\n"), "line 2", "=1+1")
series.add("a value with a comma", of('hours,variable,value\n1,hr,"7,5"\n'), "line 2", "7,5")
series.add("a value in hexadecimal", of("hours,variable,value\n1,hr,0x1F\n"), "line 2", "0x1F")
series.add("a value with underscores", of("hours,variable,value\n1,hr,1_000\n"), "line 2", "1_000")
series.add("a value of Arabic digits", of("hours,variable,value\n1,hr,٣٤\n"), "line 2")
series.add("a value with terminal escapes", of("hours,variable,value\n1,hr,\x1b[31m80\n"), "line 2")
series.add("a variable empty", of("hours,variable,value\n1,,80\n"), "line 2", "variable")
series.add("a field too many", of(LONG + "3,hr,80,9\n"), "line 5", "4 fields")
series.add("a field too few", of(LONG + "3,hr\n"), "line 5", "2 fields")
series.add("a quote that never closes", of(LONG + '3,"hr,80\n'), "quote")
series.add("NUL bytes", of(LONG.replace("80", "8\0")), "line 2", "NUL")
series.add("latin-1", of("hours,variable,value\n1,Puls ü,80\n".encode("latin-1")), "line 2", "UTF-8")
series.add("UTF-16", of(LONG.encode("utf-16")), "UTF-8")
series.add("an array of a program", of(b"\x7fELF" + bytes(range(256))), "p03.csv")
series.add("a thousand columns without names", of("hours" + "," * 1000 + "\n"), "no name")
series.add(
    "a variable of its own in every line",
    of("hours,variable,value\n" + "".join(f"1,id{i},1\n" for i in range(20_000))),
    "20,00",
    "variables",
    anywhere=True,
)

file = Corpus("series as Parquet", CHECK, 1, "p03.parquet", "row 5")


def stored(table: pa.Table | None = None, content: bytes = b"", **options: object) -> Spoil:
    def spoil(folder: Path) -> None:
        frame(lambda f: f.assign(ehr=f["ehr"].replace("p03.csv", "p03.parquet")))(folder)
        if table is None:
            (folder / "p03.parquet").write_bytes(content)
        else:
            pq.write_table(table, folder / "p03.parquet", **options)

    return spoil


file.add("text", stored(content=LONG.encode()), "Parquet")
file.add("empty", stored(content=b""), "Parquet")
file.add("hours as text", stored(pa.table({"hours": ["noon"], "hr": [1.0]})), "line 2", "noon")
file.add("hours as dates", stored(pa.table({"hours": pa.array([0], pa.timestamp("s")), "hr": [1.0]})), "line 2", "1970")
file.add("hours as lists", stored(pa.table({"hours": [[1.0]], "hr": [1.0]})), "line 2")
file.add("values as structures", stored(pa.table({"hours": [1.0], "hr": [{"a": 1}]})), "line 2")
file.add("values as maps", stored(pa.table({"hours": [1.0], "hr": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})), "line 2")
file.add("values infinite", stored(pa.table({"hours": [1.0], "hr": [float("inf")]})), "line 2", "inf")
file.add("hours missing", stored(pa.table({"hours": pa.array([None], pa.float64()), "hr": [1.0]})), "line 2", "hours")
file.add("columns of one name", stored(pa.Table.from_arrays([pa.array([1.0])] * 2, ["hours", "hours"])), "stands twice")
file.add("a column named by nothing", stored(pa.table({"hours": [1.0], "": [1.0]})), "no name")
file.add("no columns", stored(pa.table({})), "hours")

# --- tables for all samples ----------------------------------------------------------------------------------------------

table = Corpus("table", CHECK, 1, "gases.csv")


def changed(what: Change) -> Spoil:
    return frame(what, "gases.csv")


table.add("no sample_id", changed(lambda f: f.drop(columns="sample_id")), "sample_id")
table.add("no hours", changed(lambda f: f.drop(columns="hours")), "hours")
table.add("a value that is a word", changed(lambda f: f.assign(value="high")), "line 2", "high")
table.add("an hour empty", changed(lambda f: f.assign(hours="")), "line 2", "hours")
table.add("a field too many", swap("gases.csv", "p03,", "p03,p03,"), "line", "fields")
table.add("a quote that never closes", swap("gases.csv", "p03,", '"p03,'), "quote")
table.add("NUL bytes", swap("gases.csv", "p03,", "p0\x003,"), "NUL")
table.add("latin-1", put("gases.csv", "sample_id,hours,Müde\np00,1,1\n".encode("latin-1")), "UTF-8")
table.add("empty", put("gases.csv", ""), "empty")
table.add("a folder", directory("gases.csv"), "not a file")
table.add("a pipe", pipe("gases.csv"), "not a file")
table.add("a link that leaves", lambda folder: link("gases.csv", str(outside(folder)))(folder), "leaves")
table.add("a link to itself", link("gases.csv", "gases.csv"))
table.add("gone at training", gone("gases.csv"), "not there", command=FIT)
table.add("an absolute path in the config", config("table: gases.csv", "table: /etc/hosts"), "/etc/hosts", "leaves", anywhere=True)
table.add("a path in the config that climbs out", config("table: gases.csv", "table: ../x.csv"), "../x.csv", "leaves", anywhere=True)
table.add("the root in the config", config("table: gases.csv", "table: /"), "leaves", anywhere=True)
table.add("ten columns of numbers in place of ids", put("gases.csv", "hours,value,variable\n1,2,3\n"), "sample_id")

store = Corpus("table as Parquet", CHECK, 1, "labs.parquet")
store.add("cut short", cut("labs.parquet", 0.6), "Parquet")
store.add("cut in the footer", cut("labs.parquet", 0.98), "Parquet")
store.add(
    "a page overwritten",
    lambda f: (f / "labs.parquet").write_bytes(b"PAR1" + b"\xff" * 400 + (f / "labs.parquet").read_bytes()[404:]),
    "Parquet",
)
store.add("text", put("labs.parquet", "sample_id,hours\n"), "Parquet")
store.add("no sample_id", parquet("labs.parquet", lambda f: f.drop(columns="sample_id")), "sample_id")
store.add("values as text", parquet("labs.parquet", lambda f: f.assign(value="high")), "line 2", "high")
store.add("values infinite", parquet("labs.parquet", lambda f: f.assign(value=float("-inf"))), "line 2", "inf")
store.add("variables missing", parquet("labs.parquet", lambda f: f.assign(variable=None)), "line 2", "variable")


def bomb(rows: int, groups: int, **columns: pa.Array) -> Spoil:
    """A table whose pages say in a few bytes what takes gigabytes in memory."""

    def spoil(folder: Path) -> None:
        made = pa.table(
            {name: pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), values) for name, values in columns.items()}
        )
        with pq.ParquetWriter(folder / "labs.parquet", made.schema, compression="zstd") as writer:
            for _ in range(groups):
                writer.write_table(made)

    return spoil


one, word = pa.array([1.0]), pa.array(["p00"])
store.add("a bomb of rows", bomb(1_000_000, 30, sample_id=word, hours=one, variable=word, value=one), "expected at most", bomb=True)
store.add(
    "a bomb of long words",
    bomb(20_000, 1, sample_id=word, hours=one, variable=pa.array(["x" * 1_000_000]), value=one),
    "expected at most",
    bomb=True,
)
store.add(
    "a bomb of one page",
    lambda folder: pq.write_table(
        pa.table({"sample_id": ["p00"], "hours": [1.0], "variable": [" " * 400_000_000], "value": [1.0]}),
        folder / "labs.parquet",
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    ),
    "expected at most",
    bomb=True,
)
store.add(
    "a bomb of lists",
    lambda folder: pq.write_table(
        pa.table(
            {
                "sample_id": ["p00"],
                "hours": [1.0],
                "value": pa.ListArray.from_arrays([0, 100_000_000], pa.repeat(pa.scalar(1, pa.int8()), 100_000_000)),
            }
        ),
        folder / "labs.parquet",
        compression="zstd",
    ),
    "expected at most",
    bomb=True,
)

# Two small tables of which one byte was changed: to ask what their columns hold ends the process (Arrow 26).
FLAT = (
    "UEFSMRUAFRYVFiwVAhUAFQYVBhwAAAACAAAAAgEBAAAAYRUAFRwVHCwVAhUAFQYVBhwAAAACAAAAAgEAAAAAAAD4PxUEGTw1ABgGc2NoZW1hFQQAFQwlEhgJc2FtcGxlX2lkJQBM"
    "HAAAABUKJQIYAXgAFgIZHBksJgAcFQwZJQYAGRgJc2FtcGxlX2lkFQAWAhY8FjwmCEkcFQAVABUCADwWAhkGGSYAAgAAACYAHBUKGSUGABkYAXgVABYCFkIWQiZESRwVABUAFQIA"
    "PCkGGSYAAgAAABZ+FgImCBZ+ACggcGFycXVldC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZLBwAABwAAADHAAAAUEFSMQ=="
)
LISTS = (
    "UEFSMRUAFRYVFiwVAhUAFQYVBhwAAAACAAAAAgEBAAAAYRUAFTgVOCwVBBUAFQYVBhwAAAACAAAAAwICAAAABAMAAAAAAAD4PwAAAAAAAARAFQQZXDUAGAZzY2hlbWEVBAAVDCUC"
    "GAlzYW1wbGVfaWQlAEwcAAAANVgYAXgVAhUGTDwAAAA1BBgEbGlzdBUCABUKJQIYB2VsZW1lbnQAFgIZHBksJgAcFQwZJQYAGRgJc2FtcGxlX2lkFQAWAhY8FjwmCEkcFQAVABUC"
    "ADwWAhkGGSYAAgAAACYAHBUKGSUGABk4AXgEbGlzdAdlbGVtZW50FQAWBBZeFl4mREkcFQAVABUCADwpJgICGUYAAAAEAAAAFpoBFgImCBaaAQAoIHBhcnF1ZXQtY3BwLWFycm93"
    "IHZlcnNpb24gMjYuMC4xGSwcAAAcAAAA+QAAAFBBUjE="
)
for what, bytes_ in (("a column described badly", FLAT), ("a column of lists described badly", LISTS)):
    store.add(what, put("labs.parquet", base64.b64decode(bytes_)), "Parquet")

# --- columns of the manifest ---------------------------------------------------------------------------------------------

rows = Corpus("tabular", FIT, 1)
rows.add(
    "a table with a sample twice",
    doing(config("columns: [age, sex]", "table: t.csv"), put("t.csv", "sample_id,age\np00,1\np00,2\n")),
    "t.csv",
    "row 3",
)
rows.add("a table without ids", doing(config("columns: [age, sex]", "table: t.csv"), put("t.csv", "id,age\np00,1\n")), "t.csv", "sample_id")
rows.add(
    "a table that holds the label",
    doing(config("columns: [age, sex]", "table: t.csv"), put("t.csv", "sample_id,label\np00,1\np01,0\n")),
    "t.csv",
    "label",
)


def many(folder: Path) -> None:
    """Four hundred patients with a category each, and nothing else."""
    names = [f"q{i}" for i in range(400)]
    pd.DataFrame({"sample_id": names, "subject_id": names, "split": "train", "label": ["0", "1"] * 200}).to_csv(
        folder / "manifest.csv", index=False
    )
    (folder / "t.csv").write_text("sample_id,c\n" + "".join(f"{name},x{name}\n" for name in names))
    (folder / "config.yaml").write_text("modalities: {t: {kind: tabular, encoder: mlp, table: t.csv}}\n")


rows.add("a category each", many, "t.csv", "320 categories")

CASES: list[Case] = [*series.cases, *file.cases, *table.cases, *store.cases, *rows.cases]

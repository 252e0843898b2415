"""What becomes shards, a block at a time, and must be refused as if it were read whole; and shards that somebody else made."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cm2pyro.data.shards.index import FILES, INDEX, MANIFEST, checksum
from cm2pyro.data.shards.write import write_shards
from tests.hostile.world import Case, Corpus, Spoil, cell, doing, link, pipe, put, swap

SHARD = "data shard manifest.csv --config config.yaml --out shards"
CHECK = "data check shards --config config.yaml"

whole = Corpus("to shards", SHARD, 1, "manifest.csv")
whole.add("a quote that never closes", swap("manifest.csv", "f,p00.npy", '"f,p00.npy'), "line 2", "quote")
whole.add("text after a closing quote", swap("manifest.csv", "f,p00.npy", '"f"x,p00.npy'), "line 2", "quote")
whole.add("NUL bytes", swap("manifest.csv", "f,p00.npy", "f\0,p00.npy"), "line 2", "NUL")
whole.add("latin-1", swap("manifest.csv", "f,p00.npy", "Müde".encode("latin-1") + b",p00.npy"), "line 2", "UTF-8")
whole.add("a field too few", swap("manifest.csv", "f,p00.npy", "f"), "line 2", "9 fields")
whole.add("blank lines alone", put("manifest.csv", "\n\n"), "empty")
whole.add("a pipe", pipe("manifest.csv"), "not a regular file")
whole.add("a device without end", link("manifest.csv", "/dev/zero"), "not a regular file")
whole.add("forty gigabytes of nothing", lambda f: os.truncate(f / "manifest.csv", 40 << 30), "line 14", bomb=True)
whole.add("a formula as an id", cell(3, "sample_id", "=1+1"), "row 5", "formula")
whole.add("a formula as a subject", cell(3, "subject_id", "@SUM(A1)"), "row 5", "formula")
whole.add("a table with a quote that never closes", swap("gases.csv", "k,", '"k,'), "gases.csv", "line 2", anywhere=True)
whole.add(
    "a Parquet manifest that is none",
    put("manifest.parquet", "no"),
    "manifest.parquet",
    command=SHARD.replace(".csv", ".parquet"),
    anywhere=True,
)


def sharded(change: Callable[[Path, dict[str, Any]], object]) -> Spoil:
    """Good shards, in which something changes; whoever can do that can write checksums too."""

    def spoil(folder: Path) -> None:
        write_shards(folder / "manifest.csv", folder / "shards", ("labs.parquet", "gases.csv"), ("ehr", "image", "note", "vector"), 3)
        path = folder / "shards" / INDEX
        index = json.loads(path.read_text())
        change(folder / "shards", index)
        for shard in index["shards"]:
            for name, stored in shard["files"].items():
                file = folder / "shards" / str(shard["name"]) / name
                if file.is_file() and stored["bytes"]:
                    stored.update(bytes=file.stat().st_size, sha256=checksum(file))
        path.write_text(json.dumps(index))

    return spoil


def rows(change: Callable[[pd.DataFrame], pd.DataFrame], name: str = MANIFEST) -> Spoil:
    """One shard's rows, changed as a table."""

    def rewrite(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "train-00001" / name
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return sharded(rewrite)


def said(**values: object) -> Spoil:
    """What the index says of the second shard."""
    return sharded(lambda _, index: index["shards"][1].update(values))


def endless(folder: Path, index: dict[str, Any]) -> None:
    path = folder / "train-00001" / MANIFEST
    path.unlink()
    path.symlink_to("/dev/zero")
    index["shards"][1]["files"][MANIFEST].update(bytes=0)


def piped(folder: Path, index: dict[str, Any]) -> None:
    path = folder / "train-00001" / MANIFEST
    path.unlink()
    os.mkfifo(path)
    index["shards"][1]["files"][MANIFEST].update(bytes=0)


shards = Corpus("shards", CHECK, 1, "shards")
shards.add("one named twice", said(name="train-00000"), "twice")
shards.add("rows that are not those of the index", sharded(lambda _, index: index.update(rows=500)), "500 rows")
shards.add(
    "rows that are not those of the file",
    sharded(lambda _, index: (index.update(rows=13), index["shards"][1].update(rows=4))),
    "train-00001",
    "3 rows",
)
shards.add("a split that nobody knows", said(split="dev"), "split")
shards.add("another split than its rows'", said(split="test"), "train-00001", "another split")
shards.add("an id twice", rows(lambda f: f.assign(sample_id="p03")), "train-00001", "twice")
shards.add("a formula as an id", rows(lambda f: f.assign(sample_id=["=1+1", "b", "c"])), "train-00001", "formula")
shards.add("no ids", rows(lambda f: f.drop(columns="sample_id")), "train-00001", "sample_id")
shards.add("a device without end", sharded(endless), "not a regular file")
shards.add("a pipe", sharded(piped), "not a regular file")
shards.add(
    "a number of rows of five thousand digits",
    lambda f: doing(said(), swap(f"shards/{INDEX}", '"rows": 12', f'"rows": {"9" * 5000}'))(f),
    "index.json",
)
shards.add("a file that climbs out", rows(lambda f: f.assign(path="../escaped"), FILES), "p03")
shards.add("no files", rows(lambda f: f.iloc[:0], FILES), "not there")

CASES: list[Case] = [*whole.cases, *shards.cases]

"""The index of a folder of shards, and one shard as a manifest."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeGuard

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cm2pyro.data.formulas import is_formula
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.parquet import read_batches, readable
from cm2pyro.data.table import read_table
from cm2pyro.errors import DataError
from cm2pyro.files import open_regular, read_text
from cm2pyro.registry import one_line

INDEX, MANIFEST, FILES = "index.json", "manifest.parquet", "files.parquet"
FORMAT = 1
_AGAIN = "make the shards again with 'cm2pyro data shard'"
_MOST_BYTES = 512 << 20  # of the index, which has some 500 for each shard
_ROWS = 4  # files held at once

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(-[0-9]+)?(\.parquet)?$")]  # no separators: nothing outside the folder can be named
Rows = NDArray[np.int64]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stored(_Part):
    """A file of a shard: its size, and the SHA-256 of its bytes."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class Shard(_Part):
    """Some rows, all of one split ('' where the manifest has none), with all that belongs to them."""

    name: Name
    split: Annotated[str, Field(pattern=r"^(train|val|test)?$")]
    rows: Annotated[int, Field(ge=1)]
    files: dict[Name, Stored]


class Index(_Part):
    """What a folder of shards holds.

    Attributes:
        manifest: the file that it was made from. columns: of the manifest. tables: name in a config -> file in each shard.
        packed: columns whose cells name files. subjects: how many.
    """

    format: int
    manifest: str
    rows: int
    subjects: int
    columns: list[str]
    tables: dict[str, Name]
    packed: list[str]
    shards: Annotated[list[Shard], Field(min_length=1)]

    @model_validator(mode="after")
    def _every_row_once(self) -> "Index":
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard stands twice")
        if sum(shard.rows for shard in self.shards) != self.rows:
            raise ValueError(f"{self.rows} rows, and those of the shards are {sum(shard.rows for shard in self.shards)}")
        return self


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened. Every file's checksum is compared when this process first reads it."""

    folder: Path
    index: Index
    _verified: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Shards":
        """Raises DataError: no index, one that is damaged or of another version."""
        folder = Path(folder)
        path = folder / INDEX
        try:
            raw = json.loads(read_text(path, _MOST_BYTES))
            found = raw.get("format") if isinstance(raw, dict) else None
            if found != FORMAT:
                raise DataError(f"{path}: format {one_line(found)}, expected {FORMAT}; {_AGAIN}")
            return cls(folder, Index.model_validate(raw))
        except ValidationError as error:
            fault = error.errors()[0]
            raise DataError(f"{path}: {'.'.join(map(str, fault['loc']))}: {one_line(fault['msg'])}; {_AGAIN}") from error
        except (OSError, ValueError, RecursionError) as error:
            reason = one_line(getattr(error, "strerror", None) or error)
            raise DataError(f"{path}: cannot be read ({reason}); expected the index of a folder of shards; {_AGAIN}") from error

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    def of(self, split: str | None) -> list[Shard]:
        """The shards of a split; all for None."""
        return [shard for shard in self.index.shards if split is None or shard.split == split]

    def rows(self, split: str | None) -> int:
        """How many rows a split has; all rows for None."""
        return sum(shard.rows for shard in self.of(split))

    def frame(self, shard: Shard, columns: Sequence[str]) -> pd.DataFrame:
        """These columns (n rows) of its manifest, as text; those that the manifest lacks are left out."""
        path = self._file(shard, MANIFEST)
        wanted = [column for column in columns if column in self.index.columns]
        found = read_table(path, columns=wanted)
        for column in wanted:
            if column not in found:
                raise DataError(f"{path}: column '{one_line(column, 60)}' is missing, and {INDEX} tells of it; {_AGAIN}")
        return found.reset_index(drop=True)

    @contextmanager
    def manifest(self, shard: Shard, rows: Rows | None = None) -> Iterator[Manifest]:
        """Its rows, or those at these positions; files that cells name are there for as long as the block runs."""
        path = self._file(shard, MANIFEST)
        made = Manifest(read_table(path), f"{self.folder / shard.name}", path.parent, self._tables(shard))
        if len(made) != shard.rows:
            raise DataError(f"{path}: {len(made)} rows, expected {shard.rows} as in {INDEX}; {_AGAIN}")
        made.require(["sample_id"], "every row needs one")
        for wrong, what in (
            (made.frame["sample_id"].duplicated(), "stands twice in the shard"),
            (made.frame["sample_id"].map(is_formula), "begins as a formula does, which spreadsheets would run"),
            (
                "split" in made.frame and made.frame["split"] != shard.split,
                f"is of another split than the shard's, {shard.split or 'none'}",
            ),
        ):
            for row in np.flatnonzero(wrong)[:1]:
                raise DataError(f"{made.where(row)}: {what}; {_AGAIN}")
        made = made if rows is None else made.take(rows)
        if FILES not in shard.files:
            yield made
            return
        wanted = {cell for column in self.index.packed if column in made.frame for cell in made.frame[column]}
        with tempfile.TemporaryDirectory(prefix="cm2pyro-shard-") as place:
            _unpack(self._file(shard, FILES), wanted, Path(place))
            yield Manifest(made.frame, made.name, Path(place), made.tables)

    def _tables(self, shard: Shard) -> dict[str, Path]:
        return {table: self._file(shard, file) for table, file in self.index.tables.items()}

    def verify(self) -> None:
        """Compare every checksum. Raises DataError."""
        for shard in self.index.shards:
            for name in shard.files:
                self._file(shard, name)

    def _file(self, shard: Shard, name: str) -> Path:
        path = self.folder / shard.name / name
        stored = shard.files.get(name)
        try:
            if stored is None:
                raise DataError(f"{path}: is not in {INDEX}; {_AGAIN}")
            with open_regular(path) as opened:
                size = os.fstat(opened.fileno()).st_size
            if size != stored.bytes:
                raise DataError(f"{path}: has {size} bytes, expected {stored.bytes} as in {INDEX}; it was cut or changed; {_AGAIN}")
            if str(path) not in self._verified:
                if checksum(path) != stored.sha256:
                    raise DataError(f"{path}: its bytes are not those that {INDEX} tells of; it was changed; {_AGAIN}")
                self._verified.add(str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); expected a file of the shard; {_AGAIN}") from error
        return path


def is_shards(source: Any) -> TypeGuard[str | Path]:
    """Whether a data source names a folder of shards."""
    try:
        return isinstance(source, str | Path) and (Path(source) / INDEX).is_file()
    except (OSError, ValueError):
        return False


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open_regular(path) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _unpack(path: Path, wanted: set[str], place: Path) -> None:
    with readable(str(path), f"expected a Parquet file; {_AGAIN}"), open_regular(path) as opened:
        for files in read_batches(opened, str(path), _ROWS, ["path", "content"]):
            for name, content in zip(files["path"], files["content"], strict=True):
                cell = name.as_py()
                if cell in wanted:
                    _write(place, cell, content, path)


def _write(place: Path, cell: str, content: pa.BinaryScalar, source: Path) -> None:
    parts = PurePosixPath(cell)
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{source}: path '{one_line(cell, 60)}' leaves the shard; expected a relative path inside it; {_AGAIN}")
    target = place / parts
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.as_buffer())
    except OSError as error:
        fault = f"'{one_line(cell, 60)}' cannot be unpacked into {place.parent} ({error.strerror})"
        raise DataError(f"{source}: {fault}; free space, or set TMPDIR to another folder") from error

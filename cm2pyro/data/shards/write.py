"""Making shards from a manifest, its tables and its files, a block at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cm2pyro.data.formulas import is_formula
from cm2pyro.data.manifest import SPLITS, inside
from cm2pyro.data.sampled import row_keys
from cm2pyro.data.shards.chunks import read_chunks
from cm2pyro.data.shards.index import FILES, FORMAT, INDEX, MANIFEST, Index, Shard, Stored, checksum
from cm2pyro.data.table import column_text
from cm2pyro.errors import DataError
from cm2pyro.files import fresh_folder, write_text
from cm2pyro.registry import one_line

_BUCKETS = 256  # of a table on its way to the shards: at most that share of it is in memory
_BLOCK = 32 << 20  # bytes of files held at once
_LONGEST_NAME = 1000
Say = Callable[[str], None]
_FILE = pa.schema([("path", pa.string()), ("content", pa.large_binary())])


@dataclass(frozen=True)
class _Plan:
    """Where every row goes: 13 bytes a row, all that is held of a manifest.

    Attributes:
        columns: of the manifest. names: of the shards, in their order. shard: (n,) of each row. keys, place: the rows' keys in
            order, and the shard of each. subjects: how many.
    """

    columns: list[str]
    names: list[str]
    splits: list[str]
    shard: NDArray[np.int32]
    keys: NDArray[np.uint64]
    place: NDArray[np.int32]
    subjects: int


def write_shards(
    manifest: str | Path,
    out: str | Path,
    tables: Sequence[str],
    packed: Sequence[str] | None,
    rows_per_shard: int,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Index:
    """Write `out`: index.json, and per shard a folder with its rows, its part of every table, and the files that cells name.

    Rows keep their order within a split; a shard holds rows of one split.

    Args:
        manifest: CSV or Parquet. tables: as configs name them, beside the manifest; one that is not there is said and left out.
        packed: columns whose cells may name files; None: every column but ids, split. rows_per_shard: 1 or more.

    Raises:
        ConfigError: an output folder that would lose something. DataError: whatever is wrong in the manifest or a table.
    """
    path = Path(manifest)
    plan = _plan(path, rows_per_shard)
    with fresh_folder(out, overwrite, INDEX) as folder:
        for name in plan.names:
            (folder / name).mkdir()
        columns = [c for c in plan.columns if c not in ("sample_id", "subject_id", "split") and (packed is None or c in packed)]
        found = _rows(path, plan, folder, columns)
        stored: dict[str, str] = {}
        for table in tables:
            if not (path.parent / table).exists():
                say(f"table {table} is not beside {manifest}; every row counts as missing")
                continue
            stored[table] = f"table_{len(stored)}.parquet"
            _table(inside(path.parent, table, f"table {table}"), table, plan, folder, stored[table], say)
        counts = np.bincount(plan.shard, minlength=len(plan.names))
        shards = [
            Shard(name=name, split=split, rows=int(n), files=_stored(folder / name))
            for name, split, n in zip(plan.names, plan.splits, counts, strict=True)
        ]
        index = Index(
            format=FORMAT, manifest=path.name, rows=len(plan.shard), subjects=plan.subjects, columns=plan.columns,
            tables=stored, packed=sorted(found), shards=shards,
        )  # fmt: skip
        write_text(folder / INDEX, index.model_dump_json(indent=1) + "\n")
    return index


def _stored(folder: Path) -> dict[str, Stored]:
    return {path.name: Stored(bytes=path.stat().st_size, sha256=checksum(path)) for path in sorted(folder.iterdir())}


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """Blocks of the manifest as text, indexed by the row in the file, the header being row 1."""
    start = 2
    for chunk in read_chunks(path, str(path)):
        columns = {name: pd.Series(column_text(chunk[name]), dtype=object) for name in chunk.column_names}
        frame = pd.DataFrame(columns, index=range(chunk.num_rows)).set_axis(range(start, start + chunk.num_rows))
        start += chunk.num_rows
        yield frame


def _plan(path: Path, rows_per_shard: int) -> _Plan:
    """Check ids, splits and subjects as the reader of a manifest does, and place the rows."""
    columns: list[str] = []
    ids, splits, subjects = [], [], []
    for frame in _frames(path):
        columns = list(frame.columns)
        if "sample_id" not in columns:
            raise DataError(f"{path}: column 'sample_id' is missing, and every row needs one; add it")
        split = frame["split"] if "split" in frame else pd.Series("", frame.index, dtype=object)
        subject = frame["subject_id" if "subject_id" in frame else "sample_id"].str.strip()
        for wrong, what, expected in (
            (frame["sample_id"].str.strip() == "", "sample_id is empty", "one"),
            (subject == "", "subject_id is empty", "the subject"),
            (frame["sample_id"].map(is_formula), "sample_id begins as a formula does", "one that begins with none of = + - @, or a number"),
            (subject.map(is_formula), "subject_id begins as a formula does", "one that begins with none of = + - @, or a number"),
            ("split" in frame and ~split.isin(SPLITS), "split is none of the known ones", ", ".join(SPLITS)),
        ):
            for row in np.flatnonzero(wrong)[:1]:
                raise DataError(f"{path}, row {frame.index[row]}: {what}; expected {expected}; correct it")
        ids.append(row_keys(frame["sample_id"]))
        splits.append(split.map({name: i for i, name in enumerate((*SPLITS, ""))}).to_numpy(dtype=np.int8))
        subjects.append(row_keys(subject))
    keys, code, subject_keys = np.concatenate(ids), np.concatenate(splits), np.concatenate(subjects)
    if not len(keys):
        raise DataError(f"{path}: no rows; expected one row a sample; add them")
    order = np.argsort(keys, kind="stable")
    for i in np.flatnonzero(keys[order][1:] == keys[order][:-1])[:1]:
        # Two ids with one key are as good as impossible; a false alarm would name rows whose ids differ.
        raise DataError(
            f"{path}, row {order[i + 1] + 2}: sample_id stands already in row {order[i] + 2}; expected every one once; "
            "give every row its own"
        )
    by_subject = np.argsort(subject_keys, kind="stable")
    same = subject_keys[by_subject][1:] == subject_keys[by_subject][:-1]
    for i in np.flatnonzero(same & (code[by_subject][1:] != code[by_subject][:-1]))[:1]:
        rows = sorted((by_subject[i] + 2, by_subject[i + 1] + 2))
        raise DataError(
            f"{path}, rows {rows[0]} and {rows[1]}: one subject in two splits; expected one split a subject; assign splits by subject"
        )
    shard = np.zeros(len(keys), dtype=np.int32)
    names: list[str] = []
    of: list[str] = []
    for number, name in enumerate((*SPLITS, "")):
        mine = np.flatnonzero(code == number)
        shard[mine] = len(names) + np.arange(len(mine)) // rows_per_shard
        count = -(-len(mine) // rows_per_shard)
        names += [f"{name or 'rows'}-{i:05d}" for i in range(count)]
        of += [name] * count
    return _Plan(columns, names, of, shard, keys[order], shard[order], int(len(keys) - same.sum()))


def _rows(path: Path, plan: _Plan, folder: Path, columns: Sequence[str]) -> set[str]:
    """Write every shard's rows and files; the columns in which a cell names a file."""
    waiting: dict[int, list[pd.DataFrame]] = {}
    left = np.bincount(plan.shard, minlength=len(plan.names))
    found: set[str] = set()
    start = 0
    for frame in _frames(path):
        here = plan.shard[start : start + len(frame)]
        start += len(frame)
        for number in np.unique(here).tolist():
            rows = frame[here == number]
            waiting.setdefault(number, []).append(rows)
            left[number] -= len(rows)
            if not left[number]:
                whole = pd.concat(waiting.pop(number))
                place = folder / plan.names[number]
                table = pa.table({name: pa.array(whole[name], pa.string()) for name in whole})
                pq.write_table(table, place / MANIFEST, compression="zstd")
                found |= _files(path, whole, columns, place / FILES)
    return found


def _files(path: Path, frame: pd.DataFrame, columns: Sequence[str], out: Path) -> set[str]:
    found: set[str] = set()
    cells: dict[str, Path] = {}
    for column in columns:
        for row, cell in zip(frame.index, frame[column], strict=True):
            if cell not in cells and _is_file(path.parent, cell):
                cells[cell] = inside(path.parent, cell, f"{path}, row {row}, column '{one_line(column, 60)}'")
                found.add(column)
    if cells:
        with pq.ParquetWriter(out, _FILE, compression="zstd") as writer:
            names, contents, size = [], [], 0
            for cell, file in cells.items():
                names.append(cell)
                contents.append(file.read_bytes())
                size += len(contents[-1])
                if size > _BLOCK:
                    writer.write_table(pa.table([names, contents], schema=_FILE))
                    names, contents, size = [], [], 0
            if names:
                writer.write_table(pa.table([names, contents], schema=_FILE))
    return found


def _is_file(root: Path, cell: str) -> bool:
    """Whether a cell names a file, as the readers see it: what names none is a note or a vector."""
    if not cell or len(cell) > _LONGEST_NAME or "\n" in cell or cell.startswith("["):
        return False
    try:
        return (root / cell).is_file()
    except (OSError, ValueError):
        return False


def _table(path: Path, table: str, plan: _Plan, folder: Path, name: str, say: Say) -> None:
    """Divide a table's lines among the shards of their samples, in two steps, so that few files are open and little is held."""
    each = -(-len(plan.names) // _BUCKETS)
    unknown, schema = 0, pa.schema([])
    spooled: dict[int, Path] = {}
    with ExitStack() as stack:
        writers: dict[int, pa.RecordBatchStreamWriter] = {}
        for chunk in read_chunks(path, table):
            schema = chunk.schema
            if "sample_id" not in schema.names:
                raise DataError(f"{table}: column 'sample_id' is missing; expected it beside the data; add it")
            where = _where(plan, chunk["sample_id"])
            unknown += int((where < 0).sum())
            for bucket in np.unique(where[where >= 0] // each).tolist():
                if bucket not in writers:
                    spooled[bucket] = folder / f".{name}.{bucket}"
                    writers[bucket] = stack.enter_context(pa.ipc.new_stream(str(spooled[bucket]), schema.append(pa.field("", pa.int32()))))
                rows = np.flatnonzero((where >= 0) & (where // each == bucket))
                writers[bucket].write_table(chunk.take(pa.array(rows)).append_column(pa.field("", pa.int32()), pa.array(where[rows])))
    for bucket in range(-(-len(plan.names) // each)):
        whole = None
        if bucket in spooled:
            with pa.ipc.open_stream(str(spooled[bucket])) as opened:
                whole = opened.read_all()
            spooled[bucket].unlink()
        for number in range(bucket * each, min((bucket + 1) * each, len(plan.names))):
            part = schema.empty_table()
            if whole is not None:
                part = whole.filter(pc.equal(whole[""], number)).drop_columns([""])
            pq.write_table(part.replace_schema_metadata(None), folder / plan.names[number] / name, compression="zstd")
    if unknown:
        say(f"table {table}: {unknown:,} lines of samples that the manifest does not name are left out")


def _where(plan: _Plan, ids: pa.ChunkedArray) -> NDArray[np.int32]:
    """(n,) the shard of each sample, -1 where the manifest lacks it."""
    coded = ids.combine_chunks().dictionary_encode() if len(ids) else pa.array([], pa.string()).dictionary_encode()
    keys = row_keys(column_text(pa.chunked_array([coded.dictionary])))
    at = np.minimum(np.searchsorted(plan.keys, keys), len(plan.keys) - 1)
    known = np.where(plan.keys[at] == keys, plan.place[at], -1) if len(keys) else np.zeros(0, dtype=np.int32)
    codes = coded.indices.to_numpy(zero_copy_only=False)
    return known[codes].astype(np.int32) if len(codes) else np.zeros(0, dtype=np.int32)

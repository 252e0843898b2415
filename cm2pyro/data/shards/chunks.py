"""Manifests and tables read a block at a time, every cell as the whole reader would give it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cm2pyro.data.manifest import _check_names
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

_BLOCK = 4 << 20  # bytes of a CSV
_ROWS = 1 << 15  # of a Parquet file


def read_chunks(path: Path, where: str) -> Iterator[pa.Table]:
    """Blocks of a CSV, all columns text and '' where empty, or of a Parquet file with its own types; one at least.

    Raises:
        DataError: not readable, names missing or twice, a record that is wider or narrower than the header.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            with path.open("rb") as opened, pq.ParquetFile(opened) as file:
                schema = file.schema_arrow
                names = [name for name in schema.names if not name.startswith("__index_level_")]
                _check_names(names, where)
                yield schema.empty_table().select(names)
                for batch in file.iter_batches(_ROWS, columns=names):
                    yield pa.Table.from_batches([batch])
        else:
            yield from _csv(path, where)
    except DataError:
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError) as error:
        # What follows "got n" repeats the record, which may be a patient's.
        reason = one_line(getattr(error, "strerror", None) or str(error).split(": ", 2)[-1].split(", got")[0] or type(error).__name__, 120)
        raise DataError(f"{where}: cannot be read ({reason}); expected a CSV as UTF-8 or a Parquet file; correct it") from error


def _csv(path: Path, where: str) -> Iterator[pa.Table]:
    options = pc.ReadOptions(block_size=_BLOCK)
    parse = pc.ParseOptions(newlines_in_values=True)
    with pc.open_csv(path, options, parse) as opened:  # the first time for the names alone
        names = opened.schema.names
    _check_names(names, where)
    convert = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, quoted_strings_can_be_null=False)
    with pc.open_csv(path, options, parse, convert) as opened:
        yield opened.schema.empty_table()
        for batch in opened:
            yield pa.Table.from_batches([batch])

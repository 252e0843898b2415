"""Manifests and tables read a block at a time, every cell as the whole reader would give it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.csv_file import check_names, read_blocks
from cm2pyro.errors import DataError
from cm2pyro.files import open_regular
from cm2pyro.registry import one_line

_ROWS = 1 << 15  # of a Parquet file


def read_chunks(path: Path, where: str) -> Iterator[pa.Table]:
    """Blocks of a CSV, all columns text and '' where empty, or of a Parquet file with its own types; one at least.

    Raises:
        DataError: not readable, names missing or twice, a record that is wider or narrower than the header.
    """
    try:
        with open_regular(path) as opened:
            if path.suffix.lower() in (".parquet", ".pq"):
                with pq.ParquetFile(opened) as file:
                    schema = file.schema_arrow
                    names = [name for name in schema.names if not name.startswith("__index_level_")]
                    check_names(names, where)
                    yield schema.empty_table().select(names)
                    for batch in file.iter_batches(_ROWS, columns=names):
                        yield pa.Table.from_batches([batch])
            else:
                for block in read_blocks(opened, where):
                    yield pa.table({name: pa.array(cells, pa.string()) for name, cells in block.items()})
    except DataError:
        raise
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error, 120) or type(error).__name__
        raise DataError(f"{where}: cannot be read ({reason}); expected a CSV as UTF-8 or a Parquet file; correct it") from error

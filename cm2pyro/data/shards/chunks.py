"""Manifests and tables read a block at a time, every cell as the whole reader would give it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.csv_file import check_names, read_blocks
from cm2pyro.data.parquet import is_parquet, read_batches, readable
from cm2pyro.files import open_regular

_ROWS = 1 << 15  # of a Parquet file


def read_chunks(path: Path, where: str) -> Iterator[pa.Table]:
    """Blocks of a CSV, all columns text and '' where empty, or of a Parquet file with its own types; one at least.

    Raises:
        DataError: not readable, names missing or twice, a record that is wider or narrower than the header, a Parquet file that would
            unfold beyond all measure.
    """
    with readable(where, "expected a CSV as UTF-8 or a Parquet file; correct it"), open_regular(path) as opened:
        if is_parquet(path):
            schema = pq.ParquetFile(opened).schema_arrow
            names = [name for name in schema.names if not name.startswith("__index_level_")]
            check_names(names, where)
            yield schema.empty_table().select(names)
            yield from read_batches(opened, where, _ROWS, names)
        else:
            for block in read_blocks(opened, where):
                yield pa.table({name: pa.array(cells, pa.string()) for name, cells in block.items()})

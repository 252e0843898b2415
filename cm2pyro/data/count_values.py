"""A script of its own: how many numbers and words a Parquet file says its columns hold, lists counted through.

    python count_values.py < FILE.parquet

Asking one column of a damaged file can end the process (pyarrow does not catch what its library throws there), so no process that has
anything to lose asks. Imports nothing of cm2pyro, which would take seconds.
"""

import sys


def main() -> None:
    import pyarrow.parquet as pq

    about = pq.ParquetFile(sys.stdin.buffer).metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    print(sum(group.column(j).num_values for group in groups for j in range(group.num_columns)))


if __name__ == "__main__":
    main()

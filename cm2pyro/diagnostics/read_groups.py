"""A script of its own: arrays of an ArviZ file's groups into an .npz file.

    python read_groups.py FILE.nc OUT.npz SECONDS BYTES GROUP…

A damaged file can make the HDF5 library loop for ever or crash, so no process that has anything to lose opens it. Imports nothing of
cm2pyro, which would take seconds. Ends with 3 and one line on standard output where the file cannot be read.
"""

import resource
import sys


def main(path: str, out: str, seconds: int, most: int, groups: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    import numpy as np
    import xarray as xr

    found = {}
    for group in groups:
        with xr.open_dataset(path, group=group, engine="h5netcdf") as opened:
            # A file of some bytes may say that it holds terabytes of one number.
            if opened.nbytes > most:
                raise ValueError(f"says that {group} takes {opened.nbytes:,} bytes, more than its size allows")
            for name, array in opened.load().variables.items():
                values = array.values
                found[f"{group}/{name}"] = values.astype(str) if values.dtype.kind in "OSU" else values
    np.savez(out, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    except Exception as error:  # a damaged or foreign file makes HDF5 and xarray raise anything
        print(" ".join(str(error).split())[:300])
        sys.exit(3)

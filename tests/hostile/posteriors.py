"""posterior.nc of runs that are compared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.world import Case, Corpus, Spoil, cut, directory, gone, pipe, put

COMPARE = "compare run other"
posterior = Corpus("run: posterior.nc", COMPARE, 1, "posterior.nc")


def other(spoil: Spoil) -> Spoil:
    def both(folder: Path) -> None:
        (folder / "other").mkdir()
        (folder / "other" / "posterior.nc").write_bytes((folder / "run" / "posterior.nc").read_bytes())
        spoil(folder)

    return both


def dataset(change: Callable[[object], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        import h5py

        with h5py.File(folder / "run" / "posterior.nc", "r+") as opened:
            change(opened)

    return other(spoil)


def giant(opened: object) -> None:
    group = opened["log_likelihood"]  # type: ignore[index]
    del group["outcome"]
    group.create_dataset("outcome", shape=(1, 1_000_000, 1_000_000), chunks=(1, 1000, 1000), dtype="f8", fillvalue=0.0)
    for axis, name in enumerate(("chain", "draw", "sample_id")):
        group["outcome"].dims[axis].label = name


POSTERIOR = "run/posterior.nc"
posterior.add("gone", other(gone(POSTERIOR)), "not there")
posterior.add("a folder", other(directory(POSTERIOR)))
posterior.add("a pipe", other(pipe(POSTERIOR)))
posterior.add("empty", other(put(POSTERIOR, b"")))
posterior.add("text", other(put(POSTERIOR, "posterior")))
posterior.add("cut short", other(cut(POSTERIOR, 0.5)))
posterior.add("the signature alone", other(put(POSTERIOR, b"\x89HDF\r\n\x1a\n" + bytes(100))))
posterior.add("no likelihood", dataset(lambda opened: opened.__delitem__("log_likelihood")))  # type: ignore[attr-defined]
posterior.add("no outcome", dataset(lambda opened: opened["log_likelihood"].__delitem__("outcome")))  # type: ignore[index]
posterior.add("no ids", dataset(lambda opened: opened["constant_data"].__delitem__("trained")))  # type: ignore[index]
posterior.add(
    "a likelihood of nan",
    dataset(lambda opened: opened["log_likelihood"]["outcome"].__setitem__(..., np.nan)),  # type: ignore[index]
    "run",
    "finite",
    anywhere=True,
)
posterior.add("a likelihood of eight terabytes", dataset(giant), bomb=True)

CASES: list[Case] = posterior.cases

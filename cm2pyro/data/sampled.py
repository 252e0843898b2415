"""A uniform random sample of rows that come in parts."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Matrix = NDArray[np.float64]


def row_keys(ids: Iterable[str]) -> Keys:
    """(n,) a number for each id that depends on it alone and looks random: the rows with the smallest are a random sample."""
    cells = np.array(list(ids), dtype=object)
    return pd.util.hash_array(cells, categorize=False) if len(cells) else np.zeros(0, dtype=np.uint64)


class RowSample:
    """Named columns of the `limit` rows with the smallest keys, in the order in which they came; of all rows without a limit.

    The sample does not depend on how rows are divided into parts. A part that lacks a name has nothing to say about it.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._keys: list[Keys] = []
        self._parts: dict[str, list[tuple[Keys, Matrix]]] = {}
        self._held = 0

    def add(self, keys: Keys, columns: dict[str, Matrix]) -> None:
        """keys (n,); columns: name -> (n, ...)."""
        self._keys.append(keys)
        self._held += len(keys)
        for name, values in columns.items():
            self._parts.setdefault(name, []).append((keys, values))
        if self.limit is not None and self._held > 2 * self.limit:
            self._drop()

    def _drop(self) -> None:
        keys = np.concatenate(self._keys) if self._keys else np.zeros(0, dtype=np.uint64)
        if self.limit is None or len(keys) <= self.limit:
            return
        last = np.partition(keys, self.limit - 1)[self.limit - 1]
        self._keys = [keys[keys <= last]]
        self._held = len(self._keys[0])
        for name, parts in self._parts.items():
            self._parts[name] = [(k[k <= last], values[k <= last]) for k, values in parts]

    def values(self, name: str) -> Matrix | None:
        """(r, ...) of the rows that said something about it; None if there is none."""
        self._drop()
        parts = [values for _, values in self._parts.get(name, [])]
        return np.concatenate(parts) if parts else None

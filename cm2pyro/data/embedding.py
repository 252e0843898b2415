"""Kind `embedding`: a vector given per sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cm2pyro.data.columns import Columns
from cm2pyro.data.kind import Kind, Learner
from cm2pyro.data.manifest import Manifest, strange_ids
from cm2pyro.data.scaling import Moments, Standard
from cm2pyro.data.table import parse_numbers, read_table
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

Matrix = NDArray[np.float64]
Raw = tuple[Matrix, list[str]]  # (n, width) with NaN rows where missing; the columns, if the vectors came as columns
_FAR = 1e6  # sd; only so that float32 holds every vector


class Embedding(Kind):
    """Given vectors, standardised per coordinate on the training rows.

    A cell holds the vector as a JSON list (`[0.1, -2]`) or the path of a one-dimensional `.npy` file; or the vectors
    are the columns of a table, or several manifest columns (`columns`). Columns are matched by name, not by order.
    """

    offers = ("vector",)
    scaling: Standard
    names: list[str]

    def read(self, manifest: Manifest) -> Raw:
        if self.modality.table is not None or self.modality.columns is not None:
            return self._from_columns(manifest)
        column = self.modality.column or self.name
        if column not in manifest.frame:
            return np.full((len(manifest), 0), np.nan), []
        vectors: dict[int, Matrix] = {}
        for row, cell in enumerate(manifest.frame[column]):
            if cell == "":
                continue
            where = f"{manifest.where(row)}, column '{column}'"
            vectors[row] = _parse(cell, where) if cell.lstrip().startswith("[") else _load(manifest.file(row, column), where)
            width = len(next(iter(vectors.values())))
            if len(vectors[row]) != width:
                raise DataError(f"{where}: vector of length {len(vectors[row])}, expected {width} as in the rows before; correct the cell")
        matrix = np.full((len(manifest), len(next(iter(vectors.values()))) if vectors else 0), np.nan)
        for row, vector in vectors.items():
            matrix[row] = vector
        return matrix, []

    def _from_columns(self, manifest: Manifest) -> Raw:
        frame, where = manifest.frame, manifest.name
        if self.modality.table is not None:
            where = self.modality.table
            table = read_table(manifest.table(self.modality.table, self.name), where, numbers=True)
            frame = aligned(table, manifest, where)
            self.remarks += strange_ids(table["sample_id"], manifest, f"modality {self.name}: {where}")
        fitted = getattr(self, "names", [])
        names = self.modality.columns or fitted or [column for column in frame.columns if column != "sample_id"]
        absent = [name for name in names if name not in frame.columns]
        if absent and self.modality.table is None and len(absent) == len(names):
            return np.full((len(manifest), 0), np.nan), []
        if absent:
            raise DataError(f"{where}: column '{absent[0]}' is missing, and modality {self.name} needs it; add it or change columns")
        matrix = np.full((len(manifest), len(names)), np.nan)
        for j, name in enumerate(names):
            matrix[:, j] = numeric(frame[name], name, manifest, where)
        present = np.isfinite(matrix)
        for row in np.flatnonzero(present.any(1) & ~present.all(1))[:1]:
            empty = names[int(np.flatnonzero(~present[row])[0])]
            sample = one_line(manifest.ids[row], 60)
            raise DataError(f"{where}, sample_id {sample}, column '{empty}': is empty, expected all of a vector or none; fill it")
        return matrix, names

    def observed(self, raw: Raw) -> NDArray[np.bool_]:
        matrix, _ = raw
        return np.isfinite(matrix).all(1) & (matrix.shape[1] > 0)

    def learner(self, limit: int | None = None) -> Learner:
        return _EmbeddingLearner(self)

    def transform(self, raw: Raw) -> Columns:
        matrix, _ = raw
        width = len(self.scaling.loc)
        seen = self.observed(raw)
        if not seen.any():
            return {"vector": torch.zeros(len(matrix), width)}
        if matrix.shape[1] != width:
            raise DataError(
                f"modality {self.name}: vectors of length {matrix.shape[1]}, expected {width} as in the fit; give the same embedding"
            )
        return {"vector": torch.from_numpy(np.where(seen[:, None], np.clip(self.scaling(matrix), -_FAR, _FAR), 0.0)).float()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"vector": (len(self.scaling.loc),)}

    def inputs(self) -> list[str]:
        return self.names

    def state(self) -> dict[str, Any]:
        return {"names": self.names} | self.scaling.state()

    def load(self, state: dict[str, Any]) -> None:
        self.names = list(state.get("names", []))
        self.scaling = Standard.from_state(state)
        if self.names and len(self.names) != len(self.scaling.loc):
            raise ValueError("names of another number of columns than the scaling")


class _EmbeddingLearner(Learner):
    def __init__(self, kind: Embedding) -> None:
        self.kind = kind
        self.names: list[str] = []
        self.moments: Moments | None = None

    def add(self, raw: Raw, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        matrix, names = raw
        width = matrix.shape[1]
        if self.moments is not None and width not in (0, len(self.moments.mean)):
            raise DataError(
                f"modality {self.kind.name}: vectors of length {width}, expected {len(self.moments.mean)} as in the shards before; "
                "correct the data"
            )
        if width:
            found = Moments.of(matrix[rows])
            self.names, self.moments = names, found if self.moments is None else self.moments.plus(found)

    def finish(self) -> None:
        self.kind.names = self.names
        self.kind.scaling = (self.moments or Moments.zeros(0, 0)).standard()


def aligned(table: pd.DataFrame, manifest: Manifest, where: str) -> pd.DataFrame:
    """Rows of a table with one row a sample, in the manifest's order; samples that it lacks get empty cells."""
    if "sample_id" not in table:
        raise DataError(f"{where}: column 'sample_id' is missing; expected one row a sample; add it")
    for i in table["sample_id"].duplicated().to_numpy().nonzero()[0][:1]:
        sample = one_line(table["sample_id"].iloc[i], 60)
        raise DataError(f"{where}, row {table.index[i]}: sample_id '{sample}' stands twice; expected one row a sample; remove one")
    found = table.set_index("sample_id").reindex(manifest.ids)
    text = [column for column in found.columns if not pd.api.types.is_numeric_dtype(table[column])]
    found[text] = found[text].fillna("")
    return found.reset_index()


def numeric(cells: pd.Series, name: str, manifest: Manifest, where: str) -> Matrix:
    """Finite numbers, NaN for an empty cell, one per sample. Raises DataError naming the sample."""
    values, wrong = parse_numbers(cells)
    for row in wrong[:1]:
        place = f"{where}, sample_id {one_line(manifest.ids[row], 60)}, column '{one_line(name, 60)}'"
        raise DataError(f"{place}: found '{one_line(cells.iloc[row], 60)}', expected a finite number; correct it or leave it empty")
    return values


def _parse(cell: str, where: str) -> Matrix:
    try:
        vector = np.array(json.loads(cell), dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        found = one_line(cell, 60)
        raise DataError(f"{where}: found '{found}', expected a list of finite numbers such as [0.1, -2]; correct the cell") from error
    return _checked(vector, where)


def _load(path: Path, where: str) -> Matrix:
    try:
        # Mapped: a header may ask for more memory than the file has numbers.
        vector = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "fiub":
            raise TypeError
        vector = np.array(vector, dtype=np.float64)
    except Exception as error:  # a damaged header makes NumPy raise whatever Python's tokenizer and evaluator do
        name = one_line(path.name, 60)
        raise DataError(f"{where}: '{name}' is not a .npy file of numbers; save it with numpy.save, or write the list itself") from error
    return _checked(vector, where)


def _checked(vector: Matrix, where: str) -> Matrix:
    if vector.ndim != 1 or not len(vector):
        raise DataError(f"{where}: found an array of shape {vector.shape}, expected one vector; correct it or leave the cell empty")
    for i in np.flatnonzero(~np.isfinite(vector))[:1]:
        raise DataError(f"{where}: number {i + 1} of the vector is {vector[i]}, expected a finite one; correct it or leave the cell empty")
    return vector

"""Kind `embedding`: a vector given per sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cm2pyro.data.kinds import Kind, Views
from cm2pyro.data.manifest import Manifest, inside, read_table
from cm2pyro.data.scaling import Standard
from cm2pyro.errors import DataError

Matrix = NDArray[np.float64]


class Embedding(Kind):
    """Given vectors, standardised per coordinate on the training rows.

    A cell holds the vector as a JSON list (`[0.1, -2]`) or the path of a one-dimensional `.npy` file; or the vectors
    are the columns of a table, or several manifest columns (`columns`).
    """

    offers = ("vector",)
    scaling: Standard

    def read(self, manifest: Manifest) -> Matrix:
        if self.modality.table is not None or self.modality.columns is not None:
            return self._from_columns(manifest)
        column = self.modality.column or self.name
        if column not in manifest.frame:
            return np.full((len(manifest), 0), np.nan)
        vectors: dict[int, Matrix] = {}
        for row, cell in enumerate(manifest.frame[column]):
            if cell == "":
                continue
            where = f"{manifest.where(row)}, column '{column}'"
            vectors[row] = _parse(cell, where) if cell.lstrip().startswith("[") else _load(manifest.file(row, column), where)
            width = len(next(iter(vectors.values())))
            if len(vectors[row]) != width:
                raise DataError(f"{where}: vector of length {len(vectors[row])}; the rows before have {width}; all need the same")
        matrix = np.full((len(manifest), len(next(iter(vectors.values()))) if vectors else 0), np.nan)
        for row, vector in vectors.items():
            matrix[row] = vector
        return matrix

    def _from_columns(self, manifest: Manifest) -> Matrix:
        frame, where = manifest.frame, manifest.name
        if self.modality.table is not None:
            where = self.modality.table
            table = read_table(inside(manifest.root, self.modality.table, f"modality {self.name}, table"), where)
            frame = aligned(table, manifest, where)
        names = self.modality.columns or [column for column in frame.columns if column != "sample_id"]
        if not set(names) <= set(frame.columns):
            if self.modality.table is None and not set(names) & set(frame.columns):
                return np.full((len(manifest), 0), np.nan)
            absent = sorted(set(names) - set(frame.columns))[0]
            raise DataError(f"{where}: column '{absent}' is missing, and modality {self.name} needs it; add it or change columns")
        matrix = np.full((len(manifest), len(names)), np.nan)
        for j, name in enumerate(names):
            matrix[:, j] = numeric(frame[name], name, manifest, where)
        present = np.isfinite(matrix)
        for row in np.flatnonzero(present.any(1) & ~present.all(1))[:1]:
            raise DataError(f"{where}, sample_id {manifest.ids[row]}: vector has gaps; fill all of {', '.join(names[:4])} … or none")
        return matrix

    def observed(self, raw: Matrix) -> NDArray[np.bool_]:
        return np.isfinite(raw).all(1) & (raw.shape[1] > 0)

    def fit(self, raw: Matrix, rows: NDArray[np.int64]) -> None:
        self.scaling = Standard.fit(raw[rows])

    def transform(self, raw: Matrix) -> Views:
        width = len(self.scaling.loc)
        seen = self.observed(raw)
        if not seen.any():
            return {"vector": torch.zeros(len(raw), width)}
        if raw.shape[1] != width:
            raise DataError(f"modality {self.name}: vectors of length {raw.shape[1]}; the fit had {width}; give the same embedding")
        return {"vector": torch.from_numpy(np.where(seen[:, None], self.scaling(raw), 0.0)).float()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"vector": (len(self.scaling.loc),)}

    def state(self) -> dict[str, Any]:
        return self.scaling.state()

    def load(self, state: dict[str, Any]) -> None:
        self.scaling = Standard.from_state(state)


def aligned(table: Any, manifest: Manifest, where: str) -> Any:
    """Rows of a table with one row a sample, in the manifest's order; samples that it lacks get empty cells."""
    if "sample_id" not in table:
        raise DataError(f"{where}: column 'sample_id' is missing; expected one row a sample")
    for line in table["sample_id"].duplicated().to_numpy().nonzero()[0][:1]:
        raise DataError(f"{where}, line {line + 2}: sample_id '{table['sample_id'].iloc[line]}' stands twice; expected one row a sample")
    return table.set_index("sample_id").reindex(manifest.ids).fillna("").reset_index()


def numeric(cells: Any, name: str, manifest: Manifest, where: str) -> Matrix:
    """Finite numbers, NaN for an empty cell, one per sample. Raises DataError naming the sample."""
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        text = cell.strip()
        if text == "" or text.lower() == "nan":
            continue
        try:
            values[row] = float(text)
        except ValueError:
            values[row] = np.inf
        if not np.isfinite(values[row]):
            raise DataError(
                f"{where}, sample_id {manifest.ids[row]}, column '{name}': found '{text[:40]}', expected a finite number; "
                "correct it or leave it empty"
            )
    return values


def _parse(cell: str, where: str) -> Matrix:
    try:
        vector = np.array(json.loads(cell), dtype=np.float64)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: found '{cell[:40]}', expected a list of numbers such as [0.1, -2]; correct the cell") from error
    return _checked(vector, where)


def _load(path: Path, where: str) -> Matrix:
    try:
        vector = np.load(path, allow_pickle=False)
        vector = np.asarray(vector, dtype=np.float64)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise DataError(
            f"{where}: '{path.name}' is not a .npy file of numbers; save it with numpy.save, or write the list itself"
        ) from error
    return _checked(vector, where)


def _checked(vector: Matrix, where: str) -> Matrix:
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise DataError(f"{where}: expected one vector of finite numbers, found shape {vector.shape}; correct it or leave the cell empty")
    return vector

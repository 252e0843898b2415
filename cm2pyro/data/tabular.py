"""Kind `tabular`: numbers and categories, one row a sample."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cm2pyro.data.embedding import aligned, numeric
from cm2pyro.data.kinds import Kind, Views
from cm2pyro.data.manifest import Manifest, inside, read_table
from cm2pyro.data.scaling import QuantileNormal, curved
from cm2pyro.errors import DataError


class Tabular(Kind):
    """Numeric columns as normal scores with their squares and measured indicators; the others one-hot.

    The values are the columns of a table, several manifest columns (`columns`), or a CSV of one row per sample that the
    modality's cell names. A column is numeric if every filled training cell is a number. A category that training
    lacked is all zeros.
    """

    offers = ("vector",)
    numbers: list[str]
    categories: dict[str, list[str]]
    scaling: QuantileNormal

    def read(self, manifest: Manifest) -> tuple[pd.DataFrame, Manifest]:
        """Columns as text, in the manifest's order, an empty cell for what is missing."""
        column = self.modality.column or self.name
        if self.modality.table is not None:
            table = read_table(inside(manifest.root, self.modality.table, f"modality {self.name}, table"), self.modality.table)
            frame = aligned(table, manifest, self.modality.table).drop(columns="sample_id")
        elif self.modality.columns is not None:
            frame = manifest.frame[[c for c in self.modality.columns if c in manifest.frame]]
        elif column in manifest.frame:
            frame = self._from_files(manifest, column)
        else:
            frame = pd.DataFrame(index=range(len(manifest)))
        if self.modality.table is not None and self.modality.columns is not None:
            absent = [c for c in self.modality.columns if c not in frame]
            if absent:
                raise DataError(f"{self.modality.table}: column '{absent[0]}' is missing, and modality {self.name} needs it; add it")
            frame = frame[self.modality.columns]
        return frame.reset_index(drop=True), manifest

    def _from_files(self, manifest: Manifest, column: str) -> pd.DataFrame:
        rows = {}
        for row, cell in enumerate(manifest.frame[column]):
            if cell != "":
                where = f"{manifest.where(row)}, column '{column}'"
                one = read_table(manifest.file(row, column), f"{cell} ({where})")
                if len(one) != 1:
                    raise DataError(f"{where}: '{cell}' holds {len(one)} rows; expected a header and one row")
                rows[row] = one.iloc[0]
        return pd.DataFrame(rows).T.reindex(range(len(manifest))).fillna("")

    def observed(self, raw: tuple[pd.DataFrame, Manifest]) -> NDArray[np.bool_]:
        frame, _ = raw
        filled = frame.map(lambda cell: cell.strip() != "" and cell.strip().lower() != "nan")
        return filled.any(axis=1).to_numpy(dtype=bool) if len(frame.columns) else np.zeros(len(frame), dtype=bool)

    def fit(self, raw: tuple[pd.DataFrame, Manifest], rows: NDArray[np.int64]) -> None:
        frame, manifest = raw
        train = frame.iloc[rows]
        self.numbers, self.categories = [], {}
        for name in frame.columns:
            filled = train[name].str.strip()
            filled = filled[(filled != "") & (filled.str.lower() != "nan")]
            if pd.to_numeric(filled, errors="coerce").notna().all():
                self.numbers.append(name)
            else:
                self.categories[name] = sorted(set(filled))
        self.scaling = QuantileNormal.fit(self._matrix(frame, manifest)[rows])

    def _matrix(self, frame: pd.DataFrame, manifest: Manifest) -> NDArray[np.float64]:
        where = self.modality.table or manifest.name
        blank = pd.Series([""] * len(frame))
        columns = [numeric(frame.get(name, blank), name, manifest, where) for name in self.numbers]
        return np.stack(columns, 1) if columns else np.zeros((len(frame), 0))

    def transform(self, raw: tuple[pd.DataFrame, Manifest]) -> Views:
        frame, manifest = raw
        x = self._matrix(frame, manifest)
        parts = [curved(self.scaling(x)), np.isfinite(x).astype(np.float64)]
        for name, known in self.categories.items():
            cells = frame[name].str.strip() if name in frame else pd.Series([""] * len(frame))
            parts.append(np.stack([(cells == category).to_numpy(dtype=np.float64) for category in known], 1))
        vector = np.concatenate(parts, 1) * self.observed(raw)[:, None]
        return {"vector": torch.from_numpy(vector).float()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"vector": (3 * len(self.numbers) + sum(map(len, self.categories.values())),)}

    def state(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "categories": self.categories, "scaling": self.scaling.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.numbers, self.categories = state["numbers"], state["categories"]
        self.scaling = QuantileNormal.from_state(state["scaling"])

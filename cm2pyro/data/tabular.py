"""Kind `tabular`: numbers and categories, one row a sample."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cm2pyro.data.columns import Columns
from cm2pyro.data.csv_file import read_columns
from cm2pyro.data.embedding import aligned, numeric
from cm2pyro.data.kind import Kind, Learner
from cm2pyro.data.manifest import Manifest, strange_ids
from cm2pyro.data.parquet import is_parquet
from cm2pyro.data.sampled import RowSample
from cm2pyro.data.scaling import QuantileNormal, curved
from cm2pyro.data.table import parse_numbers, read_table
from cm2pyro.errors import DataError
from cm2pyro.registry import one_line

_CATEGORIES = 256  # more in one column are numbers with a slip, or free text


class Tabular(Kind):
    """Numeric columns as normal scores with their squares and measured indicators; the others one-hot.

    The values are the columns of a table, several manifest columns (`columns`), or a CSV of one row per sample that the
    modality's cell names. A column is numeric if every filled training cell is a number; one without any is left out. A
    category that training lacked is all zeros.
    """

    offers = ("vector",)
    numbers: list[str]
    categories: dict[str, list[str]]
    scaling: QuantileNormal

    def read(self, manifest: Manifest) -> tuple[pd.DataFrame, Manifest]:
        """Columns as text, in the manifest's order, an empty cell for what is missing."""
        column = self.modality.column or self.name
        if self.modality.table is not None:
            table = read_table(manifest.table(self.modality.table, self.name), self.modality.table)
            frame = aligned(table, manifest, self.modality.table).drop(columns="sample_id")
            self.remarks += strange_ids(table["sample_id"], manifest, f"modality {self.name}: {self.modality.table}")
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
        if not hasattr(self, "numbers"):
            self.remarks += [self._slip(frame[name], str(name)) for name in frame if _nearly_numeric(frame[name])]
        return frame.reset_index(drop=True), manifest

    def _slip(self, cells: pd.Series, name: str) -> str:
        found = one_line(cells.iloc[int(parse_numbers(cells)[1][0])], 60)
        return (
            f"modality {self.name}: column '{one_line(name, 60)}' is read as categories, since '{found}' is no number; "
            "if numbers are meant, write them with a point and leave missing ones empty"
        )

    def _from_files(self, manifest: Manifest, column: str) -> pd.DataFrame:
        rows: dict[int, dict[str, str]] = {}
        for row, cell in enumerate(manifest.frame[column]):
            if cell != "":
                where = f"{manifest.where(row)}, column '{column}'"
                path = manifest.file(row, column)
                shown = f"{one_line(cell)} ({where})"
                if is_parquet(path):
                    records = read_table(path, shown).to_dict("records")
                else:
                    columns, lines = read_columns(path, shown)
                    records = [{name: cells[i] for name, cells in columns.items()} for i in range(len(lines))]
                if len(records) != 1:
                    raise DataError(f"{shown}: {len(records)} rows, expected a header and one row; correct the file")
                rows[row] = {str(name): text for name, text in records[0].items()}
        names = sorted({name for record in rows.values() for name in record})
        cells = {name: [rows.get(row, {}).get(name, "") for row in range(len(manifest))] for name in names}
        return pd.DataFrame(cells, index=range(len(manifest)), dtype=object)

    def observed(self, raw: tuple[pd.DataFrame, Manifest]) -> NDArray[np.bool_]:
        frame, _ = raw
        # After the fit, columns that are unknown hold nothing that the model can read.
        names = [name for name in frame.columns if not hasattr(self, "numbers") or name in self.numbers or name in self.categories]
        seen = np.zeros(len(frame), dtype=bool)
        for name in names:
            seen |= _filled(frame[name]).to_numpy(dtype=bool)
        return seen

    def learner(self, limit: int | None = None) -> Learner:
        return _TabularLearner(self, limit)

    def _matrix(self, frame: pd.DataFrame, manifest: Manifest) -> NDArray[np.float64]:
        where = self.modality.table or manifest.name
        columns = [numeric(_cells(frame, name), name, manifest, where) for name in self.numbers]
        return np.stack(columns, 1) if columns else np.zeros((len(frame), 0))

    def transform(self, raw: tuple[pd.DataFrame, Manifest]) -> Columns:
        frame, manifest = raw
        x = self._matrix(frame, manifest)
        parts = [curved(self.scaling(x)), np.isfinite(x).astype(np.float64)]
        for name, known in self.categories.items():
            cells = _cells(frame, name).str.strip()
            parts.append(np.stack([(cells == category).to_numpy(dtype=np.float64) for category in known], 1))
        vector = np.concatenate(parts, 1) * self.observed(raw)[:, None]
        return {"vector": torch.from_numpy(vector).float()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"vector": (3 * len(self.numbers) + sum(map(len, self.categories.values())),)}

    def inputs(self) -> list[str]:
        return [*self.numbers, *self.categories]

    def state(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "categories": self.categories, "scaling": self.scaling.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.numbers, self.categories = state["numbers"], state["categories"]
        self.scaling = QuantileNormal.from_state(state["scaling"])
        if len(self.scaling.columns) != len(self.numbers) or not isinstance(self.categories, dict):
            raise ValueError("scalings of another number of columns, or categories without a column")


@dataclass
class _Column:
    """What training cells of a column have been: the distinct ones, as long as they are few enough for categories."""

    values: set[str] = field(default_factory=set)
    text: str | None = None  # the first that is no number
    infinite: DataError | None = None  # the refusal of the first that is not finite
    filled: bool = False


class _TabularLearner(Learner):
    """Whether a column is numeric is known when every part has been seen; until then numbers and categories are both kept."""

    def __init__(self, kind: Tabular, limit: int | None) -> None:
        self.kind, self.limit = kind, limit
        self.columns: dict[str, _Column] = {}
        self.orders: set[tuple[str, ...]] = set()
        self.sample = RowSample(limit)
        self.where = ""

    def add(self, raw: tuple[pd.DataFrame, Manifest], rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        frame, manifest = raw
        self.where = self.kind.modality.table or manifest.name
        self.orders.add(tuple(frame.columns))
        train = frame.iloc[rows]
        numbers = {}
        for name in frame.columns:
            known = self.columns.setdefault(name, _Column())
            cells = train[name].str.strip()
            values, wrong = parse_numbers(cells)
            filled = cells[_filled(cells)]
            known.filled |= len(filled) > 0
            texts = wrong[np.isnan(values[wrong])]
            if len(texts) and known.text is None:
                known.text = cells.iloc[int(texts[0])]
            if len(known.values) <= _CATEGORIES or self.limit is None:
                known.values |= set(filled)
            if len(wrong) > len(texts) and known.infinite is None:
                try:
                    numeric(_cells(frame, name), name, manifest, self.where)
                except DataError as error:
                    known.infinite = error
            numbers[name] = np.where(np.isfinite(values), values, np.nan)[:, None]
        self.sample.add(keys, numbers)

    def finish(self) -> None:
        kind = self.kind
        # Tables have one order; files of one row may lack columns, and are read in the order of their names.
        names = list(self.columns) if len(self.orders) == 1 else sorted(self.columns)
        kind.numbers, kind.categories, scores = [], {}, []
        for name in names:
            known = self.columns[name]
            if known.text is not None:
                self._check_categories(name, known)
                kind.categories[name] = sorted(known.values)
            elif known.filled:
                if known.infinite is not None:
                    raise known.infinite
                kind.numbers.append(name)
                seen = self.sample.values(name)
                scores += [] if seen is None else QuantileNormal.fit(seen).columns
        kind.scaling = QuantileNormal(scores)

    def _check_categories(self, name: str, known: _Column) -> None:
        count = len(known.values)
        if count > _CATEGORIES:
            raise DataError(
                f"{self.where}: column '{one_line(name, 60)}': {count if self.limit is None else f'more than {_CATEGORIES}'} categories in "
                f"training, such as '{one_line(known.text, 60)}'; "
                f"expected numbers or at most {_CATEGORIES} categories; leave missing numbers empty, or leave the column out"
            )


def _nearly_numeric(cells: pd.Series) -> bool:
    """Whether most filled cells are numbers, a decimal comma taken for a point, and some, as they stand, are not."""
    cells = cells[_filled(cells)]
    _, wrong = parse_numbers(cells)
    if not len(wrong):
        return False
    values, _ = parse_numbers(cells.str.strip().str.replace(",", "."))
    return 2 * int(np.isfinite(values).sum()) > len(cells)


def _filled(cells: pd.Series) -> pd.Series:
    return ~cells.str.strip().str.lower().isin(["", "nan"])


def _cells(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column, empty where the data lacks it."""
    return frame[name] if name in frame else pd.Series([""] * len(frame), dtype=object)

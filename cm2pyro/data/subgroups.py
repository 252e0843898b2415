"""Groups of rows by a column, for metrics per subgroup."""

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.data.kind import Kind
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.table import parse_numbers
from cm2pyro.data.tabular import Tabular
from cm2pyro.errors import DataError
from cm2pyro.registry import nearest, one_line

MISSING = "missing"
_DISTINCT = 10  # more values than these in a column of numbers are cut at quartiles
_GROUPS = 50  # more are no groups but names or free text
_QUARTILES = (0.25, 0.5, 0.75)


def read_column(manifest: Manifest, kinds: dict[str, Kind], column: str) -> pd.Series:
    """The cells (n,) of a manifest column, or for `MODALITY.COLUMN` of a column that a tabular modality reads, as text.

    Raises:
        DataError: no such column.
    """
    if column in manifest.frame:
        return manifest.frame[column].reset_index(drop=True)
    modality, _, inner = column.partition(".")
    kind = kinds.get(modality)
    known = list(manifest.frame.columns)
    if isinstance(kind, Tabular):
        frame, _ = kind.read(manifest)
        if inner in frame:
            return frame[inner]
        known += [f"{modality}.{name}" for name in frame]
    tabular = [name for name, kind in kinds.items() if isinstance(kind, Tabular)]
    also = f", and MODALITY.COLUMN of {', '.join(tabular)}" if tabular else ""
    raise DataError(f"{manifest.name}: --by {one_line(column, 60)}: no such column; {nearest(column, known)}{also}")


def group_rows(cells: pd.Series, column: str) -> dict[str, NDArray[np.int64]]:
    """Group -> its rows, every row in one; numbers rise, then "missing" for empty cells and those that say nan.

    A column of numbers with more than ten distinct ones is cut at its quartiles, such as "≤ 52", "> 52 to 67", "> 67"; equal
    quartiles fall together.

    Raises:
        DataError: more than 50 groups.
    """
    text = cells.str.strip().to_numpy(dtype=object)
    numbers, wrong = parse_numbers(pd.Series(text, dtype=object))
    absent = np.array([cell.lower() in ("", "nan") for cell in text], dtype=bool)
    values = np.unique(numbers[~absent])
    if not len(wrong) and len(values) > _DISTINCT:
        cuts = np.unique(np.quantile(numbers[~absent], _QUARTILES))
        cuts = cuts[cuts < values[-1]] if cuts[0] < values[-1] else values[-2:-1]  # most rows may have the largest value
        place = np.searchsorted(cuts, numbers)
        groups = {name: np.flatnonzero((place == i) & ~absent) for i, name in enumerate(_intervals(cuts))}
    else:
        order = np.unique(text[~absent].astype(str))
        if len(order) > _GROUPS:
            raise DataError(
                f"--by {one_line(column, 60)}: {len(order)} different cells, such as '{one_line(order[0], 60)}'; "
                f"expected numbers or at most {_GROUPS} groups; name another column"
            )
        if not len(wrong):
            order = order[np.argsort(order.astype(float), kind="stable")]
        groups = {str(value): np.flatnonzero((text == value) & ~absent) for value in order}
    return {name: rows for name, rows in {**groups, MISSING: np.flatnonzero(absent)}.items() if len(rows)}


def _intervals(cuts: NDArray[np.float64]) -> list[str]:
    """Names of the k + 1 intervals between k rising cuts, with as few digits as tell the cuts apart."""
    shown = next(texts for digits in (4, 8, 17) if len(set(texts := [f"{cut:.{digits}g}" for cut in cuts])) == len(cuts))
    return [f"≤ {shown[0]}", *(f"> {low} to {high}" for low, high in pairwise(shown)), f"> {shown[-1]}"]

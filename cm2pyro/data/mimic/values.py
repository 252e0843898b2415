"""Cells of the 17 variables to numbers in the variables' own units, or to codes of categories."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2pyro.data.mimic.variables import CATEGORIES, ITEMS, RANGES, UNITS, code_of, plain_unit
from cm2pyro.registry import one_line

__all__ = ["REASONS", "Counts", "convert"]

REASONS = (
    "error_flag",
    "no_value",
    "no_time",
    "no_stay",
    "other_admission",
    "outside_window",
    "unreadable",
    "unit",
    "impossible",
    "repeated",
    "unmatched_stay",
)


@dataclass
class Counts:
    """What became of the rows of the 17 variables of the cohort's patients.

    Attributes:
        read: rows by table. dropped: rows by reason, see `REASONS`. impossible: by variable. units: unknown ones, by variable and unit.
        unreadable: by variable. assigned: rows that name no stay (laboratory: no admission) and lie in the window of one, by table.
        early: heights and weights from just before the stay, by table. kept: by variable.
    """

    read: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(REASONS, 0)))
    impossible: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    assigned: Counter[str] = field(default_factory=Counter)
    early: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)


def convert(
    items: NDArray[np.int64], text: NDArray[np.object_], number: NDArray[np.float64], unit: NDArray[np.object_], counts: Counts
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values in the variables' own units, or codes of categories, and which rows have one; the others are counted.

    Args:
        items: (n,) ids of `ITEMS`. text, number: (n,) the columns VALUE and VALUENUM, NaN where empty. unit: (n,) as written.
    """
    value = np.full(len(items), np.nan)
    for item in np.unique(items).tolist():
        variable, _, own = ITEMS[item]
        here = np.flatnonzero(items == item)
        if variable in CATEGORIES:
            codes = [code_of(variable, text[i], number[i]) for i in here]
            found = np.array([np.nan if code is None else code for code in codes])
            _count(counts, "unreadable", variable, np.isnan(found))
        else:
            place, written = pd.factorize(unit[here])
            units = np.array([plain_unit(u) or own for u in written], dtype=object)[place]
            found = _number(variable, text[here], number[here], units, counts)
        value[here] = found
    return value, ~np.isnan(value)


def _number(
    variable: str, text: NDArray[np.object_], number: NDArray[np.float64], units: NDArray[np.object_], counts: Counts
) -> NDArray[np.float64]:
    """Values of a numeric variable, NaN where there is none; units as `plain_unit` leaves them."""
    # VALUENUM is the number. Where only text is there it may still be a plain one, such as 7.4, and not 33% or a dot.
    gaps = np.isnan(number)
    number = number.copy()
    number[gaps] = pd.to_numeric(pd.Series(text[gaps], dtype=object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    number[~np.isfinite(number)] = np.nan
    _count(counts, "unreadable", variable, np.isnan(number))
    unknown = ~np.isin(units, list(UNITS[variable]))
    if variable == "fraction_inspired_oxygen":
        unknown |= (units == "torr") & (number > 1)  # a pressure, not a fraction
    unknown &= ~np.isnan(number)
    for unit in units[unknown]:
        counts.units[f"{variable} in {one_line(unit, 20)}"] += 1
    counts.dropped["unit"] += int(unknown.sum())
    known = np.flatnonzero(~unknown & ~np.isnan(number))
    value = np.full(len(number), np.nan)
    value[known] = _scaled(variable, number[known], units[known])
    low, high = RANGES[variable]
    impossible = (value < low) | (value > high)
    _count(counts, "impossible", variable, impossible)
    return np.where(impossible, np.nan, value)


def _count(counts: Counts, reason: str, variable: str, wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        counts.dropped[reason] += int(wrong.sum())
        {"unreadable": counts.unreadable, "impossible": counts.impossible}[reason][variable] += int(wrong.sum())


def _scaled(variable: str, x: NDArray[np.float64], units: NDArray[np.object_]) -> NDArray[np.float64]:
    """Values in the variable's own unit. Three slips of unit that leave no doubt are mended, as mimic3-benchmarks does."""
    if variable == "temperature":
        units = np.where(x >= 79, "f", units)  # Fahrenheit in a Celsius field
    pairs = np.array([UNITS[variable][u] for u in units], dtype=np.float64).reshape(-1, 2)
    x = x * pairs[:, 0] + pairs[:, 1]
    if variable == "fraction_inspired_oxygen":
        x = np.where(x > 1, x / 100, x)  # percent
    if variable == "oxygen_saturation":
        x = np.where(x <= 1, x * 100, x)  # a fraction
    return x

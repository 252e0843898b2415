"""Every row is in one group; groups of numbers are quartiles with their cuts in the name."""

import numpy as np
import pandas as pd
import pytest

from cm2pyro.config import Modality
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.manifest import read_manifest
from cm2pyro.data.subgroups import group_rows, read_column
from cm2pyro.errors import DataError


def groups(cells):
    found = group_rows(pd.Series(cells, dtype=object), "c")
    rows = np.concatenate(list(found.values()))
    assert sorted(rows.tolist()) == list(range(len(cells)))
    return {name: rows.tolist() for name, rows in found.items()}


def test_words_stand_in_order_and_empty_cells_are_missing():
    assert groups(["m", " f", "", "m", "NaN"]) == {"f": [1], "m": [0, 3], "missing": [2, 4]}


def test_few_numbers_are_groups_by_size():
    assert groups(["10", "9", "10", ""]) == {"9": [1], "10": [0, 2], "missing": [3]}


def test_many_numbers_are_cut_at_quartiles():
    found = groups([str(i) for i in range(1, 101)] + [""])
    assert list(found) == ["≤ 25.75", "> 25.75 to 50.5", "> 50.5 to 75.25", "> 75.25", "missing"]
    assert [len(rows) for rows in found.values()] == [25, 25, 25, 25, 1]


def test_a_value_at_a_cut_belongs_below_and_equal_cuts_fall_together():
    found = groups(["0"] * 60 + [str(i) for i in range(1, 41)])
    assert list(found) == ["≤ 0", "> 0 to 15.25", "> 15.25"]
    assert len(found["≤ 0"]) == 60
    mostly_largest = groups(["50"] * 100 + [str(i) for i in range(20)])
    assert {name: len(rows) for name, rows in mostly_largest.items()} == {"≤ 19": 20, "> 19": 100}


def test_close_cuts_are_told_apart_in_their_names():
    assert len(groups([f"{1_000_000 + i}" for i in range(20)])) == 4


def test_too_many_words_are_refused():
    with pytest.raises(DataError, match="--by c: 51 different cells, such as 'w0'"):
        group_rows(pd.Series([f"w{i}" for i in range(51)]), "c")


def test_columns_of_the_manifest_and_of_a_tabular_table(tmp_path):
    pd.DataFrame({"sample_id": ["a", "b"], "sex": ["f", "m"]}).to_csv(tmp_path / "manifest.csv", index=False)
    pd.DataFrame({"sample_id": ["b", "a"], "Age": [70, 30]}).to_csv(tmp_path / "static.csv", index=False)
    manifest = read_manifest(tmp_path / "manifest.csv")
    kinds = {"static": make_kind("static", Modality(kind="tabular", encoder="mlp", table="static.csv"), ("vector",))}
    assert read_column(manifest, kinds, "sex").tolist() == ["f", "m"]
    assert read_column(manifest, kinds, "static.Age").tolist() == ["30", "70"]
    for column, hint in (("sec", "did you mean 'sex'"), ("static.age", "did you mean 'static.Age'"), ("x.y", "MODALITY.COLUMN of static")):
        with pytest.raises(DataError, match=hint) as caught:
            read_column(manifest, kinds, column)
        assert "\n" not in str(caught.value)

"""Numbers and categories: what training teaches, what later rows may lack, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from cm2pyro.config import Modality
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.tabular import Tabular
from tests.refusals import refusal


def kind(**options: Any) -> Tabular:
    return Tabular("static", Modality(kind="tabular", encoder="mlp", **options), ("vector",))


def saved(folder: Path, frame: pd.DataFrame) -> Manifest:
    frame.to_csv(folder / "m.csv", index=False)
    return read_manifest(folder / "m.csv")


STATIC = pd.DataFrame({"age": ["20", "40", " 60 ", "", "80"], "unit": ["MICU", " CCU", "MICU", "", "NA"]})


def layouts(folder: Path) -> dict[str, tuple[Manifest, Tabular]]:
    ids = list("abcde")
    frame = STATIC.assign(sample_id=ids)
    frame.sample(frac=1, random_state=0).to_csv(folder / "t.csv", index=False)
    read = pd.read_csv(folder / "t.csv", keep_default_na=False, dtype=str)
    read.to_parquet(folder / "t.parquet")
    for i, sample in enumerate(ids):
        STATIC.iloc[[i]].to_csv(folder / f"{sample}.csv", index=False)
    STATIC.iloc[[1]].to_parquet(folder / "b.parquet")
    files = ["a.csv", "b.parquet", "c.csv", "", "e.csv"]
    return {
        "columns": (saved(folder, frame), kind(columns=["age", "unit"])),
        "csv": (saved(folder, frame[["sample_id"]]), kind(table="t.csv")),
        "parquet": (saved(folder, frame[["sample_id"]]), kind(table="t.parquet", columns=["age", "unit"])),
        "files": (saved(folder, pd.DataFrame({"sample_id": ids, "static": files})), kind()),
    }


def test_all_layouts_give_the_same_vector(tmp_path: Path) -> None:
    a, b, c = ndtri(np.array([0.5, 1.5, 2.5]) / 3)
    expected = [
        # score, its centred square, measured, CCU, MICU
        [a, (a**2 - 1) / 2, 1, 0, 1],
        [b, (b**2 - 1) / 2, 1, 1, 0],
        [c, (c**2 - 1) / 2, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [c, (c**2 - 1) / 2, 1, 0, 0],  # beyond the training range, and a category that training lacked
    ]
    for layout, (manifest, tabular) in layouts(tmp_path).items():
        raw = tabular.read(manifest)
        tabular.fit(raw, np.arange(4))
        assert (tabular.numbers, tabular.categories) == (["age"], {"unit": ["CCU", "MICU"]}), layout
        assert tabular.inputs() == ["age", "unit"]
        assert tabular.shapes() == {"vector": (5,)}
        assert tabular.observed(raw).tolist() == [True, True, True, False, True]
        vector = tabular.transform(raw)["vector"]
        np.testing.assert_allclose(vector.numpy(), expected, atol=1e-6, err_msg=layout)
        loaded = kind(**tabular.modality.model_dump(include={"columns", "table"}))
        loaded.load(json.loads(json.dumps(tabular.state(), allow_nan=False)))
        for row in range(5):
            alone = loaded.transform(loaded.read(manifest.take([row])))["vector"]
            assert alone[0].equal(vector[row]), (layout, row)


def raw_of(frame: dict[str, list[str]]) -> tuple[pd.DataFrame, Manifest]:
    table = pd.DataFrame(frame, dtype=object)
    return table, read_manifest(pd.DataFrame({"sample_id": [f"s{i}" for i in range(len(table))]}))


def test_only_training_rows_count() -> None:
    train = {"x": ["1", "2", "3"], "c": ["u", "v", "u"]}
    one, two = kind(), kind()
    one.fit(raw_of(train), np.arange(3))
    two.fit(raw_of({"x": ["1", "2", "3", "999"], "c": ["u", "v", "u", "w"], "late": ["", "", "", "5"]}), np.arange(3))
    assert one.state() == two.state()
    assert one.numbers == ["x"]


def test_columns_that_training_lacks_count_as_nothing() -> None:
    tabular = kind()
    tabular.fit(raw_of({"x": ["1", "2"], "c": ["u", "v"]}), np.arange(2))
    raw = raw_of({"unknown": ["7", "7"], "c": ["", "u"]})
    assert tabular.observed(raw).tolist() == [False, True]
    assert tabular.transform(raw)["vector"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    none = raw_of({"unknown": ["7"]})
    assert tabular.observed(none).tolist() == [False]
    assert not tabular.transform(none)["vector"].any()


def test_absent_columns_are_a_missing_modality(tmp_path: Path) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a", "b"]}))
    for tabular in (kind(), kind(columns=["age", "unit"])):
        assert tabular.observed(tabular.read(manifest)).tolist() == [False, False]


def test_codes_with_letters_are_categories_and_nan_is_a_gap() -> None:
    tabular = kind()
    tabular.fit(raw_of({"icd": ["401", "E11", "401"], "x": ["nan", " NaN", "3"], "empty": ["", "nan", " "]}), np.arange(3))
    assert tabular.categories == {"icd": ["401", "E11"]}
    assert tabular.numbers == ["x"]


def test_a_single_numeric_column_and_a_single_category_column() -> None:
    for frame, width in (({"x": ["1", "2"]}, 3), ({"c": ["u", "v"]}, 2)):
        tabular = kind()
        tabular.fit(raw_of(frame), np.arange(2))
        assert tabular.transform(raw_of(frame))["vector"].shape == (2, width)
        assert tabular.shapes() == {"vector": (width,)}


@pytest.mark.parametrize("cell", ["unknown", "inf", "1_0", "1,5"])
def test_a_later_value_that_is_no_number_is_refused(cell: str) -> None:
    tabular = kind(columns=["x"])
    tabular.fit(raw_of({"x": ["1", "2"]}), np.arange(2))
    refusal(
        lambda: tabular.transform(raw_of({"x": ["1", "", cell]})), "the data frame", "sample_id s2", "'x'", f"'{cell}'", "finite number"
    )


def test_infinite_training_values_are_refused_not_taken_for_categories() -> None:
    raw = raw_of({"x": ["1", "2", "-inf"]})
    refusal(lambda: kind(table="t.csv").fit(raw, np.arange(3)), "t.csv", "sample_id s2", "'x'", "'-inf'")


def test_a_number_column_with_a_slip_does_not_become_hundreds_of_categories() -> None:
    cells = [f"{i / 7:.4f}" for i in range(300)] + ["NA"]
    refusal(lambda: kind(table="t.csv").fit(raw_of({"x": cells}), np.arange(301)), "t.csv", "'x'", "301 categories", "'NA'", "empty")
    few = kind(table="t.csv")
    few.fit(raw_of({"x": [f"c{i}" for i in range(256)]}), np.arange(256))
    assert few.shapes() == {"vector": (256,)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("age\n", ["0 rows", "one row"]),
        ("age\n1\n2\n", ["2 rows", "one row"]),
        ("", ["empty"]),
        ("age,age\n1,2\n", ["'age' stands twice"]),
        ("age,unit\n1\n", ["line 2", "1 fields", "expected 2"]),
    ],
)
def test_refused_files(tmp_path: Path, content: str, says: list[str]) -> None:
    (tmp_path / "b.csv").write_text(content)
    (tmp_path / "a.csv").write_text("age\n1\n")
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a", "b"], "static": ["a.csv", "b.csv"]}))
    refusal(lambda: kind().read(manifest), "b.csv", "row 3 (sample_id b), column 'static'", *says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("sample_id,unit\na,MICU\n", ["'age' is missing", "modality static", "add it"]),
        ("id,age\na,1\n", ["'sample_id' is missing"]),
        ("sample_id,age\nb,1\na,1\na,2\n", ["row 4", "'a' stands twice"]),
    ],
)
def test_refused_tables(tmp_path: Path, content: str, says: list[str]) -> None:
    (tmp_path / "t.csv").write_text(content)
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a"]}))
    refusal(lambda: kind(table="t.csv", columns=["age"]).read(manifest), "t.csv", *says)
    refusal(lambda: kind(table="../t.csv").read(manifest), "modality static, table", "leaves the manifest's folder")

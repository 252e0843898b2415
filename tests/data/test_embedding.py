"""Given vectors, in cells, in files, in columns and in tables: the same numbers come out, and gaps are refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2pyro.config import Modality
from cm2pyro.data.embedding import Embedding
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.errors import DataError
from tests.refusals import refusal

VECTORS = np.array([[0.5, -2.0, 3.0], [1.5, 0.25, 3.0], [-4.0, 1e-3, 3.0]])


def kind(**options: Any) -> Embedding:
    return Embedding("image", Modality(kind="embedding", encoder="mlp", **options), ("vector",))


def saved(folder: Path, frame: pd.DataFrame) -> Manifest:
    frame.to_csv(folder / "m.csv", index=False)
    return read_manifest(folder / "m.csv")


def sources(folder: Path) -> dict[str, tuple[Manifest, Embedding]]:
    """The vectors of a, b, c in every layout; d has none."""
    ids = list("abcd")
    names = ["x0", "x1", "x2"]
    for i in range(3):
        np.save(folder / f"{ids[i]}.npy", VECTORS[i].astype("float64" if i else "float32"))
    plain = saved(folder, pd.DataFrame({"sample_id": ids}))
    table = pd.DataFrame(VECTORS, columns=names).assign(sample_id=ids[:3])
    pd.concat([table.iloc[[2, 0]], table.iloc[[1]].assign(sample_id="other"), table.iloc[[1]]]).to_csv(folder / "t.csv", index=False)
    pd.read_csv(folder / "t.csv").to_parquet(folder / "t.parquet")
    cells = [json.dumps(v.tolist()) for v in VECTORS]
    columns = pd.DataFrame([*VECTORS.tolist(), [None] * 3], columns=names).assign(sample_id=ids)
    return {
        "cells": (saved(folder, pd.DataFrame({"sample_id": ids, "image": [*cells, ""]})), kind()),
        "files": (saved(folder, pd.DataFrame({"sample_id": ids, "i": ["a.npy", cells[1], "c.npy", ""]})), kind(column="i")),
        "columns": (saved(folder, columns), kind(columns=names)),
        "csv": (plain, kind(table="t.csv")),
        "parquet": (plain, kind(table="t.parquet")),
        "some of a table": (plain, kind(table="t.parquet", columns=names)),
    }


def test_all_layouts_give_the_same_vectors(tmp_path: Path) -> None:
    mean, sd = VECTORS[:2].mean(0), VECTORS[:2].std(0)
    expected = np.where(sd > 0, (VECTORS - mean) / np.where(sd > 0, sd, 1), 0)
    for layout, (manifest, embedding) in sources(tmp_path).items():
        raw = embedding.read(manifest)
        assert embedding.observed(raw).tolist() == [True, True, True, False], layout
        embedding.fit(raw, np.arange(2))
        assert embedding.shapes() == {"vector": (3,)}
        vector = embedding.transform(raw)["vector"].numpy()
        np.testing.assert_allclose(vector[:3], expected, rtol=1e-6, err_msg=layout)
        assert not vector[3].any()
        loaded = kind(**embedding.modality.model_dump(include={"column", "columns", "table"}))
        loaded.load(json.loads(json.dumps(embedding.state(), allow_nan=False)))
        alone = manifest.take([2])
        assert loaded.transform(loaded.read(alone))["vector"][0].numpy().tolist() == vector[2].tolist(), layout
        assert loaded.shapes() == embedding.shapes()


def test_columns_of_a_table_are_matched_by_name(tmp_path: Path) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a", "b"]}))
    frame = pd.DataFrame({"sample_id": ["a", "b"], "x": [1.0, 2.0], "y": [10.0, 30.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    embedding = kind(table="t.parquet")
    embedding.fit(embedding.read(manifest), np.arange(2))
    assert embedding.inputs() == ["x", "y"]
    before = embedding.transform(embedding.read(manifest))["vector"]
    frame[["y", "sample_id", "x"]].assign(new=1.0).to_parquet(tmp_path / "t.parquet")
    assert embedding.transform(embedding.read(manifest))["vector"].equal(before)
    frame.drop(columns="x").to_parquet(tmp_path / "t.parquet")
    refusal(lambda: embedding.read(manifest), "t.parquet", "column 'x' is missing", "modality image")


def test_absent_columns_are_a_missing_modality(tmp_path: Path) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a"], "other": ["1"]}))
    for embedding in (kind(), kind(columns=["x", "y"])):
        raw = embedding.read(manifest)
        assert embedding.observed(raw).tolist() == [False]
        embedding.fit((VECTORS, ["x", "y", "z"]), np.arange(3))
        assert embedding.transform(raw)["vector"].tolist() == [[0, 0, 0]]
    refusal(lambda: kind(columns=["x", "other"]).read(manifest), "column 'x' is missing", "modality image", "add it")


def test_other_rows_change_nothing() -> None:
    changed = VECTORS.copy()
    changed[2] = 1e5
    one, two = kind(), kind()
    one.fit((VECTORS, []), np.array([0, 1]))
    two.fit((changed, []), np.array([0, 1]))
    assert one.state() == two.state()


def test_far_vectors_stay_finite() -> None:
    embedding = kind()
    embedding.fit((np.array([[1e-12], [2e-12]]), []), np.arange(2))
    assert embedding.transform((np.array([[1e300], [-1e300]]), []))["vector"].isfinite().all()


def test_a_vector_of_another_length_than_the_fits_is_refused(tmp_path: Path) -> None:
    embedding = kind()
    embedding.fit((VECTORS, []), np.arange(3))
    raw = embedding.read(read_manifest(pd.DataFrame({"sample_id": ["a"], "image": ["[1, 2]"]})))
    refusal(lambda: embedding.transform(raw), "modality image", "length 2", "expected 3", "same embedding")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("[1, x]", ["'[1, x]'", "expected a list of finite numbers"]),
        ("[1, 2", ["'[1, 2'"]),
        ("[1, null]", ["number 2", "nan", "finite"]),
        ("[NaN, 1]", ["number 1", "nan"]),
        ("[1, 1e999]", ["number 2", "inf"]),
        ("[1" + "0" * 400 + "]", ["expected a list of finite numbers"]),
        ("[" * 3000, ["expected a list of finite numbers"]),
        ("[]", ["shape (0,)", "expected one vector"]),
        ("[[1], [2]]", ["shape (2, 1)"]),
        ("[[1], [2, 3]]", ["expected a list of finite numbers"]),
        ('[{"a": 1}]', ["expected a list of finite numbers"]),
        ("[1,\n2,\nx]", ["'[1, 2, x]'"]),
        ("[1, 2, 3]", ["length 3", "expected 2"]),
        ("vectors/a.npy", ["'vectors/a.npy'", "not there"]),
        ("/etc/passwd", ["leaves the manifest's folder"]),
    ],
)
def test_refused_cells(tmp_path: Path, cell: str, says: list[str]) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a", "b"], "image": ["[1, 2]", cell]}))
    row = "row 3 (sample_id b), column 'image'"
    refusal(lambda: kind().read(manifest), str(tmp_path / "m.csv"), row, *says)


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npz(array: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"PK\x03\x04 not a zip",
        b"\x80\x04.",
        npz([1.0]),
        npy(np.array([1.0, 2.0]))[:-4],
        npy(np.array(["a"])),
        npy(np.array([1 + 2j])),
        npy(np.array(["2020-01-01"], dtype="M8[D]")),
        npy(np.array([{}], dtype=object), allow_pickle=True),
        npy(np.zeros((2, 2))),
        npy(np.array(1.0)),
        npy(np.array([1.0, np.nan])),
        npy(np.zeros(3)).replace(b"(3,)", b"(3,"),
        npy(np.zeros(3)).replace(b"(3,), }" + b" " * 12, b"(3000000000000000,)")[:200],
    ],
)
def test_refused_npy_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a"], "image": ["v.npy"]}))
    refusal(lambda: kind().read(manifest), "row 2 (sample_id a), column 'image'", "numbers" if b"NUMPY" not in content else "")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"id": ["a"], "x": [1.0]}, ["'sample_id' is missing"]),
        ({"sample_id": ["b", "a", "a"], "x": [1.0, 2.0, 3.0]}, ["row 4", "'a' stands twice", "one row a sample"]),
        ({"sample_id": ["b", "a"], "x": ["1", "two"]}, ["sample_id a", "'x'", "'two'", "finite number"]),
        ({"sample_id": ["b", "a"], "x": [1.0, np.inf]}, ["sample_id a", "'x'", "'inf'"]),
        ({"sample_id": ["b", "a"], "x": [1.0, 2.0], "y": [1.0, None]}, ["sample_id a", "'y'", "empty", "all of a vector or none"]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_refused_tables(tmp_path: Path, frame: dict[str, list[Any]], says: list[str], suffix: str) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["a", "b"]}))
    table = pd.DataFrame(frame)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    refusal(lambda: kind(table=f"t.{suffix}").read(manifest), f"t.{suffix}", *says)


def test_other_samples_of_a_table_are_not_read(tmp_path: Path) -> None:
    manifest = saved(tmp_path, pd.DataFrame({"sample_id": ["b"]}))
    (tmp_path / "t.csv").write_text("sample_id,x\na,two\nb,2\n")
    assert kind(table="t.csv").read(manifest)[0].tolist() == [[2.0]]


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(lambda text: "[" + text), st.binary(max_size=30))
def test_any_cell_is_read_or_refused(cell: str, tail: bytes) -> None:
    manifest = read_manifest(pd.DataFrame({"sample_id": ["a"], "image": [cell]}))
    matrix, message = None, ""
    try:
        matrix, _ = kind().read(manifest)
    except DataError as error:
        message = str(error)
    assert len(message.splitlines()) == 1 if matrix is None else np.isfinite(matrix).all()

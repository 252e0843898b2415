"""From manifest and config to a data set: what is learned, what may be absent, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cm2pyro.config import Config
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.prepared import Preparation
from cm2pyro.errors import CheckpointError
from tests.refusals import refusal

VIEWS: dict[str, tuple[str, ...]] = {"ehr": ("binned", "summary"), "static": ("vector",), "image": ("vector",)}
MODALITIES: dict[str, Any] = {
    "ehr": {"kind": "timeseries", "encoder": "lstm", "table": "ehr.csv", "bin_hours": 12},
    "static": {"kind": "tabular", "encoder": "mlp", "columns": ["age", "unit"]},
    "image": {"kind": "embedding", "encoder": "mlp"},
}
N = 12


def preparation(**task: Any) -> Preparation:
    return Preparation.from_config(Config.from_dict({"task": task, "modalities": MODALITIES}), VIEWS)


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "sample_id": [f"{i:03}" for i in range(N)],
            "subject_id": [f"p{i // 2}" for i in range(N)],
            "label": [str(i % 2) for i in range(N)],
            "age": [str(20 + i) if i % 4 else "" for i in range(N)],
            "unit": ["MICU" if i % 3 else "CCU" for i in range(N)],
            "image": [json.dumps(rng.normal(size=2).round(3).tolist()) if i % 5 else "" for i in range(N)],
        }
    )


def events() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        (f"{i:03}", round(float(h), 2), name, round(float(rng.normal()), 3))
        for i in range(N)
        if i % 6
        for name in ("HR", "Temp")
        for h in rng.uniform(0, 48, 5)
    ]
    return pd.DataFrame(rows, columns=["sample_id", "hours", "variable", "value"])


def saved(folder: Path, table: pd.DataFrame | None = None, series: pd.DataFrame | None = None) -> Manifest:
    (frame() if table is None else table).to_csv(folder / "m.csv", index=False)
    (events().sort_values("hours") if series is None else series).to_csv(folder / "ehr.csv", index=False)
    return read_manifest(folder / "m.csv")


TRAIN = np.arange(8)


def test_fit_gives_every_row(tmp_path: Path) -> None:
    prepared = preparation()
    dataset = prepared.fit(saved(tmp_path), TRAIN)
    assert prepared.names == dataset.names == ("ehr", "static", "image")
    assert prepared.classes == ("0", "1")
    assert dataset.ids == tuple(f"{i:03}" for i in range(N))
    assert dataset.subjects[3] == "p1"
    assert dataset.labels.tolist() == [i % 2 for i in range(N)]
    assert dataset.observed.tolist() == [[i % 6 > 0, True, i % 5 > 0] for i in range(N)]
    for name, kind in prepared.kinds.items():
        assert {view: tuple(x.shape) for view, x in dataset.inputs[name].items()} == {v: (N, *shape) for v, shape in kind.shapes().items()}
    for m, name in enumerate(dataset.names):
        for view in dataset.inputs[name].values():
            assert not view[~dataset.observed[:, m]].any(), "rows that lack a modality hold zeros"
            assert view[dataset.observed[:, m]].flatten(1).any(1).all()


def test_transform_agrees_with_fit_and_with_every_row_alone(tmp_path: Path) -> None:
    manifest = saved(tmp_path)
    fitted, loaded = preparation(), preparation()
    dataset = fitted.fit(manifest, TRAIN)
    loaded.load(json.loads(json.dumps(fitted.state(), allow_nan=False)))
    again = loaded.transform(manifest, labels=True)
    assert again.labels.equal(dataset.labels)
    assert again.observed.equal(dataset.observed)
    rows = [loaded.transform(manifest.take([i]), labels=False) for i in range(N)]
    for name, views in dataset.inputs.items():
        for view, x in views.items():
            assert again.inputs[name][view].equal(x)
            for i, row in enumerate(rows):
                assert row.inputs[name][view][0].equal(x[i]), (name, view, i)
    assert [row.observed[0].tolist() for row in rows] == dataset.observed.tolist()
    assert all(row.labels.tolist() == [-1] for row in rows)


def test_the_other_rows_teach_nothing(tmp_path: Path) -> None:
    one, two = preparation(), preparation()
    one.fit(saved(tmp_path), TRAIN)
    table, series = frame(), events()
    late = ~table.index.isin(TRAIN)
    table.loc[late, ["age", "unit", "image"]] = ["999", "new", "[1e5, -1e5]"]
    other = series["sample_id"].astype(int) >= len(TRAIN)
    series.loc[other, ["variable", "value"]] = ["Lactate", 1e4]
    two.fit(saved(tmp_path, table, series), TRAIN)
    assert one.state() == two.state()
    table.loc[0:7, "age"] = "33"
    two.fit(saved(tmp_path, table, series), TRAIN)
    assert one.state() != two.state()


def test_a_second_fit_forgets_the_first(tmp_path: Path) -> None:
    manifest = saved(tmp_path)
    renamed = events().assign(variable=lambda t: "other " + t["variable"])
    used, fresh = preparation(), preparation()
    used.fit(manifest, TRAIN)
    manifest = saved(tmp_path, frame().rename(columns=str), renamed)
    fresh.fit(manifest, TRAIN)
    used.fit(manifest, TRAIN)
    assert used.state() == fresh.state()


def test_whole_modalities_may_be_absent_after_the_fit(tmp_path: Path) -> None:
    prepared = preparation()
    before = prepared.fit(saved(tmp_path), TRAIN)
    (tmp_path / "ehr.csv").unlink()
    frame()[["sample_id", "age", "unit"]].to_csv(tmp_path / "new.csv", index=False)
    manifest = read_manifest(tmp_path / "new.csv")
    after = prepared.transform(manifest, labels=False)
    assert after.observed.tolist() == [[False, True, False]] * N
    assert after.inputs["static"]["vector"].equal(before.inputs["static"]["vector"])
    for name in ("ehr", "image"):
        for view, x in after.inputs[name].items():
            rows = x[torch.arange(N)]
            assert rows.shape == before.inputs[name][view].shape
            assert not rows.any()
    assert sorted(prepared.remarks) == [
        f"modality ehr: ehr.csv is not beside {tmp_path / 'new.csv'}; every row counts as missing",
        f"modality image: {tmp_path / 'new.csv'} has no column 'image'; every row counts as missing",
    ]
    refusal(lambda: prepared.transform(manifest, labels=True), "new.csv", "'label' is missing")


def test_only_an_absent_table_is_a_missing_modality(tmp_path: Path) -> None:
    manifest = saved(tmp_path)
    prepared = preparation()
    prepared.fit(manifest, TRAIN)
    (tmp_path / "ehr.csv").unlink()
    (tmp_path / "ehr.csv").symlink_to(tmp_path / "gone.csv")
    refusal(lambda: prepared.transform(manifest, labels=False), "modality ehr, table", "not there")
    for table in ("../ehr.csv", "/nowhere/ehr.csv", "a" * 5000, "nul\0byte"):
        elsewhere = Preparation.from_config(Config.from_dict({"modalities": {"ehr": MODALITIES["ehr"] | {"table": table}}}), VIEWS)
        refusal(lambda p=elsewhere: p.observed(manifest), "modality ehr, table")
        assert elsewhere.remarks == []


def test_observed_needs_no_fit(tmp_path: Path) -> None:
    assert preparation().observed(saved(tmp_path)).tolist() == [[i % 6 > 0, True, i % 5 > 0] for i in range(N)]


def test_multiclass(tmp_path: Path) -> None:
    table = frame().assign(label=[("a", "b", "c", "")[i % 4] for i in range(N)])
    prepared = preparation(type="multiclass")
    dataset = prepared.fit(saved(tmp_path, table), TRAIN)
    assert prepared.classes == ("a", "b", "c")
    assert dataset.labels.tolist() == [(0, 1, 2, -1)[i % 4] for i in range(N)]
    loaded = preparation(type="multiclass")
    loaded.load(prepared.state())
    assert loaded.transform(saved(tmp_path, table.iloc[[2]]), labels=True).labels.tolist() == [2]


def numbers() -> pd.DataFrame:
    """A numeric label; rows beyond the training ones are far off."""
    label = [str(100.0 + 3 * i) for i in range(N)]
    label[2], label[9] = "", "500"
    return frame().assign(label=label)


def test_numeric_labels_are_standardised_on_the_training_rows_and_come_back(tmp_path: Path) -> None:
    manifest = saved(tmp_path, numbers())
    prepared = preparation(type="regression")
    dataset = prepared.fit(manifest, TRAIN)
    raw = np.array([float(x or "nan") for x in numbers()["label"]])
    train = raw[TRAIN][np.isfinite(raw[TRAIN])]
    np.testing.assert_allclose(dataset.labels.numpy(), (raw - train.mean()) / train.std())
    assert dataset.labelled.tolist() == [i != 2 for i in range(N)]
    assert prepared.classes == ()
    loaded = preparation(type="regression")
    loaded.load(json.loads(json.dumps(prepared.state(), allow_nan=False)))
    again = loaded.transform(manifest, labels=True)
    np.testing.assert_array_equal(again.labels.numpy(), dataset.labels.numpy())
    np.testing.assert_allclose(loaded.scaling.inverse(again.labels.numpy()), raw)  # type: ignore[union-attr]
    assert not loaded.transform(manifest, labels=False).labelled.any()
    with pytest.raises(CheckpointError, match="does not fit the config"):
        preparation(type="regression").load(without(prepared.state(), "label"))


def test_several_labels_are_warned_of_once_a_fit(tmp_path: Path) -> None:
    table = frame().assign(shock=["", *["0"] * (N - 2), "1"])
    prepared = preparation(type="multilabel", labels=["shock", "label"])
    dataset = prepared.fit(saved(tmp_path, table), TRAIN)
    assert prepared.classes == ("shock", "label")
    assert dataset.labels.shape == (N, 2)
    assert dataset.labels[0].tolist() == [-1, 0]
    assert [remark for remark in prepared.remarks if "'shock' is 0 in every training row" in remark] == prepared.remarks
    assert len(prepared.remarks) == 1
    assert prepared.transform(saved(tmp_path, table), labels=False).labels.eq(-1).all()


# --- refused at the fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": ""}, ["modality 'image' (column 'image')", "missing in every training row", "remove the modality"]),
        ({"age": "", "unit": " "}, ["modality 'static' (columns age, unit)", "missing in every training row"]),
        ({"label": ""}, ["column 'label'", "no training row has the label 0"]),
        ({"label": "1"}, ["no training row has the label 0", "0, 1"]),
        ({"label": "2"}, ["row 2 (sample_id 000)", "'2'", "0, 1 or empty"]),
        ({"image": "[0, 1, x]"}, ["row 2 (sample_id 000), column 'image'", "[0, 1, x]"]),
    ],
)
def test_refused_columns(tmp_path: Path, change: dict[str, str], says: list[str]) -> None:
    table = frame()
    table.loc[:7, list(change)] = list(change.values())
    manifest = saved(tmp_path, table)
    refusal(lambda: preparation().fit(manifest, TRAIN), str(tmp_path / "m.csv"), *says)


def test_a_modality_that_only_other_rows_have_is_missing_in_training(tmp_path: Path) -> None:
    late = events()[lambda t: t["sample_id"].astype(int) >= len(TRAIN)]
    refusal(lambda: preparation().fit(saved(tmp_path, series=late), TRAIN), "modality 'ehr' (ehr.csv)", "every training row")
    outside = events().assign(hours=49.0)
    refusal(lambda: preparation().fit(saved(tmp_path, series=outside), TRAIN), "modality 'ehr' (ehr.csv)", "every training row")


def test_an_absent_table_is_refused_at_the_fit(tmp_path: Path) -> None:
    manifest = saved(tmp_path)
    (tmp_path / "ehr.csv").unlink()
    refusal(lambda: preparation().fit(manifest, TRAIN), "modality ehr, table", "'ehr.csv'", "not there", "correct the path")


@pytest.mark.parametrize("column", ["label", "subject_id", "split"])
def test_tables_that_hold_the_outcome_are_refused(tmp_path: Path, column: str) -> None:
    manifest = saved(tmp_path)
    table = pd.DataFrame({"sample_id": manifest.ids, "age": range(N), column: range(N)})
    table.to_csv(tmp_path / "t.csv", index=False)
    for kind in ("tabular", "embedding"):
        modality = {"kind": kind, "encoder": "mlp", "table": "t.csv"}
        whole = Preparation.from_config(Config.from_dict({"modalities": {"static": modality}}), VIEWS)
        refusal(lambda p=whole: p.fit(manifest, TRAIN), "modality 'static' (t.csv)", f"column '{column}'", "with columns")
        named = Preparation.from_config(Config.from_dict({"modalities": {"static": modality | {"columns": ["age"]}}}), VIEWS)
        assert named.fit(manifest, TRAIN).observed.all()


def test_rows_are_named_as_in_the_file_when_some_are_taken(tmp_path: Path) -> None:
    table = frame()
    table.loc[9, "image"] = "[x]"
    manifest = saved(tmp_path, table).take([0, 1, 2, 3, 9])
    refusal(lambda: preparation().fit(manifest, np.arange(4)), "row 11 (sample_id 009)")


# --- state -----------------------------------------------------------------------------------------------------------


def without(state: dict[str, Any], *path: str) -> dict[str, Any]:
    copied = json.loads(json.dumps(state))
    place = copied
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return copied


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    prepared = preparation()
    prepared.fit(saved(tmp_path), TRAIN)
    state = prepared.state()
    swapped = {"classes": ["0", "1"], "modalities": dict.fromkeys(VIEWS, state["modalities"]["static"])}
    paths = [("classes",), ("modalities",), ("modalities", "image"), ("modalities", "ehr", "grid"), ("modalities", "static", "numbers")]
    for wrong in [None, [], "x", {}, swapped, {"classes": [], "modalities": [1]}, *(without(state, *path) for path in paths)]:
        with pytest.raises(CheckpointError, match=r"preprocessing\.json: does not fit the config.*fit again") as caught:
            preparation().load(wrong)  # type: ignore[arg-type]
        assert len(str(caught.value).splitlines()) == 1

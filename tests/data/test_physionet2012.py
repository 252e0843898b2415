"""Challenge records become tables: every cleaning rule, and the real set A where CM2_DATA names it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cm2pyro.data import physionet2012
from cm2pyro.data.physionet2012 import MODALITIES, RANGES, PreparedSummary, prepare
from cm2pyro.errors import ConfigError, DataError
from tests.data.challenge import HEADER, OUTCOMES, RECORDS, SECOND, make_archive, make_folder, refused, run


def rows(path: Path) -> list[tuple]:
    return list(pd.read_parquet(path).itertuples(index=False, name=None))


MAKERS = [make_folder, make_archive, lambda root, records: make_archive(root, records, "w")]


@pytest.mark.parametrize("make", MAKERS, ids=["folder", "tar.gz", "tar"])
def test_tables_hold_the_clean_values(tmp_path: Path, make: Callable[[Path, dict[str, str]], Path]) -> None:
    out, summary = run(tmp_path, make(tmp_path, RECORDS))
    assert rows(out / "vitals.parquet") == [("101", 7 / 60, "HR", 74.0), ("101", 1.5, "Weight", 82.0), ("102", 5.0, "Weight", 70.0)]
    assert rows(out / "labs.parquet") == [("101", 2.0, "K", 4.1)]
    assert rows(out / "gases.parquet") == [("101", 2.0, "pH", 7.31), ("101", 48.0, "MechVent", 1.0)]
    static = pd.read_parquet(out / "static.parquet").set_index("sample_id")
    assert list(static.columns) == ["Age", "Gender", "Height", "Weight", "ICUType"]
    assert static.Age.to_dict() == {"101": 54, "102": 61, "103": 90}
    assert static.Gender.isna().to_dict() == {"101": False, "102": True, "103": False}
    assert static.Height.isna().to_dict() == {"101": True, "102": True, "103": False}
    assert static.ICUType.isna().to_dict() == {"101": False, "102": False, "103": True}
    assert static.ICUType[["101", "102"]].tolist() == ["surgical", "cardiac_surgery"]
    assert static.Weight["101"] == 81.5
    assert pd.isna(static.Weight["102"]), "a later weight must not stand in for the one at admission"
    assert summary.dropped == {"not_recorded": 4, "impossible": 5, "duplicate": 1, "empty_parameter": 2, "unknown_parameter": 1}
    assert summary.impossible == {"HR": 1, "Height": 1, "ICUType": 1, "Temp": 1, "pH": 1}
    assert summary.coverage == {"static": 3, "vitals": 2, "labs": 1, "gases": 1}


def test_manifest_and_counts(tmp_path: Path) -> None:
    out, summary = run(tmp_path, make_archive(tmp_path, RECORDS))
    manifest = pd.read_csv(out / "manifest.csv", dtype=str)
    assert list(manifest.columns) == ["sample_id", "subject_id", "split", "label"]
    assert manifest.sample_id.tolist() == manifest.subject_id.tolist() == ["101", "102", "103"]
    assert manifest.label.tolist() == ["0", "1", "0"]
    assert manifest.split.value_counts().to_dict() == summary.splits == {"train": 2, "val": 1}
    assert (summary.stays, summary.deaths) == (3, 1)
    content = json.loads((out / "prepared.json").read_text())
    assert content["source"] == "physionet2012"
    assert content["deaths"] == 1
    assert content["coverage"] == summary.coverage
    assert content["dropped"] == summary.dropped
    assert str(tmp_path) not in (out / "prepared.json").read_text()
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["manifest.csv", "prepared.json", "static.parquet", "vitals.parquet", "labs.parquet", "gases.parquet"]
    )


def test_the_same_files_whatever_their_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = run(tmp_path / "a", make_archive(tmp_path / "a", RECORDS))
    two, _ = run(tmp_path / "b", make_archive(tmp_path / "b", dict(reversed(RECORDS.items()))))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_without_outcomes_there_is_no_label(tmp_path: Path) -> None:
    out, summary = run(tmp_path, make_folder(tmp_path, RECORDS), outcomes=None)
    assert list(pd.read_csv(out / "manifest.csv").columns) == ["sample_id", "subject_id", "split"]
    assert summary.deaths is None
    assert "no outcomes given" in "\n".join(summary.lines())


def test_a_set_with_no_value_of_a_modality_still_has_its_table(tmp_path: Path) -> None:
    records = make_folder(tmp_path, {"102.txt": HEADER + SECOND.replace("\n", "\r\n")})
    out, summary = run(tmp_path, records, outcomes=None, splits={"test": 1.0})
    assert rows(out / "gases.parquet") == []
    assert list(pd.read_parquet(out / "gases.parquet").columns) == ["sample_id", "hours", "variable", "value"]
    assert summary.coverage["vitals"] == 1


def test_every_variable_of_a_modality_has_a_range() -> None:
    names = [name for variables in MODALITIES.values() for name in variables]
    assert len(names) == len(set(names)) == 37
    assert set(names) | {"Age", "Gender", "Height", "ICUType"} == set(RANGES)


def test_wrong_splits_are_refused_before_reading(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path / "absent", ConfigError, "sum to 0.9", splits={"train": 0.9})
    refused(tmp_path, make_folder(tmp_path, RECORDS), DataError, "3 subjects are too few", splits={"train": 0.9, "val": 0.1})


def test_an_earlier_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    records = make_folder(tmp_path, RECORDS)
    out, _ = run(tmp_path, records)
    (out / "stale").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path, records)
    with pytest.raises(DataError):
        run(tmp_path, records, outcomes=OUTCOMES + "104,1,1,1,-1,0\n", overwrite=True)
    assert (out / "stale").exists(), "a failed run must leave the earlier folder alone"
    run(tmp_path, records, overwrite=True)
    assert not (out / "stale").exists()


def test_overwrite_never_deletes_its_own_input(tmp_path: Path) -> None:
    out, _ = run(tmp_path, make_folder(tmp_path, RECORDS))
    records = make_archive(out, RECORDS)
    with pytest.raises(ConfigError, match="holds the input"):
        run(tmp_path, records, overwrite=True)
    assert records.exists()


@pytest.fixture(scope="module")
def set_a(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedSummary]:
    """The prepared folder and its summary."""
    if "CM2_DATA" not in os.environ:
        pytest.skip("CM2_DATA is not set")
    source = Path(os.environ["CM2_DATA"]) / "physionet2012"
    out = tmp_path_factory.mktemp("physionet2012") / "out"
    return out, prepare(source / "set-a.tar.gz", source / "Outcomes-a.txt", out, {"train": 0.8, "val": 0.2}, 0, False)


@pytest.mark.slow
@pytest.mark.real
def test_set_a_has_its_known_counts(set_a: tuple[Path, PreparedSummary]) -> None:
    out, summary = set_a
    assert (summary.stays, summary.deaths) == (4000, 554)
    assert summary.splits == {"train": 3200, "val": 800}
    assert 0.8 < summary.coverage["gases"] / summary.stays < 0.9
    assert summary.coverage["static"] == 4000
    assert summary.dropped["unknown_parameter"] == summary.dropped["empty_parameter"] == 0
    manifest = pd.read_csv(out / "manifest.csv", dtype={"sample_id": str})
    assert (len(manifest), int(manifest.label.sum())) == (4000, 554)


@pytest.mark.slow
@pytest.mark.real
def test_set_a_holds_nothing_impossible(set_a: tuple[Path, PreparedSummary]) -> None:
    out, summary = set_a
    ids = set(pd.read_csv(out / "manifest.csv", dtype=str).sample_id)
    for name, variables in MODALITIES.items():
        table = pd.read_parquet(out / f"{name}.parquet")
        assert not table.isna().any().any()
        assert not table.duplicated(["sample_id", "hours", "variable"]).any()
        assert table.equals(table.sort_values(["sample_id", "hours", "variable"], ignore_index=True))
        assert set(table.variable) == set(variables)
        assert set(table.sample_id) <= ids - {"140501", "140936", "141264"}, "these three stays have static values only"
        assert table.sample_id.nunique() == summary.coverage[name]
        assert table.hours.between(0, 48).all()
        low, high = (table.variable.map({v: bounds[side] for v, bounds in RANGES.items()}) for side in (0, 1))
        assert table.value.between(low, high).all()
    static = pd.read_parquet(out / "static.parquet")
    assert set(static.sample_id) == ids
    assert set(static.ICUType.dropna()) == set(physionet2012.ICU_TYPES.values())
    for name in ("Age", "Gender", "Height", "Weight"):
        assert static[name].dropna().between(*RANGES[name]).all()

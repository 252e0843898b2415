"""The simulated data set on disk: reproducible, one population for all seeds, files that agree with each other, refusals.

Tolerances are four standard errors, for fixed seeds.
"""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.io import read_image

from cm2pyro.data import simulation
from cm2pyro.data.simulation import MODALITIES, SimulationSettings, draw, population, simulate
from cm2pyro.errors import ConfigError

SAMPLE_KEYS = {"settings", "prevalence", "class_shares", "coverage", "nothing_observed", "splits", "subjects"}
SAMPLE_KEYS |= {"bayes_auroc", "bayes_auroc_expected"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 400 samples with a third of the modalities missing."""
    out = tmp_path_factory.mktemp("simulated") / "data"
    simulate(out, SimulationSettings(samples=400, seed=5))
    return out


def manifest(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- reproducible --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = SimulationSettings(samples=40, mechanism="mnar", seed=11)
    simulate(tmp_path / "a", settings)
    torch.manual_seed(99)
    np.random.seed(99)
    simulate(tmp_path / "b", settings)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_global_random_states_are_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), pickle.dumps(np.random.get_state()), random.getstate()
    settings = SimulationSettings(samples=20)
    draw(settings, population(settings))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert pickle.dumps(np.random.get_state()) == before[1]
    assert random.getstate() == before[2]


@pytest.mark.parametrize("mechanism", ["mcar", "mar", "mnar"])
def test_another_seed_is_another_sample_of_the_same_population(tmp_path: Path, mechanism: str) -> None:
    truths = [simulate(tmp_path / str(seed), SimulationSettings(samples=30 + seed, mechanism=mechanism, seed=seed)) for seed in (0, 1)]
    written = [json.loads((tmp_path / str(seed) / "truth.json").read_text()) for seed in (0, 1)]
    assert written == truths
    first, second = ({key: value for key, value in truth.items() if key not in SAMPLE_KEYS} for truth in written)
    assert first == second
    assert first["missingness"]["mechanism"] == mechanism
    latents = [pd.read_parquet(tmp_path / str(seed) / "latents.parquet") for seed in (0, 1)]
    assert not np.isclose(latents[0]["latent_note_0"][:30], latents[1]["latent_note_0"][:30]).any()


def test_another_missing_rate_leaves_the_patients_as_they_were() -> None:
    few, many = (SimulationSettings(samples=200, missing=p, mechanism=how) for p, how in ((0.1, "mcar"), (0.6, "mnar")))
    a, b = draw(few, population(few)), draw(many, population(many))
    assert np.array_equal(a.latents, b.latents)
    assert np.array_equal(a.label, b.label)
    assert a.observed.mean() > b.observed.mean()


# --- files ---------------------------------------------------------------------------------------------------------


def test_the_manifest(folder: Path) -> None:
    frame = manifest(folder)
    columns = ["sample_id", "subject_id", "split", "label", "image", "note", "latent_series", "latent_image", "latent_note"]
    assert list(frame) == columns
    assert frame["sample_id"].tolist() == [f"s{i:05d}" for i in range(1, 401)]
    assert (frame.groupby("subject_id")["split"].nunique() == 1).all()
    subjects = frame["subject_id"].nunique()
    assert subjects / 400 == pytest.approx(1 / 1.2, abs=4 * np.sqrt(1 / 1.2 * (1 - 1 / 1.2) / 400))
    shares = frame.groupby("split")["subject_id"].nunique() / subjects
    assert shares[["train", "val", "test"]].to_numpy() == pytest.approx([0.6, 0.2, 0.2], abs=1 / subjects)
    assert set(frame["label"]) == {"0", "1"}
    nothing = (frame[[f"latent_{name}" for name in MODALITIES]] == "").all(axis=1)
    assert nothing.sum() == json.loads((folder / "truth.json").read_text())["nothing_observed"] > 0


def test_latent_cells_are_the_truth_where_observed_and_empty_elsewhere(folder: Path) -> None:
    frame, latents = manifest(folder), pd.read_parquet(folder / "latents.parquet")
    assert latents["sample_id"].tolist() == frame["sample_id"].tolist()
    assert not latents.isna().any().any()
    there = {"series": frame["sample_id"].isin(pd.read_parquet(folder / "series.parquet")["sample_id"])}
    there |= {"image": frame["image"] != "", "note": frame["note"] != ""}
    for name in MODALITIES:
        cells = frame[f"latent_{name}"]
        assert (cells != "").equals(there[name])
        true = latents.loc[there[name], [f"latent_{name}_0", f"latent_{name}_1"]].to_numpy().tolist()
        assert [json.loads(cell) for cell in cells[there[name]]] == true


def test_the_true_probability_is_the_formula_of_truth_json(folder: Path) -> None:
    truth, latents = json.loads((folder / "truth.json").read_text()), pd.read_parquet(folder / "latents.parquet")
    z = latents[[f"latent_{name}_{d}" for name in MODALITIES for d in range(2)]].to_numpy().reshape(-1, 3, 2)
    a = (z - np.array(truth["standardisation"]["mean"])) / np.array(truth["standardisation"]["sd"])
    outcome = truth["outcome"]
    logit = outcome["intercept"][0] + (a * np.array(outcome["linear"][0])).sum((1, 2)) + outcome["product"][0] * a[:, 0, 0] * a[:, 1, 0]
    assert latents["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-logit)))
    assert np.sum(truth["weights"]) == pytest.approx(1)
    assert (truth["family"], truth["tau"], truth["assignment"]) == ("gaussian", 0.5, [[0, 0, 0], [1, 1, 1], [2, 2, 2]])


def standardised(folder: Path, modality: str) -> pd.DataFrame:
    """The modality's two latents by sample_id, mean 0 and variance 1 over the population."""
    standard = json.loads((folder / "truth.json").read_text())["standardisation"]
    m = MODALITIES.index(modality)
    z = pd.read_parquet(folder / "latents.parquet").set_index("sample_id")[[f"latent_{modality}_0", f"latent_{modality}_1"]]
    return (z - standard["mean"][m]) / standard["sd"][m]


def test_series_are_irregular_and_show_level_and_slope(folder: Path) -> None:
    table = pd.read_parquet(folder / "series.parquet")
    assert list(table) == ["sample_id", "hours", "variable", "value"]
    assert set(table["variable"]) == {"heart_rate", "mean_pressure", "temperature"}
    assert table["hours"].between(0, 48, inclusive="left").all()
    assert table["value"].notna().all()
    grouped = table.groupby(["sample_id", "variable"])
    assert grouped["hours"].agg(lambda hours: bool((hours.diff().dropna() > 0).all())).all()
    kept = grouped.size()
    assert kept.mean() / 48 == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / (48 * len(kept))))
    assert kept.nunique() > 1
    z = standardised(folder, "series")
    heart = table[table["variable"] == "heart_rate"]
    fits = {name: np.polyfit(rows["hours"] / 48 - 0.5, rows["value"], 1) for name, rows in heart.groupby("sample_id")}
    slope, level = np.array(list(fits.values())).T
    z = z.loc[list(fits)]
    assert np.corrcoef(level, z.iloc[:, 0])[0, 1] > 0.9
    assert np.corrcoef(slope, z.iloc[:, 1])[0, 1] > 0.9
    assert 30 < heart["value"].min() < heart["value"].max() < 200


def test_images_are_there_where_the_manifest_says_and_show_brightness_and_height(folder: Path) -> None:
    frame = manifest(folder)
    named = frame.loc[frame["image"] != "", ["sample_id", "image"]]
    assert sorted(path.relative_to(folder).as_posix() for path in (folder / "images").iterdir()) == sorted(named["image"])
    pictures = torch.stack([read_image(str(folder / name)) for name in named["image"]])
    assert pictures.shape[1:] == (1, 64, 64)
    assert pictures.dtype == torch.uint8
    smooth = torch.nn.functional.avg_pool2d(pictures.float(), 5, stride=1, padding=2)[:, 0]
    smooth -= smooth.quantile(0.2, dim=0)  # what most pictures show at that place
    brightest = smooth[:, 8:56, 8:56].flatten(1)
    height = (brightest.argmax(1) // 48).numpy()
    z = standardised(folder, "image").loc[named["sample_id"]]
    assert np.corrcoef(brightest.max(1).values, z.iloc[:, 0])[0, 1] > 0.8
    assert np.corrcoef(height, z.iloc[:, 1])[0, 1] > 0.8


def test_notes_survive_csv_and_show_both_latents_but_no_diagnosis(folder: Path) -> None:
    frame = manifest(folder)
    notes = frame.loc[frame["note"] != ""].set_index("sample_id")["note"]
    assert notes.str.contains(",").any()
    assert notes.str.contains('"').any()
    assert not notes.str.contains(r"\d|pneumon|sepsis|septic|failure|covid|infarct|died|death|label|class", case=False).any()
    z = standardised(folder, "note").loc[notes.index].to_numpy()

    def mean_difference(present: str, absent: str, column: int) -> float:
        return z[notes.str.contains(present), column].mean() - z[notes.str.contains(absent), column].mean()

    assert mean_difference("high-flow|maximal", "room air|a trace of", 0) > 1
    assert mean_difference("hard to rouse|unresponsive", "bright|alert", 1) > 1


def test_more_classes_on_disk(tmp_path: Path) -> None:
    truth = simulate(tmp_path / "out", SimulationSettings(samples=60, classes=3))
    assert set(manifest(tmp_path / "out")["label"]) == {"0", "1", "2"} == set(truth["class_shares"])
    latents = pd.read_parquet(tmp_path / "out" / "latents.parquet")
    assert latents[[f"probability_{c}" for c in range(3)]].sum(axis=1).to_numpy() == pytest.approx(np.ones(60))


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 9}, "samples: found 9"),
        ({"missing": 1.0}, "missing: found 1.0"),
        ({"missing": -0.1}, "missing: found -0.1"),
        ({"missing": float("nan")}, "missing: found nan"),
        ({"tau": 1.0}, "tau: found 1.0"),
        ({"tau": float("nan")}, "tau: found nan"),
        ({"tau": -0.9}, "tau"),  # three modalities cannot all be opposed to each other
        ({"mechanism": "mrar"}, "did you mean 'mar'"),
        ({"family": "gausian"}, "did you mean 'gaussian'"),
        ({"seed": -1}, "seed: found -1"),
        ({"dim": 0}, "dim: found 0"),
        ({"components": 0}, "components: found 0"),
        ({"separation": 2.5}, "separation: found 2.5"),
        ({"prevalence": 0.0}, "prevalence: found 0.0"),
        ({"classes": 1}, "classes: found 1"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path, options: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        simulate(tmp_path / "deep" / "out", SimulationSettings(**options))  # type: ignore[arg-type]
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_only_when_asked_and_only_one_of_ours(tmp_path: Path) -> None:
    settings = SimulationSettings(samples=10)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="mine"):
            simulate(tmp_path / "mine", settings, overwrite)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}
    simulate(tmp_path / "out", settings)
    with pytest.raises(ConfigError, match="--overwrite"):
        simulate(tmp_path / "out", settings)
    simulate(tmp_path / "out", SimulationSettings(samples=12), overwrite=True)
    assert len(manifest(tmp_path / "out")) == 12


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> Callable[..., object]:
        raise OSError("disk full")

    monkeypatch.setattr(simulation, "images", fails)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path / "out", SimulationSettings(samples=10))
    assert not list(tmp_path.iterdir())

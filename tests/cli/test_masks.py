"""Masks as a user asks for them: `missingness.mask` of a fit, `evaluate --missing`, and the files that hold them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cm2pyro.api import CM2
from tests.cli.commands import call, done, refused

pytestmark = pytest.mark.slow

NAMES = ["series", "image", "note"]
CONFIG = {
    "modalities": {
        "series": {"kind": "timeseries", "encoder": "summary", "table": "series.parquet", "hidden": 4},
        "image": {"kind": "embedding", "encoder": "mlp", "column": "latent_image", "hidden": 4},
        "note": {"kind": "text", "encoder": "bag", "max_tokens": 32, "vocabulary": 300, "hidden": 4},
    },
    "latent": {"dim": 2},
    "prior": {"components": 2},
    "fusion": {"kind": "mlp", "hidden": 4},
    "missingness": {"mask": "mar:0.5@image,note"},
    "fit": {"epochs": 2, "batch_size": 64, "restarts": 1, "seed": 3},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with simulated data, config.yaml and a finished run under a mask."""
    folder = tmp_path_factory.mktemp("masks")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    done("simulate", folder / "data", "--samples", 240, "--missing", 0.1)
    done("fit", folder / "config.yaml", "--data", folder / "data" / "manifest.csv", "--out", folder / "run")
    return folder


def natural(made: Path) -> pd.DataFrame:
    """What was simulated: 1 where a row has the modality, with its split, by sample."""
    frame = pd.read_csv(made / "data" / "manifest.csv", dtype=str, keep_default_na=False).set_index("sample_id")
    return pd.DataFrame({name: (frame[f"latent_{name}"] != "").astype(int) for name in NAMES}).assign(split=frame["split"])


# --- fit -----------------------------------------------------------------------------------------------------------


def test_a_fit_says_and_saves_what_it_hid(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "fit", made / "config.yaml", "--data", made / "data" / "manifest.csv", "--out", tmp_path / "run")
    assert code == 0
    assert (tmp_path / "run" / "mask.csv").read_bytes() == (made / "run" / "mask.csv").read_bytes()
    mask = pd.read_csv(made / "run" / "mask.csv")
    assert list(mask.columns) == ["sample_id", *NAMES]
    before = natural(made)
    rows = before[before["split"] != "test"]
    assert set(mask["sample_id"]) == set(rows.index)
    had, kept = rows.loc[mask["sample_id"], NAMES].to_numpy(), mask[NAMES].to_numpy()
    assert (kept <= had).all()
    assert (kept[:, 0] == had[:, 0]).all()
    share = kept.sum(0) / had.sum(0)
    assert share[1:] == pytest.approx([0.5, 0.5], abs=5 * np.sqrt(0.25 / had[:, 1:].sum(0).min()))
    expected = ", ".join(f"{name} {value:.0%}" for name, value in zip(NAMES, share, strict=True))
    assert f"mask mar:0.5@image,note, seed 3; left of what the rows of train and val have: {expected}\n" in out
    train = kept[rows.loc[mask["sample_id"], "split"].to_numpy() == "train"].mean(0)
    assert "observed in train: " + ", ".join(f"{name} {value:.0%}" for name, value in zip(NAMES, train, strict=True)) in out


def test_a_resumed_fit_has_the_same_mask_and_refuses_another(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = made / "data" / "manifest.csv", tmp_path / "run"
    arguments = ["fit", made / "config.yaml", "--data", data, "--out", run]
    assert call(capsys, *arguments)[0] == 0
    mask = (run / "mask.csv").read_bytes()
    weights = (run / "checkpoints" / "best.safetensors").read_bytes()
    assert call(capsys, *arguments, "--set", "fit.epochs=3", "--resume")[0] == 0
    assert (run / "mask.csv").read_bytes() == mask
    again = CM2.load(run)
    again.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "mask.csv").read_bytes() == mask
    line = refused(capsys, 2, *arguments, "--resume", "--set", "missingness.mask=null")
    assert "missingness.mask is None, and the run in" in line
    (run / "mask.csv").write_bytes(mask.replace(b",1,", b",0,", 1))
    assert "not those that the run" in refused(capsys, 1, *arguments, "--set", "fit.epochs=3", "--resume")
    # Starting anew without a mask leaves none behind.
    assert call(capsys, *arguments, "--overwrite", "--set", "missingness.mask=null", "--set", "fit.epochs=1")[0] == 0
    assert not (run / "mask.csv").exists()
    assert (run / "checkpoints" / "best.safetensors").read_bytes() != weights


def test_the_fit_reads_nothing_of_what_was_hidden(made: Path) -> None:
    """Vectors that a mask hides may change places among themselves; those that it keeps may not."""
    frame = pd.read_csv(made / "data" / "manifest.csv", dtype=str, keep_default_na=False)
    modalities = {name: {"kind": "embedding", "encoder": "mlp", "column": f"latent_{name}", "hidden": 4} for name in NAMES}
    config = CONFIG | {"modalities": modalities, "missingness": {"mask": "mcar:0.4@image,note"}}
    masked = CM2.from_config(config).fit(frame)
    assert masked.mask is not None
    kept = masked.mask.set_index("sample_id").reindex(frame["sample_id"])["note"].to_numpy()
    there = (frame["latent_note"] != "") & (frame["split"] == "train")
    losses = []
    for state in (0, 1):
        rows = np.flatnonzero(there & (kept == state))
        assert len(rows) > 20
        turned = frame.copy()
        turned.loc[rows, "latent_note"] = np.roll(frame["latent_note"].to_numpy()[rows], 1)  # the scaling stays as it is
        again = CM2.from_config(config).fit(turned)
        assert again.mask is not None
        assert again.mask.equals(masked.mask)
        losses.append(np.abs(np.array([a["val_log_loss"] - b["val_log_loss"] for a, b in zip(again.history, masked.history, strict=True)])))
    assert losses[0].max() < 1e-6
    assert losses[1].max() > 1e-4


@pytest.mark.parametrize(
    ("mask", "code", "says"),
    [
        ("mar:0.5@imgae", 2, "missingness.mask mar:0.5@imgae: no modality 'imgae'; did you mean 'image'?"),
        ("mr:0.5", 2, "missingness.mask mr:0.5: unknown mechanism 'mr'; did you mean 'mar'?"),
        ("mcar:1@note", 2, "missingness.mask mcar:1@note: hides 'note' in every training row"),
        ("only:series", 2, "missingness.mask only:series: hides 'image' in every training row"),
        ("[1]", 2, "missingness.mask: Input should be a valid string; found [1]"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: str, code: int, says: str
) -> None:
    arguments = ["fit", made / "config.yaml", "--data", made / "data" / "manifest.csv", "--out", tmp_path / "run"]
    assert says in refused(capsys, code, *arguments, "--set", f"missingness.mask={mask}")
    assert not (tmp_path / "run").exists()


# --- evaluate ------------------------------------------------------------------------------------------------------

MECHANISMS = ["mcar:0.5", "mcar:0.5@note", "mar:0.5", "mar:0.3@series,note", "mnar:0.5@image", "mnar:0.5", "only:note", "without:image"]


def evaluated(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mechanisms: list[str], *options: object
) -> tuple[dict, pd.DataFrame, str]:
    metrics, masks = tmp_path / "metrics.json", tmp_path / "masks.csv"
    named = [part for mechanism in mechanisms for part in ("--missing", mechanism)]
    arguments = ["evaluate", made / "run", "--data", made / "data" / "manifest.csv", "--out", metrics, "--bootstrap", 0, "--draws", 2]
    code, out, err = call(capsys, *arguments, *named, "--masks", masks, *options)
    assert code == 0, err
    return json.loads(metrics.read_text()), pd.read_csv(masks), out


def test_evaluate_under_every_mechanism_writes_the_masks_it_used(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, masks, out = evaluated(made, tmp_path, capsys, MECHANISMS)
    assert list(metrics["missing"]) == MECHANISMS
    assert list(masks.columns) == ["sample_id", "mechanism", *NAMES]
    assert masks["mechanism"].unique().tolist() == ["as observed", *MECHANISMS]
    assert f"masks written to {tmp_path / 'masks.csv'}" in out
    before = natural(made)
    before = before.loc[before["split"] == "test", NAMES]
    of = {mechanism: table.set_index("sample_id")[NAMES] for mechanism, table in masks.groupby("mechanism")}
    assert of["as observed"].equals(before)
    for mechanism in MECHANISMS:
        assert (of[mechanism] <= before).all(axis=None)
        assert (of[mechanism] < before).any(axis=None)
    assert of["mcar:0.5"]["note"].equals(of["mcar:0.5@note"]["note"])
    assert of["mcar:0.5@note"][["series", "image"]].equals(before[["series", "image"]])
    assert of["mar:0.5"]["series"].equals(before["series"])
    assert of["mar:0.3@series,note"]["image"].equals(before["image"])
    assert of["mnar:0.5@image"]["image"].equals(of["mnar:0.5"]["image"])


def test_the_mask_seed_is_the_runs_unless_given(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["mcar:0.5", "mar:0.5", "mnar:0.5@note", "only:note"]
    _, own, _ = evaluated(made, tmp_path, capsys, few)
    _, same, _ = evaluated(made, tmp_path, capsys, few, "--mask-seed", 3)
    _, other, _ = evaluated(made, tmp_path, capsys, few, "--mask-seed", 4)
    assert own.equals(same)
    changed = (own[NAMES] != other[NAMES]).any(axis=1).groupby(own["mechanism"]).any()
    assert changed.to_dict() == {name: name in few[:3] for name in ["as observed", *few]}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--missing", "mar:0.5@imgae"], "--missing mar:0.5@imgae: no modality 'imgae'; did you mean 'image'? known: image, note, series"),
        (["--missing", "mar:0.5@series,image,note"], "leave one out"),
        (["--missing", "mnar:two"], "'two' is not a probability; write for example mnar:0.5"),
        (["--missing", "onyl:note"], "unknown mechanism 'onyl'; did you mean 'only'?"),
        (["--missing", "mcar:0.5\nx"], "'0.5 x' is not a probability"),
        (["--mask-seed", "-1"], "--mask-seed"),
        (["--mask-seed", "x"], "--mask-seed"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], says: str
) -> None:
    arguments = ["evaluate", made / "run", "--data", made / "data" / "manifest.csv", "--out", tmp_path / "m.json"]
    assert says in refused(capsys, 2, *arguments, *option)
    assert not list(tmp_path.iterdir())


def test_masks_that_cannot_be_written(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", made / "run", "--data", made / "data" / "manifest.csv", "--out", tmp_path / "m.json"]
    assert "cannot be written" in refused(capsys, 1, *arguments, "--masks", tmp_path / "none" / "masks.csv")
    assert not list(tmp_path.iterdir())

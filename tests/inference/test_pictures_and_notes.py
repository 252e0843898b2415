"""Fits to pictures and notes: modules given from Python, runs that are loaded, resumed and asked about patients who lack everything."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cm2pyro import CM2
from cm2pyro.cli import main
from cm2pyro.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients; a bright picture and the word fever go with the label."""
    root = tmp_path_factory.mktemp("patients")
    random = np.random.default_rng(0)
    rows = []
    for i in range(40):
        label = int(random.integers(0, 2))
        picture, note = "", ""
        if i % 5 != 1:
            picture = f"p{i}.png"
            levels = random.integers(0, 128, (SIZE + 5, SIZE + 9)) + 100 * label
            Image.fromarray(levels.astype(np.uint8)).save(root / picture)
        if i % 7 != 2:
            note = f"cough since day {i % 4}" + (" and fever" if label else "")
        if i % 6 == 3:
            pd.DataFrame({"hours": [2.0, 1.0], "text": [note or "seen again", "came in"]}).to_csv(root / f"n{i}.csv", index=False)
            note = f"n{i}.csv"
        rows.append((f"s{i}", f"p{i}", "train" if i < 28 else "val" if i < 34 else "test", label, picture, note))
    pd.DataFrame(rows, columns=["sample_id", "subject_id", "split", "label", "image", "note"]).to_csv(root / "manifest.csv", index=False)
    return root


def settings(image: dict[str, Any] | None = None, note: dict[str, Any] | None = None, **fit: Any) -> dict[str, Any]:
    return {
        "modalities": {
            "image": {"kind": "image", "encoder": "cnn", "size": SIZE, "resize": SIZE + 4, "width": 2, **(image or {})},
            "note": {"kind": "text", "encoder": "bag", "vocabulary": 300, "max_tokens": 12, "hidden": 8, **(note or {})},
        },
        "latent": {"dim": 3},
        "fit": {"epochs": 2, "batch_size": 8, "restarts": 1, **fit},
    }


RESNET = {"kind": "image", "encoder": "resnet18", "size": SIZE, "resize": SIZE + 4}
TINY = {
    "kind": "text",
    "encoder": "tinybert",
    "layers": 1,
    "hidden": 24,
    "heads": 2,
    "vocabulary": 300,
    "max_tokens": 12,
    "pool": "attention",
}


def with_encoders(image: dict[str, Any], note: dict[str, Any]) -> dict[str, Any]:
    made = settings()
    made["modalities"] = {"image": image, "note": note}
    return made


def variants(folder: Path) -> dict[str, Path]:
    """Manifests for prediction in which more and more is absent."""
    frame = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    made = {
        "whole": frame,
        "no image": frame.assign(image=""),
        "no column image": frame.drop(columns="image"),
        "no column note": frame.drop(columns="note"),
        "ids alone": frame[["sample_id"]],
        "one row": frame.iloc[[5]],
    }
    for name, table in made.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in made}


@pytest.mark.parametrize("kind", ["small", pytest.param("large", marks=pytest.mark.slow)])
def test_a_loaded_run_predicts_as_the_fit_did_whatever_is_absent(tmp_path: Path, folder: Path, kind: str) -> None:
    config = settings() if kind == "small" else with_encoders(RESNET, TINY)
    model = CM2.from_config(config).fit(folder / "manifest.csv", out=tmp_path / "run", device="cpu")
    loaded = CM2.load(tmp_path / "run")
    found = {}
    for name, path in variants(folder).items():
        found[name] = loaded.predict(path, draws=20)
        pd.testing.assert_frame_equal(found[name], model.predict(path, draws=20))
        assert found[name]["probability"].between(0, 1).all()
    pd.testing.assert_frame_equal(found["no image"], found["no column image"])
    assert not found["no image"]["observed"].str.contains("image").any()
    assert (found["ids alone"]["missing"] == "image;note").all()
    assert found["ids alone"]["probability"].nunique() == 1
    # A row by itself, up to the rounding of another batch size.
    whole = found["whole"].iloc[5]
    assert found["one row"]["probability"].iloc[0] == pytest.approx(whole["probability"], abs=1e-5)
    # Rows that never had a picture are as if nobody had one, to the last bit.
    never = ~found["whole"]["observed"].str.contains("image")
    assert never.any()
    pd.testing.assert_frame_equal(found["whole"][never], found["no image"][never])


@pytest.mark.slow
def test_a_resumed_fit_is_the_fit_that_was_not_stopped(tmp_path: Path, folder: Path) -> None:
    config = with_encoders({**RESNET, "dropout": 0.1}, TINY)
    config["fit"]["epochs"] = 3
    whole = CM2.from_config(config).fit(folder / "manifest.csv", out=tmp_path / "whole", device="cpu")
    config["fit"]["epochs"] = 1
    CM2.from_config(config).fit(folder / "manifest.csv", out=tmp_path / "run", device="cpu")
    config["fit"]["epochs"] = 3
    resumed = CM2.from_config(config).fit(folder / "manifest.csv", out=tmp_path / "run", device="cpu", resume=True)
    pd.testing.assert_frame_equal(resumed.predict(folder / "manifest.csv"), whole.predict(folder / "manifest.csv"))


def test_the_same_seed_gives_the_same_fit(folder: Path) -> None:
    one, two = (CM2.from_config(settings()).fit(folder / "manifest.csv", device="cpu").predict(folder / "manifest.csv") for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_a_picture_is_encoded_once_however_many_mixtures_are_drawn(folder: Path) -> None:
    config = settings()
    config["guide"] = {"globals": "normal"}
    model = CM2.from_config(config).fit(folder / "manifest.csv", device="cpu")
    model.reference = None
    calls: list[int] = []
    model.program.guide.encoders()[0].register_forward_hook(lambda module, given, out: calls.append(len(out)))
    model.predict(folder / "manifest.csv", draws=10)
    assert calls == [40]


class Words(nn.Module):
    """A user's own: the mean of token vectors over all notes."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(301, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        assert tokens.dtype == torch.long
        there = (tokens >= 0)[..., None]
        return (self.vectors(tokens + 1) * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)


def picture_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_modules_given_from_python_read_pictures_and_notes(tmp_path: Path, folder: Path) -> None:
    torch.manual_seed(0)
    config = settings()
    for modality in config["modalities"].values():
        modality.pop("width", None), modality.pop("hidden", None)
    model = CM2.from_config(config, encoders={"image": picture_net(), "note": Words()})
    model.fit(folder / "manifest.csv", out=tmp_path / "run", device="cpu")
    expected = model.predict(folder / "manifest.csv")
    assert expected["probability"].nunique() > 5
    loaded = CM2.load(tmp_path / "run", encoders={"image": picture_net(), "note": Words()})
    for path in variants(folder).values():
        pd.testing.assert_frame_equal(loaded.predict(path), model.predict(path))


@pytest.mark.parametrize(
    ("name", "net", "says"),
    [
        ("image", nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), "cannot read the view 'pixels'"),
        ("image", nn.Conv2d(3, 4, 5), "expected features of shape"),
        ("note", nn.Embedding(300, 4), "cannot read the view 'tokens'"),
        ("picture", nn.Identity(), "the config has no such modality; known: image, note"),
    ],
)
def test_modules_that_cannot_read_are_refused_in_one_line(folder: Path, name: str, net: nn.Module, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        CM2.from_config(settings(), encoders={name: net}).fit(folder / "manifest.csv", device="cpu")
    assert len(str(caught.value).splitlines()) == 1


# --- the commands ----------------------------------------------------------------------------------------------------

YAML = f"""
modalities:
  image: {{kind: image, encoder: resnet18, size: {SIZE}, resize: {SIZE}}}
  note: {{kind: text, encoder: tinybert, layers: 1, hidden: 24, heads: 2, vocabulary: 300, max_tokens: 12}}
latent: {{dim: 3}}
fit: {{epochs: 1, batch_size: 16, restarts: 1}}
"""


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_data_check_counts_pictures_and_notes_without_a_fit(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(YAML)
    assert command("data", "check", folder / "manifest.csv", "--config", tmp_path / "c.yaml") == 0
    out = capsys.readouterr().out
    frame = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    image, note = frame["image"] != "", frame["note"] != ""
    for line in (
        f"modality image: {image.sum()} of 40 rows",
        f"modality note: {note.sum()} of 40 rows",
        f"  image + note: {(image & note).sum()} rows",
        f"  note: {(~image & note).sum()} rows",
        "no problem found",
    ):
        assert line in out
    for name in ("no column image", "ids alone"):
        assert command("data", "check", variants(folder)[name], "--config", tmp_path / "c.yaml") == 0
        assert "modality image: 0 of 40 rows (0.0%)" in capsys.readouterr().out


def test_commands_refuse_bad_pictures_and_notes_in_one_line(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(YAML)
    frame = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (folder / "latin.txt").write_bytes("fièvre".encode("latin-1"))
    for column, cell, says in (("image", "cut.jpg", "cannot be read as a picture"), ("note", "latin.txt", "not UTF-8 text")):
        wrong = frame.copy()
        wrong.loc[4, column] = cell
        wrong.to_csv(folder / "wrong.csv", index=False)
        for arguments in (
            ("data", "check", folder / "wrong.csv", "--config", tmp_path / "c.yaml"),
            ("fit", tmp_path / "c.yaml", "--data", folder / "wrong.csv", "--out", tmp_path / "run"),
        ):
            assert command(*arguments) == 1
            err = capsys.readouterr().err.strip().splitlines()
            assert len(err) == 1, err
            for part in (cell, "wrong.csv, row 6 (sample_id s4)", says):
                assert part in err[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("modalities.image.encoder", "resnet81", "unknown encoder 'resnet81'"),
        ("modalities.image.encoder", "tinybert", "cannot read kind image"),
        ("modalities.note.encoder", "resnet18", "cannot read kind text"),
        ("modalities.image.weights", "gone.pth", "'gone.pth' is not there"),
        ("modalities.note.weights", "gone", "'gone' is not there"),
        ("modalities.image.tune", "last:40", "blocks"),
        ("modalities.image.sice", "64", "did you mean 'size'"),
        ("modalities.note.heads", "7", "expected a multiple"),
        ("modalities.note.vocabulary", "20", "modalities.note.vocabulary"),
        ("modalities.image.encoder", "vit_b_16", "cannot be made for size 40"),
    ],
)
def test_wrong_configs_exit_with_2_and_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], key: str, value: str, says: str
) -> None:
    (tmp_path / "c.yaml").write_text(YAML)
    sets = [f"{key}={value}"] + (["modalities.image.size=40", "modalities.image.resize=40"] if "vit" in value else [])
    flags = [part for one in sets for part in ("--set", one)]
    code = command("fit", tmp_path / "c.yaml", "--data", folder / "manifest.csv", "--out", tmp_path / "run", "--device", "cpu", *flags)
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert says in err[0]
    assert code == 2
    assert not (tmp_path / "run").exists()


def test_a_modality_that_no_training_row_has_is_refused(folder: Path) -> None:
    frame = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    for column in ("image", "note"):
        missing = frame.copy()
        missing.loc[missing["split"] == "train", column] = ""
        missing.to_csv(folder / "lacks.csv", index=False)
        with pytest.raises(DataError, match=f"modality '{column}' .* is missing in every training row"):
            CM2.from_config(settings()).fit(folder / "lacks.csv", device="cpu")

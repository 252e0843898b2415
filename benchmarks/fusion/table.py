"""The comparison: fits every method with every seed, and saves what each predicts under every test mask.

    python benchmarks/fusion/table.py --train A/manifest.csv --folds 5 --config configs/physionet2012.yaml --seeds 5 --out runs/fusion-cv
    python benchmarks/fusion/table.py --train A/manifest.csv --test B/manifest.csv --seeds 5 --out runs/fusion
    python benchmarks/fusion/report.py runs/fusion

One fit per method, seed and fold serves all masks; the masks are drawn once per table and are the same for all. A fit that is there
already is not repeated, so the command can be cut and run again, with more methods or seeds. Nothing is scored here.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

# Run as a file, the folder of this file is where imports begin; they begin at the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2]) if __name__ == "__main__" else sys.path[0]

from benchmarks.fusion.boosting import READABLE  # noqa: E402
from benchmarks.fusion.folds import NATURAL, Fold, Mask, complete, divide, labelled, make_fold, make_masks, whole  # noqa: E402
from benchmarks.fusion.methods import check_method, fit_method, known_methods  # noqa: E402
from cm2pyro.config import Config  # noqa: E402
from cm2pyro.data.kinds import KINDS  # noqa: E402
from cm2pyro.data.manifest import Manifest, read_manifest  # noqa: E402
from cm2pyro.encoders import ENCODERS  # noqa: E402
from cm2pyro.errors import CM2Error, ConfigError  # noqa: E402
from cm2pyro.files import atomic, write_text  # noqa: E402

_SHARES = (0.3, 0.5, 0.7)
_MASKS = (
    NATURAL,
    *(f"{mechanism}:{share}@labs,gases" for mechanism in ("mcar", "mar", "mnar") for share in _SHARES),
    "without:labs,gases",
    "only:vitals",
)
SETTINGS, FITS, MASKS = "settings.json", "fits", "masks.parquet"


@click.command(help=__doc__)
@click.option("--train", "train_path", type=click.Path(path_type=Path), required=True, help="Manifest to fit on.")
@click.option("--test", "test_path", type=click.Path(path_type=Path), help="Manifest to score; without it, cross-validation over --train.")
@click.option("--folds", type=int, default=5, show_default=True, help="Of the cross-validation.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=Path("configs/physionet2012.yaml"), show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the config, for all methods.")
@click.option("--encoder", help="Encoder of all time series in place of the config's, such as lstm.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--methods", help="Names with commas between; by default all, networks with and without +dropout.")
@click.option(
    "--mask", "mechanisms", multiple=True, metavar="MECHANISM", help="Test mask, may be repeated; by default all of the comparison."
)
@click.option("--mask-seed", type=int, default=0, show_default=True)
@click.option("--train-mask", metavar="MECHANISM", help="Hide modalities of the rows that are fitted on.")
@click.option("--complete-cases", is_flag=True, help="Only rows that have all modalities, in training and in test.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder, made if need be.")
def main(
    train_path: Path,
    test_path: Path | None,
    folds: int,
    config_path: Path,
    overrides: tuple[str, ...],
    encoder: str | None,
    seeds: int,
    methods: str | None,
    mechanisms: tuple[str, ...],
    mask_seed: int,
    train_mask: str | None,
    complete_cases: bool,
    out: Path,
) -> None:
    torch.set_num_threads(1)
    try:
        config = Config.from_file(config_path, overrides)
        config = config if encoder is None else with_encoder(config, encoder)
        if config.task.type != "binary":
            raise ConfigError(f"{config_path}: task is {config.task.type}; the comparison is written for binary")
        chosen = methods.split(",") if methods else default_methods(config, complete_cases)
        for method in chosen:
            check_method(method, tuple(config.modalities))
        tested = (NATURAL,) if complete_cases and not mechanisms else mechanisms or _MASKS
        settings = {
            "train": train_path.name if test_path is None else f"{train_path.parent.name}/{train_path.name}",
            "test": None if test_path is None else f"{test_path.parent.name}/{test_path.name}",
            "folds": folds if test_path is None else None,
            "config": config.to_dict(),
            "masks": list(tested),
            "mask_seed": mask_seed,
            "train_mask": train_mask,
            "complete_cases": complete_cases,
        }
        open_folder(out, settings)
        run(config, train_path, test_path, settings, chosen, seeds, out)
    except CM2Error as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def default_methods(config: Config, complete_cases: bool) -> list[str]:
    """All methods that can read the data, those that differ by it with and without modality dropout; with complete cases the two that
    ask about the copula.
    """
    if complete_cases:
        return ["ours", "ours_independence"]
    skipped = ["ours_ensemble", "ours_independence", "truth"]
    skipped += [] if all(modality.kind in READABLE for modality in config.modalities.values()) else ["boosting"]
    plain = [name for name in known_methods(tuple(config.modalities)) if name not in skipped]
    alone = [name for name in plain if name.startswith("only_")]
    return [*(both for name in plain if name not in alone for both in (name, f"{name}+dropout")), *alone]


def with_encoder(config: Config, encoder: str) -> Config:
    """The config with another encoder for all time series; options that it does not know are left out. Raises ConfigError."""
    raw = config.to_dict()
    known = {*ENCODERS.keywords(encoder, "--encoder"), *KINDS.keywords("timeseries")}
    for name, modality in config.modalities.items():
        if modality.kind == "timeseries":
            kept = {key: value for key, value in raw["modalities"][name].items() if key not in modality.options or key in known}
            raw["modalities"][name] = kept | {"encoder": encoder}
    return Config.from_dict(raw)


def open_folder(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or check that it holds the same table. Raises ConfigError."""
    (out / FITS).mkdir(parents=True, exist_ok=True)
    path = out / SETTINGS
    if not path.exists():
        write_text(path, json.dumps(settings, indent=1))
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if before.get(key) != value:
            raise ConfigError(f"{path}: holds a table with another '{key}'; expected the same settings; name another --out")


def run(
    config: Config, train_path: Path, test_path: Path | None, settings: dict[str, Any], methods: list[str], seeds: int, out: Path
) -> None:
    """All fits that are not there yet."""

    def opened(path: Path) -> Manifest:
        manifest = read_manifest(path)
        return complete(manifest, config) if settings["complete_cases"] else manifest

    source = opened(train_path)
    rows = labelled(source if test_path is None else opened(test_path), config)
    share = config.fit.validation
    masks = make_masks(config, whole(source, share), rows, settings["masks"], settings["mask_seed"])
    save_masks(out / MASKS, rows, masks, tuple(config.modalities))
    parts = divide(source, rows, settings["folds"], share) if test_path is None else [(whole(source, share), list(range(len(rows))))]
    for number, (fitting, held) in enumerate(parts):
        wanted = [(m, seed) for seed in range(seeds) for m in methods if not place(out, m, seed, number).exists()]
        if not wanted:
            continue
        kept = None
        if settings["train_mask"]:
            kept = make_masks(config, fitting, fitting, [settings["train_mask"]], settings["mask_seed"] + 1)[settings["train_mask"]]
        fold = make_fold(config, fitting, rows.take(held), kept)
        for method, seed in wanted:
            started = time.perf_counter()
            predicted = predictions(fold, method, seed, {name: mask[held] for name, mask in masks.items()})
            with atomic(place(out, method, seed, number)) as temporary:
                predicted.to_parquet(temporary, index=False)
            click.echo(f"fold {number} seed {seed} {method}: {time.perf_counter() - started:.0f} s", err=True)


def place(out: Path, method: str, seed: int, fold: int) -> Path:
    return out / FITS / f"{method}.seed{seed}.fold{fold}.parquet"


def predictions(fold: Fold, method: str, seed: int, masks: dict[str, Mask]) -> pd.DataFrame:
    """sample_id, subject_id, label of the fold's test rows, and a column of probabilities per mask."""
    predict = fit_method(method, fold, seed)
    columns: dict[str, Any] = {"sample_id": fold.test.ids, "subject_id": fold.test.subjects, "label": fold.test.labels.numpy()}
    return pd.DataFrame(columns | {name: predict(mask) for name, mask in masks.items()})


def save_masks(path: Path, rows: Manifest, masks: dict[str, Mask], names: tuple[str, ...]) -> None:
    """Per row and mask the modalities that are left, `;` between them."""
    shown = {name: [";".join(np.array(names)[row]) for row in mask] for name, mask in masks.items()}
    with atomic(path) as temporary:
        pd.DataFrame({"sample_id": rows.ids} | shown).to_parquet(temporary, index=False)


if __name__ == "__main__":
    main()

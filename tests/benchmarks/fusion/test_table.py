"""Folds, masks, the two commands and what they write."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from benchmarks.fusion import hidden, report, table
from benchmarks.fusion.folds import NATURAL, complete, divide, make_masks, whole
from cm2pyro.config import Config
from cm2pyro.data.manifest import Manifest
from cm2pyro.errors import DataError

pytestmark = pytest.mark.slow


def test_folds_share_no_subject(manifest: Manifest) -> None:
    parts = divide(manifest, manifest, 3, 0.2)
    assert sorted(i for _, held in parts for i in held) == list(range(len(manifest)))
    for fitting, held in parts:
        by_split = [{manifest.subjects[i] for i in held}]
        by_split += [{fitting.subjects[i] for i in fitting.rows(split)} for split in ("train", "val")]
        assert not by_split[0] & by_split[1]
        assert not by_split[1] & by_split[2]
        assert not by_split[0] & by_split[2]
        assert len(by_split[2]) == pytest.approx(0.2 * (len(by_split[1]) + len(by_split[2])), abs=1)
        assert fitting.frame["split"].tolist() == ["train"] * len(fitting.rows("train")) + ["val"] * len(fitting.rows("val"))


def test_a_fit_may_hold_nobody_out(manifest: Manifest) -> None:
    fitting, held = divide(manifest, manifest, 2, 0.0)[0]
    assert set(fitting.frame["split"]) == {"train"}
    assert len(fitting) + len(held) == len(manifest)
    assert len(whole(manifest, 0.0)) == len(manifest)


def test_masks_hide_their_targets_alone(config: Config, manifest: Manifest) -> None:
    names = [NATURAL, "mcar:0.7@b,c", "without:b,c", "only:b"]
    seen, mcar, without, only = (make_masks(config, whole(manifest, 0.2), manifest, names, 0)[name] for name in names)
    assert (mcar[:, 0] == seen[:, 0]).all()
    assert mcar[:, 1].sum() == pytest.approx(0.3 * seen[:, 1].sum(), abs=4 * (0.21 * seen[:, 1].sum()) ** 0.5)
    assert not without[:, 1:].any()
    assert (without[:, 0] == seen[:, 0]).all()
    assert (only == seen & [False, True, False]).all()
    assert (make_masks(config, whole(manifest, 0.2), manifest, names, 0)["mcar:0.7@b,c"] == mcar).all()
    mnar = make_masks(config, whole(manifest, 0.2), manifest, ["mnar:0.5@b"], 0)["mnar:0.5@b"]
    labels = manifest.frame["label"].to_numpy() == "1"
    hidden = seen[:, 1] & ~mnar[:, 1]
    assert (mnar[:, [0, 2]] == seen[:, [0, 2]]).all()
    # The outcome adds 1 to the log odds of being hidden, and the modality's own content goes the same way.
    assert hidden[labels].sum() / seen[labels, 1].sum() > hidden[~labels].sum() / seen[~labels, 1].sum()


def test_complete_rows_have_everything(config: Config, manifest: Manifest) -> None:
    masks = make_masks(config, whole(manifest, 0.2), manifest, [NATURAL], 0)
    assert complete(manifest, config).ids == [sample for sample, row in zip(manifest.ids, masks[NATURAL], strict=True) if row.all()]


def test_another_encoder_keeps_the_options_that_it_knows(config: Config) -> None:
    changed = table.with_encoder(config, "lstm").modalities
    assert changed["a"].encoder == "lstm"
    assert changed["a"].options == {"hidden": 8, "dropout": 0.1}
    assert changed["c"] == config.modalities["c"]


def test_boosting_is_left_out_where_it_cannot_read(config: Config) -> None:
    assert {"ours", "boosting", "concat+dropout", "only_c"} <= set(table.default_methods(config, False))
    raw = config.to_dict()
    raw["modalities"]["c"] = {"kind": "image", "encoder": "cnn"}
    assert not {"boosting", "boosting+dropout"} & set(table.default_methods(Config.from_dict(raw), False))
    assert table.default_methods(config, True) == ["ours", "ours_independence"]


@pytest.fixture(scope="module")
def made(config: Config, manifest_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    folder = tmp_path_factory.mktemp("table")
    (folder / "config.yaml").write_text(yaml.dump(config.to_dict()))
    arguments = ["--train", str(manifest_path), "--config", str(folder / "config.yaml"), "--out", str(folder / "out")]
    arguments += ["--folds", "2", "--seeds", "2", "--mask", NATURAL, "--mask", "mcar:0.7@b,c", "--set", "fit.epochs=2"]
    result = CliRunner().invoke(table.main, [*arguments, "--methods", "ours,concat,only_c"])
    assert result.exit_code == 0, result.output
    return arguments, folder / "out"


def test_a_cut_table_goes_on_where_it_was(made: tuple[list[str], Path]) -> None:
    arguments, out = made
    fits = sorted((out / "fits").iterdir())
    assert len(fits) == 3 * 2 * 2
    before = [path.stat().st_mtime_ns for path in fits[1:]]
    again = pd.read_parquet(fits[0])
    fits[0].unlink()
    assert CliRunner().invoke(table.main, [*arguments, "--methods", "ours,concat,only_c"]).exit_code == 0
    assert [path.stat().st_mtime_ns for path in fits[1:]] == before
    pd.testing.assert_frame_equal(pd.read_parquet(fits[0]), again)


@pytest.mark.parametrize(
    ("method", "options"),
    [("concat", ["--train-mask", "mcar:0.5@b,c", "--encoder", "lstm"]), ("ours", ["--complete-cases"])],
    ids=["train under a mask, with an LSTM", "complete cases"],
)
def test_a_test_set_of_its_own(
    method: str, options: list[str], config: Config, manifest: Manifest, manifest_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.dump(config.to_dict()))
    arguments = ["--train", str(manifest_path), "--test", str(manifest_path), "--config", str(tmp_path / "config.yaml")]
    arguments += ["--seeds", "1", "--mask", NATURAL, "--set", "fit.epochs=1", "--out", str(tmp_path / "out"), "--methods", method]
    result = CliRunner().invoke(table.main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    expected = complete(manifest, config) if "--complete-cases" in options else manifest
    frame = pd.read_parquet(tmp_path / "out" / "fits" / f"{method}.seed0.fold0.parquet")
    assert frame["sample_id"].tolist() == expected.ids
    assert frame[NATURAL].between(0, 1).all()


def test_other_settings_are_refused(made: tuple[list[str], Path]) -> None:
    arguments, _ = made
    result = CliRunner().invoke(table.main, [*arguments, "--methods", "concat", "--set", "fit.epochs=3"])
    assert result.exit_code == 2
    assert "another 'config'" in result.output
    assert CliRunner().invoke(table.main, [*arguments, "--methods", "conkat"]).exit_code == 2


def test_the_report_scores_what_was_saved(made: tuple[list[str], Path]) -> None:
    _, out = made
    result = CliRunner().invoke(report.main, [str(out), "--ensemble", "ours", "--bootstrap", "50"])
    assert result.exit_code == 0, result.output
    found = pd.read_csv(out / "report.csv").set_index(["mask", "method", "metric"])
    scores: dict[str, list[list[float]]] = {}
    for method in ("ours", "concat"):
        for seed in range(2):
            frame = pd.concat(pd.read_parquet(out / "fits" / f"{method}.seed{seed}.fold{fold}.parquet") for fold in range(2))
            y, p = frame["label"], frame["mcar:0.7@b,c"]
            both = [roc_auc_score(y, p), average_precision_score(y, p), log_loss(y, p), ((p - y) ** 2).mean()]
            scores.setdefault(method, []).append(both)
    for j, metric in enumerate(report.METRICS):
        row = found.loc["mcar:0.7@b,c", "concat", metric]
        ours, theirs = (np.array(scores[method])[:, j] for method in ("ours", "concat"))
        assert row["mean"] == pytest.approx(theirs.mean(), abs=1e-5)
        assert row["sd"] == pytest.approx(theirs.std(ddof=1), abs=1e-5)
        assert row["difference"] == pytest.approx((theirs - ours).mean(), abs=2e-5)
        assert row["low"] <= row["difference"] <= row["high"]
    assert ("as observed", "ours (mean of 2)", "auroc") in found.index
    text = (out / "report.md").read_text()
    assert "### mcar:0.7@b,c" in text
    assert json.loads((out / "settings.json").read_text())["folds"] == 2


def test_means_of_predictions(made: tuple[list[str], Path]) -> None:
    _, out = made
    results = report.with_ensembles(report.read(out), ["ours", "ours,concat"])
    ours, concat = (results.predictions[method] for method in ("ours", "concat"))
    both = results.predictions["ours and concat (mean of them)"]
    assert set(both) == {0, 1}
    np.testing.assert_allclose(both[1][NATURAL], (ours[1][NATURAL] + concat[1][NATURAL]) / 2)
    np.testing.assert_allclose(results.predictions["ours (mean of 2)"][0][NATURAL], (ours[0][NATURAL] + ours[1][NATURAL]) / 2)
    # They take no part among the others.
    table_of = report.compare(results, "ours", 20)
    assert "mean of" not in report.markdown(table_of, results, "ours").split("###")[0]
    with pytest.raises(DataError, match="--ensemble nothing: no complete fit"):
        report.with_ensembles(results, ["ours,nothing"])


def test_where_a_modality_is_hidden(made: tuple[list[str], Path]) -> None:
    _, out = made
    result = CliRunner().invoke(hidden.main, [str(out), "--modality", "b", "--methods", "concat"])
    assert result.exit_code == 0, result.output
    cells = [cell.strip() for cell in result.output.splitlines()[2].strip("|").split("|")]
    assert cells[:2] == ["`mcar:0.7@b,c`", "`concat`"]
    seen = pd.read_parquet(out / table.MASKS).set_index("sample_id")
    frames = [
        pd.concat(pd.read_parquet(out / "fits" / f"concat.seed{seed}.fold{fold}.parquet") for fold in range(2)).set_index("sample_id")
        for seed in range(2)
    ]
    had, left = (seen.loc[frames[0].index, mask].str.contains("b") for mask in (NATURAL, "mcar:0.7@b,c"))
    means = [np.mean([frame.loc[part, "mcar:0.7@b,c"].mean() for frame in frames]) for part in (had & ~left, had & left)]
    rates = [frames[0].loc[part, "label"].mean() for part in (had & ~left, had & left)]
    assert [float(cell) for cell in cells[2:]] == pytest.approx([means[0], rates[0], means[1], rates[1]], abs=6e-4)
    refused = CliRunner().invoke(hidden.main, [str(out), "--modality", "a", "--methods", "concat"])
    assert refused.exit_code == 1
    assert "no mask hides 'a' of some rows" in refused.output


def test_the_paired_interval_is_that_of_the_differences() -> None:
    # Brier and log-loss are means over rows: with one row a subject the interval is that of a mean, ± 1.96 standard errors.
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 2000)
    p, q = random.uniform(0.2, 0.8, 2000), random.uniform(0.2, 0.8, 2000)
    results = report.Results(y, [str(i) for i in range(2000)], ("m",), {"ours": {0: {"m": p}}, "other": {0: {"m": q}}}, ())
    row = report.compare(results, "ours", 2000).set_index(["method", "metric"]).loc["other", "brier"]
    each = (q - y) ** 2 - (p - y) ** 2
    assert row["difference"] == pytest.approx(each.mean())
    # A quantile of 2,000 resamples is within a tenth of the half width.
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * each.std() / 2000**0.5, rel=0.1)


def test_the_command_runs_from_the_repository(root: Path) -> None:
    command = [sys.executable, "benchmarks/fusion/table.py", "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout

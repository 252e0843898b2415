"""Tables, choice and picture of records that were made up, so that every number can be worked out by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.plots import _numbers, draw
from cm2pyro.sweep.reference import Point, Reference
from cm2pyro.sweep.space import Axis, Choice, Range, drawn, every
from cm2pyro.sweep.table import Entry, Results


def record(loss: float, **further: float) -> dict[str, Any]:
    found = {"log_loss": loss, "auroc": 1 - loss} | further
    return {
        "status": "done",
        "seconds": 1.0,
        "epochs": 3,
        "best_epoch": 2,
        "val": {name: {"value": value, "low": value - 0.1, "high": value + 0.2} for name, value in found.items()},
    }


FAILED = {"status": "failed", "reason": "no memory"}


def asked(*axes: Axis, seeds: tuple[int, ...] = (0, 1), metric: str = "val_log_loss", **further: Any) -> Experiment:
    return Experiment("A test", "config.yaml", {}, axes, seeds, metric, further.pop("show", ("log_loss",)), **further)


def entries(values: list[Any], losses: list[list[float | None]], key: str = "prior.components") -> list[Entry]:
    return [
        Entry({key: value}, records={seed: FAILED if loss is None else record(loss) for seed, loss in enumerate(row)})
        for value, row in zip(values, losses, strict=True)
    ]


def test_the_choice_and_its_neighbours() -> None:
    experiment = asked(Choice("prior.components", (1, 2, 3, 4)))
    results = Results(experiment, entries([1, 2, 3, 4], [[0.5, 0.7], [0.4, 0.5], [0.1, None], [0.45, 0.45]]))
    assert [entry.setting["prior.components"] for entry in results.chosen] == [2]  # the first of equals; 3 has a failure
    table = results.settings().set_index("prior.components")
    assert list(table.index) == ["2", "4", "1", "3"]
    assert table["val_log_loss"].tolist() == pytest.approx([0.45, 0.45, 0.6, 0.1])
    assert table["val_log_loss_sd"].tolist()[:3] == pytest.approx([0.1 / math.sqrt(2), 0, 0.2 / math.sqrt(2)])
    # Paired by seed: 0.5 - 0.4 and 0.7 - 0.5, mean 0.15, sd 0.0707, of two.
    assert table.loc["1", ["difference", "se_difference"]].tolist() == pytest.approx([0.15, 0.05])
    assert table["failed"].tolist() == [0, 0, 0, 1]
    assert table["chosen"].tolist() == [1, 0, 0, 0]
    lines = results.lines()
    assert lines[0] == "validation rows:"
    assert lines[2].split() == ["2", "0.4500", "±", "0.0707", "+0.0000", "±", "0.0000", "chosen"]
    assert lines[5].endswith("1 failed")
    assert results.failures() == ["1 failed: no memory"]
    trials = results.trials()
    assert len(trials) == 8
    assert trials["status"].tolist().count("failed") == 1
    assert trials.loc[0, ["val_log_loss", "val_log_loss_low", "val_log_loss_high"]].tolist() == pytest.approx([0.5, 0.4, 0.7])


def test_greater_is_better_where_it_is() -> None:
    experiment = asked(Choice("prior.components", (1, 2)), metric="val_auroc")
    assert Results(experiment, entries([1, 2], [[0.3, 0.3], [0.4, 0.4]])).chosen[0].setting == {"prior.components": 1}


def test_nothing_is_chosen_among_failures() -> None:
    results = Results(asked(Choice("prior.components", (1, 2))), entries([1, 2], [[0.3, None], [None, None]]))
    assert results.chosen == []
    assert "difference" not in results.settings()
    assert results.lines()[-1].endswith("2 failed")


def test_masks_are_compared_each_for_itself() -> None:
    axes = (Choice("missingness.mask", ("mcar:0", "mcar:0.5")), Choice("fit.lr", (0.1, 0.2)))
    losses = [0.3, 0.4, 0.7, 0.6]
    found = [Entry(setting, records={0: record(loss)}) for setting, loss in zip(every(axes), losses, strict=True)]
    results = Results(asked(*axes, seeds=(0,)), found)
    assert [tuple(entry.setting.values()) for entry in results.chosen] == [("mcar:0", 0.1), ("mcar:0.5", 0.2)]
    assert results.settings()["difference"].tolist() == pytest.approx([0, 0.1, 0, 0.1])


def test_intervals() -> None:
    (entry,) = entries([1], [[0.4, 0.6]])
    assert entry.interval("val_log_loss", (0, 1)) == pytest.approx((0.5, 0.5 - 0.1 * math.sqrt(2), 0.5 + 0.1 * math.sqrt(2)))
    assert entry.interval("val_log_loss", (1,)) == pytest.approx((0.6, 0.5, 0.8))
    assert all(math.isnan(value) for value in entry.interval("test_log_loss", (0, 1)))


def test_published_numbers_stand_beside() -> None:
    points = [Point(at={"prior.components": 2}, values={"val_auroc": 0.81, "test_auroc": 0.79, "test_masked_auroc": 0.5})]
    experiment = asked(
        Choice("prior.components", (1, 2)), references=(Reference(source="A 2020, Table 1", points=points),), show=("auroc",)
    )
    results = Results(experiment, entries([1, 2], [[0.3, 0.3], [0.4, 0.4]]))
    table = results.settings().set_index("prior.components")
    assert math.isnan(table["reference val_auroc (A 2020, Table 1)"]["1"])
    assert table["reference val_auroc (A 2020, Table 1)"]["2"] == 0.81
    assert table["reference test_masked_auroc (A 2020, Table 1)"]["2"] == 0.5
    heading, one, two = results.lines()[1:]
    assert "A 2020, Table 1: auroc " in heading + " "
    assert "test_" not in heading
    assert ("–" in one, "0.810" in two) == (True, True)


def test_numbers_in_words() -> None:
    assert _numbers(["mcar:0", "mcar:0.5"]) == [0, 0.5]
    assert _numbers([1, 2.5]) == [1, 2.5]
    for words in (["mcar:0", "mnar:0.5"], ["mcar:0", "without:a"], ["a", "b"], [True, False], ["mcar:0", 1]):
        assert _numbers(words) is None


NUMBERS, WORDS, WIDE = Choice("fit.lr", (1, 2, 3)), Choice("family", ("$x_$", "b", "c")), Choice("fit.beta", (1e-6, 1e-2))
FREE = Range("fit.lr", 1e-4, 0.1, log=True), Range("K", 1, 6, whole=True)


@pytest.mark.parametrize(
    ("axes", "columns", "rows"),
    [
        ((NUMBERS,), 2, 1),
        ((WORDS,), 2, 1),
        ((WIDE,), 2, 1),
        ((Choice("missingness.mask", (None, "mcar:0.3")),), 2, 1),
        ((NUMBERS, WORDS), 2, 2),
        ((NUMBERS, WORDS, WIDE), 3, 2),
        (FREE, 2, 2),
        ((FREE[0], WORDS), 2, 2),
    ],
)
def test_the_picture(axes: tuple[Axis, ...], columns: int, rows: int, tmp_path: Path) -> None:
    free = any(isinstance(axis, Range) for axis in axes)
    settings = list(drawn(axes, 0, 6) if free else every(axes))
    point = {axis.key: settings[0][axis.key] for axis in axes}
    points = [Point(at=point, values={"val_auroc": 0.5}), Point(values={"val_auroc": 0.6})]
    references = (Reference(source="A 2020", points=points),)
    experiment = asked(*axes, seeds=(0,), show=("log_loss", "auroc"), references=references)
    found = [Entry(setting, records={0: record(0.3 + 0.01 * i)}) for i, setting in enumerate(settings)]
    found[-1].records = {0: FAILED}
    draw(Results(experiment, found), tmp_path / "sweep.png")
    width, height = Image.open(tmp_path / "sweep.png").size
    assert (width, height) == (480 * columns if columns > 2 else 600 * columns, 100 + 400 * rows)

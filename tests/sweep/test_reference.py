from pathlib import Path

import pytest
import yaml

from cm2pyro import shipped
from cm2pyro.config import Config
from cm2pyro.errors import ConfigError
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.reference import Point, Reference, beside, read
from cm2pyro.sweep.space import Axis, Choice, Range

MODALITY = {"kind": "embedding", "encoder": "mlp", "table": "a.csv"}
CONFIG = Config.from_dict({"task": {"type": "binary", "label": "death"}, "modalities": {"a": MODALITY}}, "a test")
K = Choice("prior.components", (1, 2))


def of(*points: Point, **keys: object) -> Reference:
    return Reference.model_validate({"source": "A 2020", "points": [point.model_dump() for point in points]} | keys)


ONE, TWO, NINE = (Point(at={"prior.components": k}, values={"test_auroc": k / 10}) for k in (1, 2, 9))
WHOLE = Point(values={"test_auroc": 0.7, "test_auprc": 0.3})


def numbers(references: tuple[Reference, ...]) -> list[list[float]]:
    return [[point.values["test_auroc"] for point in one.points] for one in references]


def test_a_number_stands_beside_the_settings_that_it_is_for() -> None:
    reference = of(ONE, TWO)
    assert reference.at({"prior.components": 2, "fit.lr": 0.1}, "test_auroc") == 0.2
    assert reference.at({"prior.components": 3}, "test_auroc") is None
    assert reference.at({"prior.components": 2}, "test_auprc") is None
    assert of(WHOLE).at({"prior.components": 3}, "test_auprc") == 0.3
    assert of(WHOLE, ONE).names == ["test_auroc", "test_auprc"]


@pytest.mark.parametrize(
    ("axes", "shown"),
    [
        ((K,), [[0.1, 0.2]]),  # precise numbers push out the study as a whole
        ((Choice("prior.components", (2, 3)),), [[0.2]]),
        ((Choice("prior.components", (3,)),), [[0.7]]),
        ((Range("prior.components", 1, 6, whole=True),), [[0.1, 0.2, 0.9]]),
        ((Choice("fit.lr", (1,)),), [[0.7]]),
        ((K, Choice("fit.lr", (1,))), [[0.1, 0.2]]),
    ],
)
def test_what_is_shown(axes: tuple[Axis, ...], shown: list[list[float]]) -> None:
    assert numbers(beside([of(ONE, TWO, NINE), of(WHOLE)], "base.yaml", CONFIG, axes)) == shown


@pytest.mark.parametrize(
    ("keys", "is_shown"), [({"bases": ["base.yaml"]}, 1), ({"bases": ["b.yaml"]}, 0), ({"label": "death"}, 1), ({"label": "x"}, 0)]
)
def test_only_beside_its_own_bases_and_label(keys: dict[str, object], is_shown: int) -> None:
    assert len(beside([of(ONE, **keys)], "base.yaml", CONFIG, (K,))) == is_shown


def test_where_the_label_is_varied_none_is_the_one() -> None:
    assert beside([of(WHOLE, label="death")], "base.yaml", CONFIG, (Choice("task.label", ("death", "stay")),)) == ()


def test_of_several_labels_none_is_the_one() -> None:
    several = Config.from_dict({"task": {"type": "multilabel", "labels": ["death", "stay"]}, "modalities": {"a": MODALITY}}, "a test")
    assert beside([of(ONE, label="death")], "base.yaml", several, (K,)) == ()


@pytest.mark.parametrize(
    ("name", "message"), [("test_auroq", "did you mean 'auroc'"), ("auroc", "of which rows"), ("test_rmse", "no such metric")]
)
def test_a_metric_that_is_none(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        beside([of(Point(values={name: 0.5}))], "base.yaml", CONFIG, (K,))
    assert "A 2020" in str(refused.value)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({"reference": [of(ONE).model_dump()]}))
    assert read(path) == [of(ONE)]
    path.write_text("reference: [{source: A}]")
    with pytest.raises(ConfigError, match=r"published\.yaml: reference\.0\.points"):
        read(path)


@pytest.mark.slow
def test_the_papers_numbers_all_find_their_place() -> None:
    """Each stands beside some shipped experiment on the config that it names, once."""
    experiments = shipped.folder() / "experiments"
    published = read(experiments / "published.yaml")
    told = {(one.source, *one.bases, one.label): 0 for one in published}
    assert len(told) == len(published)
    for base, label in {(one.bases[0], one.label) for one in published}:
        for name in ("components", "family", "ablations") if base == "mimic4-cxr.yaml" else ("components",):
            found = Experiment.read(experiments / f"{name}.yaml", experiments.parent / base, (f"task.label={label}",)).references
            for one in found:
                told[one.source, base, label] += sum(one.points == other.points for other in published)
    assert min(told.values()) > 0, told

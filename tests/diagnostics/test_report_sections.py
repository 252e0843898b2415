"""What the sections on components, clusters, epochs, outcomes and missingness compute, against known truth."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from cm2pyro.diagnostics.report import components, cooccurrence, curves, fitted, missingness, outcome
from cm2pyro.diagnostics.report.material import Source
from cm2pyro.diagnostics.report.parts import Figure
from tests.diagnostics.report_cases import material, mixture, record, table, texts

pytestmark = pytest.mark.usefixtures("unpainted")

# --- components and clusters ----------------------------------------------------------------------------------------


def test_principal_components_span_the_largest_spread() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(500, 5)) * np.array([0.1, 5.0, 0.1, 3.0, 0.1])
    centre, directions = components.axes_of(z)
    assert directions.T @ directions == pytest.approx(np.eye(2))
    assert abs(directions[1, 0]) > 0.99
    assert abs(directions[3, 1]) > 0.99
    assert centre == pytest.approx(z.mean(0))


def test_use_of_components_and_an_empty_one() -> None:
    truth = mixture(2, 2, 2, apart=6.0)
    weights = torch.tensor([1.0, 1e-6], dtype=torch.float64).log()
    one = type(truth)(weights, truth.assignment, truth.locs, truth.scales, truth.copula)
    m = material(one, n=500)
    row = dict(zip(table(components.section(m)).columns, table(components.section(m)).rows[0], strict=True))
    assert row["use"] == "100%, 0%"
    assert row["effective components"] == pytest.approx(1, abs=1e-3)
    assert any("Component 2 of m0 takes less than 1%" in text for text in texts(components.section(m)))
    row = table(components.section(material(truth, n=3000))).rows[0]
    # Weights 2/3 and 1/3: exp(entropy) = 1.89.
    assert row[3] == pytest.approx(math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))), abs=0.03)


@pytest.mark.parametrize(
    ("shares", "v"),
    [
        ([[0.5, 0.0], [0.0, 0.5]], 1.0),
        ([[0.25, 0.25], [0.25, 0.25]], 0.0),
        ([[0.4, 0.1], [0.1, 0.4]], 0.6),
        ([[0.5, 0.5], [0.0, 0.0]], None),
    ],
)
def test_association(shares: list[list[float]], v: float | None) -> None:
    found = cooccurrence.association(np.array(shares))
    assert found is None if v is None else found == pytest.approx(v)


def test_shared_clusters_agree_with_the_model_and_broken_ones_are_told() -> None:
    truth = mixture(2, 2, 2, apart=5.0)
    m = material(truth, n=2000)
    row = table(cooccurrence.section(m)).rows[0]
    assert row[2] == pytest.approx(row[3], abs=0.05)
    assert row[3] > 0.9
    assert not texts(cooccurrence.section(m))
    shuffled = m.z.clone()
    shuffled[:, 1] = shuffled[torch.randperm(len(m.z), generator=torch.Generator().manual_seed(0)), 1]
    broken = dataclasses.replace(m, z=shuffled, observed=torch.ones_like(m.observed))
    assert any("m0~m1" in text for text in texts(cooccurrence.section(broken)))


# --- history --------------------------------------------------------------------------------------------------------


def test_the_kept_epoch() -> None:
    names = ("m0",)
    m = dataclasses.replace(material(), history=[record(e, names, val_log_loss=loss) for e, loss in enumerate([0.7, 0.5, 0.6], 1)])
    assert m.kept_epoch == 2
    assert not any("more epochs" in text for text in texts(curves.section(m)))
    # A log-loss that was not finite is None in the history, and counts as worse than any other.
    broken = dataclasses.replace(m, history=[record(e, names, val_log_loss=loss) for e, loss in enumerate([0.7, None, 0.5, 0.6], 1)])
    assert broken.kept_epoch == 3
    unscored = dataclasses.replace(m, history=[record(e, names, val_log_loss=None) for e in (1, 2, 3)])
    assert unscored.kept_epoch == 3
    assert "No labelled validation row" in " ".join(texts(curves.section(unscored), "note"))


@pytest.mark.slow
def test_what_went_wrong_in_a_fit_is_told_and_what_passed_is_a_note() -> None:
    names = ("m0", "m1", "m2")
    collapsed = {"effective_components": {"m0": 1.0, "m1": 1.9, "m2": 1.9}}
    history = [record(e, names, **(collapsed if e in (6, 7) else {})) for e in range(1, 10)]
    m = dataclasses.replace(material(), history=history)
    assert any("mixture collapse: modality m0" in text.lower() and "epochs 6 to 7" in text for text in texts(curves.section(m), "note"))
    dead = [record(e, names, copula_gradient=1e-12, **(collapsed if e == 3 else {})) for e in range(1, 4)]
    said = texts(curves.section(dataclasses.replace(m, history=dead)))
    assert any(text.startswith("Dead copula") for text in said)
    last = dataclasses.replace(m, history=[record(epoch, names) for epoch in range(1, 10)])
    assert any("lowest at the last epoch" in text for text in texts(curves.section(last), "note"))


def test_how_numbers_are_to_be_taken() -> None:
    said = " ".join(texts(fitted.section(material(source=Source("r", "d", members=3, complete=False), fit={"beta": 0.001})), "note"))
    for part in ("ensemble of 3", "beta is 0.001", "tempered", "what encoders have learned"):
        assert part in said
    assert "cut before its end" in texts(fitted.section(material(source=Source("r", "d", complete=False))))[0]
    plain = dataclasses.replace(material(fit={"beta": 1.0}), given=("m0", "m1", "m2"))
    assert fitted.section(plain).findings == ()


# --- outcome and missingness ----------------------------------------------------------------------------------------


def test_rows_not_learned_from_are_drawn_where_there_are_any() -> None:
    m = material()
    section = outcome.section(m)
    figure = next(part for part in section.parts if isinstance(part, Figure))
    assert figure.read.startswith("Rows of split test, 100")
    assert [row[1] for row in table(section).rows] == [300, 100]
    only = outcome.section(dataclasses.replace(m, splits=np.full(400, "train")))
    assert "optimistic" in " ".join(texts(only, "note"))
    unknown = outcome.section(dataclasses.replace(m, splits=np.full(400, "")))
    assert "cannot be told" in " ".join(texts(unknown, "note"))
    m.evaluation.prediction.mean[:] = 0.5  # type: ignore[union-attr]
    assert any("hardly differ" in text for text in texts(outcome.section(m)))


def test_patterns_are_counted() -> None:
    m = material(n=200, missing=0.4)
    shown = table(missingness.section(m))
    assert sum(int(row[1]) for row in shown.rows) == 200  # type: ignore[arg-type]
    rows = m.observed.all(1).numpy()
    full = dict(zip(shown.columns, next(row for row in shown.rows if row[0] == "all modalities"), strict=True))
    assert full["rows"] == rows.sum()
    assert full["outcome, mean"] == pytest.approx(m.evaluation.labels[rows].mean())  # type: ignore[union-attr]
    assert full["predicted, mean"] == pytest.approx(m.evaluation.prediction.mean[rows, 1].mean())  # type: ignore[union-attr]
    assert any("fewer than 20 rows" in text for text in texts(missingness.section(m), "note"))
    assert any("no modality at all" in text for text in texts(missingness.section(m), "note"))
    together = table(missingness.section(m), 1)
    assert together.rows[0][2] == int(m.observed[:, [0, 1]].all(1).sum())


def test_many_patterns_are_lumped() -> None:
    shown = table(missingness.section(material(mixture(6, 1, 1), n=600, missing=0.5)))
    assert len(shown.rows) == missingness.PATTERNS + 1
    assert sum(int(row[1]) for row in shown.rows) == 600  # type: ignore[arg-type]

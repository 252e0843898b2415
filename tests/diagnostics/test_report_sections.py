"""What the sections compute, against known truth; and that every section can be made of every kind of fit."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from cm2pyro.diagnostics.report import components, cooccurrence, copula, curves, epochs, families, fitted, missingness, outcome
from cm2pyro.diagnostics.report.build import SECTIONS, build
from cm2pyro.diagnostics.report.material import Material, Source
from cm2pyro.diagnostics.report.parts import Figure, Finding, Section, Table
from tests.diagnostics.report_cases import material, mixture, record, without_labels


def texts(section: Section, level: str = "warning") -> list[str]:
    return [finding.text for finding in section.findings if finding.level == level]


def table(section: Section, at: int = 0) -> Table:
    return [part for part in section.parts if isinstance(part, Table)][at]


def pictures(section: Section) -> int:
    return sum(len(part.pictures) for part in section.parts if isinstance(part, Figure))


# --- pseudo-observations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [1.0, 4.0])
@pytest.mark.parametrize(("family", "tau"), [("gaussian", 0.5), ("clayton", 0.4), ("frank", -0.3)])
def test_pseudo_observations_are_draws_of_the_copula_if_the_model_holds(family: str, tau: float, apart: float) -> None:
    """Also where components overlap. Margins: Kolmogorov-Smirnov, bound 1.95/√n (p = 0.001). tau: four sd under independence."""
    m = material(mixture(2, 3, 1, tau, family, apart), n=4000)
    s, component = copula.pseudo(m, (0, 1), 0)
    assert len(s) == len(m.both((0, 1))) == len(component)
    for i in range(2):
        assert kstest(s[:, i], "norm").statistic < 1.95 / math.sqrt(len(s))
    sd = math.sqrt(2 * (2 * len(s) + 5) / (9 * len(s) * (len(s) - 1)))
    assert abs(copula.inside(s, component) - tau) < 4 * sd
    assert abs(copula.kendall(s) - tau) < 4 * math.sqrt(2 * 6005 / (9 * 3000 * 2999))


def test_clusters_are_kept_out_of_tau_inside_and_stay_in_tau_overall() -> None:
    """Components 4 sd apart and independent inside: overall tau is large, tau inside is chance."""
    m = material(mixture(2, 2, 1, 0.0, apart=4.0), n=2000, missing=0.0)
    row = table(copula.section(m)).rows[0]
    columns = table(copula.section(m)).columns
    found = dict(zip(columns, row, strict=True))
    assert abs(found["in the data"]) < 4 * 2 / 3 / math.sqrt(2000)
    # P(two rows in different components) = 4/9; they are nearly all concordant.
    assert 0.3 < found["overall"] < 0.5


def test_a_margin_beside_its_latents_leaves_tau_inside_and_is_told() -> None:
    """Components far apart, both fitted one sd beside their latents and half as wide again."""
    truth = mixture(2, 2, 1, 0.5, apart=12.0)
    moved = type(truth)(truth.log_weights, truth.assignment, truth.locs + 1, truth.scales * 1.5, truth.copula)
    m = material(truth, n=2000, fitted=moved)
    assert abs(copula.inside(*copula.pseudo(m, (0, 1), 0)) - 0.5) < 0.06
    assert any("do not describe its latents" in text for text in texts(components.section(m)))
    assert not texts(components.section(material(truth, n=2000)))


def test_strongest_pairs_come_first() -> None:
    truth = mixture(3, 1, 2)
    correlation = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    correlation[1, 0, 2] = correlation[1, 2, 0] = -0.8
    correlation[0, 1, 2] = correlation[0, 2, 1] = 0.4
    made = type(truth)(
        truth.log_weights, truth.assignment, truth.locs, truth.scales, type(truth.copula)(torch.linalg.cholesky(correlation))
    )
    m = material(made)
    assert [m.pairs[p] for p, _ in copula.strongest(m, 2)] == [(0, 2), (1, 2)]
    assert [j for _, j in copula.strongest(m, 2)] == [1, 0]


def test_a_copula_that_is_not_the_data_is_told() -> None:
    m = material(mixture(2, 1, 2, 0.0), n=1000, fitted=mixture(2, 1, 2, 0.6))
    assert any("differs in some dimension of m0~m1" in text for text in texts(copula.section(m)))
    assert not texts(copula.section(material(mixture(2, 1, 2, 0.6), n=1000)))


def test_few_rows_of_a_pair_and_the_bound_of_tau_are_told() -> None:
    m = material(mixture(2, 1, 1, 0.985), n=40, missing=0.5)
    said = " ".join(texts(copula.section(m)))
    assert "Fewer than 30 of these rows have both modalities of m0~m1" in said
    assert "stands at its bound of ±0.99" in said


# --- families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["clayton", "survival_clayton", "frank", "joe"])
def test_the_family_that_made_the_data_has_the_greatest_density(family: str) -> None:
    """tau 0.5, n = 3,000: these four lie further than five standard errors from one another."""
    m = material(mixture(2, 2, 1, 0.5, family, 4.0), n=3000, missing=0.0)
    shown = table(families.section(m)).rows
    names = [str(row[0]).removesuffix(" (fitted)") for row in shown]
    close = {"survival_clayton": ["survival_clayton", "joe"], "joe": ["survival_clayton", "joe"]}.get(family, [family])
    assert names[0] in close
    assert str(next(row[0] for row in shown if "(fitted)" in str(row[0]))) == f"{family} (fitted)"


def test_negative_dependence_is_mirrored() -> None:
    m = material(mixture(2, 1, 1, -0.5, "frank"), n=1500, missing=0.0)
    section = families.section(m)
    assert "first coordinate mirrored" in next(part for part in section.parts if isinstance(part, Figure)).read
    assert str(table(section).rows[0][0]) == "frank (fitted)"


def test_weak_dependence_is_not_ranked() -> None:
    section = families.section(material(mixture(2, 1, 1, 0.0), n=3000))
    assert pictures(section) == 0
    assert "too weak" in str(section.parts[0])


# --- densities at epochs --------------------------------------------------------------------------------------------


def test_the_density_of_a_pair_is_a_margin_of_the_mixture() -> None:
    """It integrates to 1, and its draws are those coordinates: mean and covariance of 40,000 draws, five standard errors."""
    p = mixture(3, 2, 2, 0.5, "gumbel")
    pair = epochs.pair_mixture(p, (0, 2), 1)
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[..., None]
    density = pair.log_prob(grid).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-3)
    torch.manual_seed(0)
    draws = p.rsample((40_000,))[:, [0, 2], 1]
    product = float((density * grid[..., 0, 0] * grid[..., 1, 0]).sum() * (axis[1] - axis[0]) ** 2)
    cross = draws[:, 0] * draws[:, 1]
    assert abs(product - float(cross.mean())) < 5 * float(cross.std()) / 200


def test_a_run_without_snapshots_says_so() -> None:
    section = epochs.section(dataclasses.replace(material(), epochs={}))
    assert "has no snapshots" in str(section.parts[0])
    assert pictures(epochs.section(material())) == 8  # three epochs and what is kept, twice


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


# --- every section of every kind of fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sections"),
    [
        (lambda: material(mixture(1, 2, 3), n=60), SECTIONS),
        (lambda: material(mixture(2, 1, 1, 0.3, "joe"), n=1), SECTIONS),
        (
            lambda: material(mixture(2, 2, 2), n=30, missing=1.0),
            (copula.section, components.section, cooccurrence.section, missingness.section),
        ),
        (lambda: material(mixture(2, 10, 1), n=50, task="regression", classes=()), (cooccurrence.section, outcome.section)),
        (lambda: material(n=50, task="multiclass", classes=("a", "b", "c")), (outcome.section, missingness.section)),
        (lambda: material(n=50, task="multilabel", classes=("a", "b")), (outcome.section, missingness.section)),
        (lambda: dataclasses.replace(without_labels(material(n=50)), history=[]), (curves.section, curves.dependence, outcome.section)),
    ],
    ids=["one modality", "one row", "nothing observed", "regression", "multiclass", "multilabel", "no labels or history"],
)
def test_every_kind_of_fit_has_its_sections(make, sections) -> None:
    m: Material = make()
    for section in (own(m) for own in sections):
        assert section.parts
        for part in section.parts:
            if isinstance(part, Figure):
                for picture in part.pictures:
                    with Image.open(io.BytesIO(picture.png)) as image:
                        assert min(image.size) > 300
                    assert picture.alt
            if isinstance(part, Table):
                assert {len(row) for row in part.rows} <= {len(part.columns)}


def test_further_sections_stand_behind_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cm2pyro.diagnostics.report.build.SECTIONS", (fitted.section, missingness.section))
    posterior = Section("posterior", "Posterior", (Table(("site", "mean"), (("locs", 0.5),), "c"),), (Finding("k-hat 0.9"),))
    report = build(material(n=20), [posterior])
    assert [section.key for section in report.sections] == ["fit", "posterior", "missingness"]
    assert (posterior, posterior.findings[0]) in report.findings("warning")

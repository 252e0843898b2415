"""Every section can be made, and its pictures painted, of every kind of fit."""

import dataclasses
import io

import pytest
from PIL import Image

from cm2pyro.diagnostics.report import components, cooccurrence, copula, curves, fitted, missingness, outcome
from cm2pyro.diagnostics.report.build import SECTIONS, build
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Figure, Finding, Section, Table
from tests.diagnostics.report_cases import material, mixture, without_labels


@pytest.mark.slow
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

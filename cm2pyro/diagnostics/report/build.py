"""The sections of the report, in order."""

from collections.abc import Callable, Sequence

from cm2pyro.diagnostics.report import components, cooccurrence, copula, curves, epochs, families, fitted, missingness, outcome
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Report, Section

SECTIONS: tuple[Callable[[Material], Section], ...] = (
    fitted.section,
    curves.section,
    copula.section,
    families.section,
    curves.dependence,
    epochs.section,
    components.section,
    cooccurrence.section,
    outcome.section,
    missingness.section,
)


def build(material: Material, further: Sequence[Section] = ()) -> Report:
    """The report of a fit; `further` sections, such as one on the posterior, stand behind the first, which says what was fitted."""
    own = [make(material) for make in SECTIONS]
    rows = f"{len(material.z):,} rows of {material.source.data}"
    return Report(f"{material.source.run}: report of a fit", f"{rows}, {', '.join(material.names)}", (own[0], *further, *own[1:]))

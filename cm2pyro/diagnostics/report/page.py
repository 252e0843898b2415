"""The HTML page: one file without a script, a link to elsewhere or a request."""

import base64
import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cm2pyro.diagnostics.report.parts import Cell, Report
from cm2pyro.diagnostics.report.words import WORDS
from cm2pyro.files import write_text


def to_html(report: Report) -> str:
    """The page; every text in it is escaped, whatever a modality, class or file is called."""
    environment = Environment(
        loader=PackageLoader("cm2pyro.diagnostics.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    environment.filters["inline"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    return environment.get_template("page.html").render(report=report, words=WORDS)


def write(report: Report, path: str | Path) -> None:
    """Write the page whole. Raises DataError: a path that cannot be written."""
    write_text(path, to_html(report))


def cell(value: Cell) -> str:
    """A number as it is shown in a table."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        small = 0 < abs(value) < 0.0005
        return f"{value:.1e}" if small else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value

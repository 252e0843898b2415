"""The site made of this folder: `make docs`. Nothing is fetched while it is built."""

import inspect
import re
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # these sources, wherever the package is installed from

from cm2pyro import __version__

project = "cm2pyro"
author = "the cm2pyro contributors"
copyright = "the cm2pyro contributors, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"cm2pyro {release}"
html_show_sphinx = False
html_copy_source = False
smartquotes = False  # --option is no dash

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Indented blocks are commands, output and config keys in turn: none of them is Python.
highlight_language = "text"
lexers["csv"] = TextLexer()

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # docstrings write `name` where reStructuredText would have ``name``


def _plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are text: |tau| and *shape mean themselves."""
    lines[:] = [re.sub(r"(?<!\\)([*|])", r"\\\1", line) for line in lines]


def _a_line_each(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Our docstrings put several parameters on one line; napoleon would show all but the first as text of the first."""
    try:
        known = "|".join(map(re.escape, inspect.signature(obj).parameters))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    if known:
        start = re.compile(rf"(?<=[.;)]) (?=(?:{known})(?:, (?:{known}))*: )")
        split = [(line, start.split(line) if line.startswith("    ") else [line]) for line in lines]
        lines[:] = [part if i == 0 else f"    {part}" for line, parts in split for i, part in enumerate(parts)]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon, whose own marks stay
    app.connect("autodoc-process-docstring", _a_line_each, priority=101)

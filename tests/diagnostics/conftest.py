"""Shared by the tests of this folder."""

import pytest
from matplotlib.figure import Figure

from cm2pyro.diagnostics import plots


@pytest.fixture
def figures(monkeypatch):
    """Figures drawn during the test."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(plots, "Figure", Kept)
    return made


@pytest.fixture
def unpainted(monkeypatch):
    """Pictures of the report are drawn and never painted, which takes longest: where a test is about words and numbers."""
    monkeypatch.setattr("cm2pyro.diagnostics.report.pictures.painted", lambda figure: b"")

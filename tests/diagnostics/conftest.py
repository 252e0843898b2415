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

"""What is written: ids come back as they were, and no name in it becomes a formula, a tag or mathematics."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2pyro.data.formulas import inert, is_formula
from cm2pyro.data.manifest import read_manifest
from cm2pyro.diagnostics.plots import reliability_and_patterns, words_as_they_are
from cm2pyro.diagnostics.report.pictures import panel
from cm2pyro.errors import DataError

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "--1", "+", "-")
PLAIN = ("-12", "+1.5", "a=1", " =1", "001", "x@y", "", "1-2", "NA", "Ünal", "$x$", "<b>")


def test_formulas_are_known() -> None:
    assert all(is_formula(cell) for cell in FORMULAS)
    assert not any(is_formula(cell) for cell in PLAIN)
    assert not any(is_formula(inert(cell)) for cell in FORMULAS)
    assert [inert(cell) for cell in PLAIN] == list(PLAIN)
    assert [inert(cell)[1:] for cell in FORMULAS] == list(FORMULAS)


def test_ids_that_are_accepted_come_back(tmp_path: Path) -> None:
    ids = [cell for cell in PLAIN if cell.strip()] + ['say ""no""', "a,b", "two\nlines", "'quoted'"]
    manifest = read_manifest(pd.DataFrame({"sample_id": ids}))
    pd.DataFrame({"sample_id": manifest.ids}).to_csv(tmp_path / "predictions.csv", index=False)
    assert read_manifest(tmp_path / "predictions.csv").ids == ids


@pytest.mark.parametrize("cell", FORMULAS)
def test_ids_that_are_formulas_are_refused(cell: str) -> None:
    with pytest.raises(DataError, match="formula"):
        read_manifest(pd.DataFrame({"sample_id": ["a", cell]}))


NAMES = (r"$\frac{$", "$x_$", "a$b$c", r"\$", "<script>", "$$")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    with panel(name, name) as drawn:
        drawn.axes.plot([1, 2], [3, 4], label=name)
        drawn.axes.set(xlabel=name, title=name)
        drawn.axes.set_yticks([3, 4], [name, "b"])
        drawn.axes.legend()
    assert drawn.picture.png.startswith(b"\x89PNG")
    observed = np.array([[True, True], [True, False]] * 10)
    reliability_and_patterns(np.arange(20) % 2, np.linspace(0.1, 0.9, 20), observed, [name, "b"], tmp_path / "x.png", name)
    assert (tmp_path / "x.png").stat().st_size > 0


def test_numbers_on_logarithmic_axes_stay_mathematics() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot([1, 1000], [1, 2])
    axes.set_xlabel("$x_$")
    words_as_they_are(figure)
    assert not axes.xaxis.label.get_parse_math()
    assert axes.xaxis.get_major_ticks()[0].label1.get_parse_math()

"""The table of a run's predictions, counted by hand, and its picture."""

import numpy as np
import pandas as pd
import pytest

from cm2pyro.diagnostics import plots
from cm2pyro.diagnostics.spread import draw_spread, spread_table
from cm2pyro.errors import DataError

NAMES = ("labs", "notes")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "observed": ["labs;notes", "labs", "labs", "", "labs"],
            "sd_missing": [0.0, 3.0, 0.0, 1.0, 1.0],
            "sd_encoder": [2.0, 4.0, 0.0, 0.0, np.nan],
            "sd_global": [0.0, 0.0, 0.0, 1.0, np.nan],
            "pays_most": ["", "notes", "", "labs", "notes"],
        }
    )


def test_the_table_counts_and_averages() -> None:
    table = spread_table(frame(), NAMES).set_index("observed")
    assert list(table.index) == ["all rows", "labs", "labs;notes", "none"]
    assert table["rows"].tolist() == [5, 3, 1, 1]
    assert table["lacks_labs"].tolist() == [1, 0, 0, 1]
    assert table["lacks_notes"].tolist() == [4, 3, 0, 1]
    assert table["pays_most_notes"].tolist() == [2, 2, 0, 0]
    assert table["pays_most_labs"].tolist() == [1, 0, 0, 1]
    # Of the three rows with labs alone one has no spread, and one could not be split.
    np.testing.assert_allclose(table["variance_missing"], [(9 / 25 + 0 + 0.5) / 3, 9 / 25, 0, 0.5])
    np.testing.assert_allclose(table["variance_encoder"], [(16 / 25 + 1 + 0) / 3, 16 / 25, 1, 0])
    np.testing.assert_allclose(table["variance_global"], [0.5 / 3, 0, 0, 0.5])


@pytest.mark.parametrize("rows", [0, 1, 5, 400])
def test_the_picture_is_whole_and_its_texts_stand_apart(rows: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = plots.Figure

    def kept(*args, **kwargs):
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(plots, "Figure", kept)
    names = NAMES
    predictions = frame().iloc[:rows]
    if rows == 400:
        rng, names = np.random.default_rng(0), tuple(f"modality_with_a_long_name_{i}" for i in range(5))
        observed = rng.random((rows, 5)) < 0.5
        lacking = [np.array(names)[~row] for row in observed]
        predictions = pd.DataFrame(
            {"observed": [";".join(np.array(names)[row]) for row in observed]}
            | {f"sd_{level}": rng.random(rows) for level in ("missing", "encoder", "global")}
            | {"pays_most": [rng.choice(row) if len(row) else "" for row in lacking]}
        )
    draw_spread(predictions, names, tmp_path / "a.png", "run: data")
    assert (tmp_path / "a.png").read_bytes()[16:24] == (1200).to_bytes(4) + (500).to_bytes(4)
    (figure,) = made
    for panel in figure.subfigs:
        (axes,) = panel.axes
        texts = [text for text in (axes._left_title, axes.xaxis.label, *axes.texts, *axes.get_yticklabels()) if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        for i, one in enumerate(boxes):
            assert one.x0 >= 0
            assert one.x1 <= 1200
            for other in boxes[:i]:
                assert not (
                    one.overlaps(other)
                    and min(one.x1, other.x1) - max(one.x0, other.x0) > 1
                    and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
                )


def test_a_path_that_cannot_be_written(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        draw_spread(frame(), NAMES, tmp_path / "no" / "a.png", "run")

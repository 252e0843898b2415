"""Metrics of the rows that stopped a fit."""

import pandas as pd
import pytest

from cm2pyro.api import CM2
from cm2pyro.errors import DataError
from tests.inference.fits import settings, table


def fitted(rows: pd.DataFrame, mask: str | None) -> CM2:
    config = settings(fit={"epochs": 1, "validation": 0.25}, missingness={} if mask is None else {"mask": mask})
    return CM2.from_config(config).fit(rows)


@pytest.mark.parametrize("mask", [None, "mcar:0.5"])
@pytest.mark.parametrize("marked", [True, False])
def test_they_are_judged_as_the_fit_saw_them(marked: bool, mask: str | None) -> None:
    rows = table()
    if not marked:
        rows["split"] = "train"
    model = fitted(rows, mask)
    # By hand: the rows held out, or marked, with what the mask hid taken out of the file.
    stopped = rows["split"] == "val" if marked else rows["sample_id"].isin(model.holdout["samples"])
    rows = rows[stopped].assign(split="val")
    assert len(rows) == 15
    if model.mask is not None:
        kept = model.mask.set_index("sample_id").loc[rows["sample_id"]]
        for name in ("a", "b"):
            rows[name] = rows[name].where(kept[name].to_numpy() == 1, "")
        assert (rows["a"] == "").sum() > 4
    expected = model.evaluate(rows, split="val", bootstrap=0).metrics
    found = model.validate(rows if marked else table().assign(split="train")).metrics
    assert found["log_loss"] == pytest.approx(expected["log_loss"])
    assert found["auroc"] == pytest.approx(expected["auroc"])


def test_there_must_be_some_with_labels() -> None:
    rows = table()
    model = fitted(rows, None)
    with pytest.raises(DataError, match="no row has split 'val'"):
        model.validate(rows[rows["split"] == "train"])
    with pytest.raises(DataError, match="15 validation rows have no label"):
        model.validate(rows.assign(label=rows["label"].where(rows["split"] == "train", "")))

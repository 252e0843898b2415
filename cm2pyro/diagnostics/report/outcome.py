"""Predictions against outcomes, on rows that the fit did not learn from where there are any."""

import numpy as np

from cm2pyro.diagnostics.calibration import bins_for
from cm2pyro.diagnostics.evaluation import ALIKE, FEW_EVENTS, Evaluation
from cm2pyro.diagnostics.metrics import predicted_class, reliability
from cm2pyro.diagnostics.plots import draw_bins, short
from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Figure, Finding, Picture, Section, Table
from cm2pyro.diagnostics.report.pictures import BLUE, GREY, ORANGE, Array, legend, panel, spread_rows, titled

_FEW = 50  # rows of a reliability diagram below which its bins are noise
_LABELS = 6  # diagrams of a multilabel task
_METRICS = {
    "binary": ("auroc", "auprc", "log_loss", "brier", "ece", "calibration_slope", "calibration_intercept"),
    "multiclass": ("auroc", "accuracy", "log_loss", "brier", "ece"),
    "multilabel": ("auroc", "auprc", "log_loss", "brier", "ece"),
    "regression": ("rmse", "mae", "r2", "coverage", "log_score"),
}
_WHAT = {"train": "train (learned from)", "val": "val (stopped the fit)", "test": "test", "": "the manifest does not say"}


def section(m: Material) -> Section:
    """Metrics per split, and a reliability diagram."""
    key, title = "outcome", "Predictions and outcomes"
    e = m.evaluation
    if e is None:
        return Section(key, title, ("None of these rows has a label.",))
    splits = m.splits[m.labelled]
    best = next((split for split in ("test", "val", "", "train") if (splits == split).any()), "")
    rows = np.flatnonzero(splits == best)
    drawn = _diagrams(m, e, rows)
    if m.config.task.type == "regression":
        read, bad = (
            "a point a row; on the dashed line prediction and outcome agree.",
            "a cloud that bends or is flat: predictions that follow nothing.",
        )
    else:
        read = (
            "predicted probability against observed frequency in bins of equal count, with 95% Wilson intervals (rows taken as "
            "independent); for several classes the confidence of the predicted class against its accuracy."
        )
        bad = "a curve flatter than the diagonal (overconfident), steeper (too cautious), or all on one side of it."
    figure = Figure(tuple(drawn), f"Rows of split {_WHAT[best]}, {len(rows):,} with a label: {read}", bad)
    return Section(key, title, (figure, _table(m, e, splits)), tuple(_findings(m, best, len(rows))))


def _diagrams(m: Material, e: Evaluation, rows: np.ndarray) -> list[Picture]:
    task = m.config.task.type
    if task == "regression":
        return [_scatter(e, rows)]
    y, p = e.labels[rows], e.probabilities[rows]
    if task == "multilabel":
        made = []
        for j, name in enumerate(m.classes[:_LABELS]):
            known = y[:, j] >= 0
            if known.any():
                made.append(_reliability(y[known, j], p[known, j], short(name, 30), "predicted probability", "observed frequency"))
        return made
    if task == "multiclass":
        right = predicted_class(p) == y
        return [_reliability(right, p.max(1), "Reliability", "confidence of the predicted class", "accuracy")]
    return [_reliability(y, p, "Reliability", "predicted probability", "observed frequency")]


def _reliability(hit: Array, sure: Array, title: str, x: str, y: str) -> Picture:
    bins = {key: np.array(column) for key, column in reliability(hit, sure, bins_for(len(hit))).items()}
    top = float(max(sure.max(), bins["high"].max()))
    limit = next((limit for limit in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if top <= limit), 1.0)
    pairs = "; ".join(f"{a:.2f}: {b:.2f}" for a, b in zip(bins["predicted"], bins["observed"], strict=True))
    with panel(f"{title} of {len(hit)} rows, predicted: observed by bin: {pairs}", size=(4.4, 4.2)) as drawn:
        curve, histogram = drawn.rows((4, 1))
        curve.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
        draw_bins(curve, bins, "bins, 95% interval")
        curve.set(xlim=(-0.02 * limit, 1.02 * limit), ylim=(-0.02 * limit, 1.04 * limit))
        titled(curve, title, "", y)
        histogram.hist(sure, bins=np.linspace(0, limit, 41).tolist(), color=BLUE, alpha=0.7)
        titled(histogram, "", x, "rows")
        legend(curve)
    return drawn.picture


def _scatter(e: Evaluation, rows: np.ndarray) -> Picture:
    rows = rows[spread_rows(len(rows))]
    y, mean = e.labels[rows], e.prediction.mean[rows, 0]
    ends = [float(min(y.min(), mean.min())), float(max(y.max(), mean.max()))]
    with panel(f"Observed against predicted of {len(rows)} rows", size=(4.4, 4.0)) as drawn:
        drawn.axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="observed = predicted")
        drawn.axes.scatter(mean, y, s=8, color=ORANGE, linewidths=0, alpha=0.5, label="a row")
        titled(drawn.axes, "Observed against predicted", "predicted mean", "observed")
        legend(drawn.axes)
    return drawn.picture


def _table(m: Material, e: Evaluation, splits: np.ndarray) -> Table:
    names: list[str] = []
    values: dict[str, dict[str, object]] = {}
    for split in ("train", "val", "test", ""):
        rows = np.flatnonzero(splits == split)
        if len(rows):
            values[split] = e.of_rows(rows)
            names += [name for name in _METRICS[m.config.task.type] if name in values[split] and name not in names]
    made: list[tuple[Cell, ...]] = []
    for split, measured in values.items():
        cells: list[Cell] = [_WHAT[split], int((splits == split).sum())]
        if m.config.task.type == "binary":
            cells.append(int(e.labels[splits == split].sum()))
        for name in names:
            metric = measured.get(name)
            cells.append(metric["value"] if isinstance(metric, dict) else None)
        made.append(tuple(cells))
    caption = "Metrics of the labelled rows per split. Intervals, subgroups and missingness patterns: cm2pyro evaluate."
    events = ("with outcome 1",) if m.config.task.type == "binary" else ()
    return Table(("split", "rows", *events, *(name.replace("_", " ") for name in names)), tuple(made), caption)


def _findings(m: Material, best: str, n: int) -> list[Finding]:
    found = []
    if best == "train":
        found.append(Finding("Every labelled row here was learned from: the agreement of predictions with outcomes is optimistic.", "note"))
    if best == "":
        found.append(
            Finding(
                "The manifest has no splits: rows that the fit learned from cannot be told from others, and figures may be optimistic.",
                "note",
            )
        )
    e = m.evaluation
    if e is not None and m.config.task.type in ("binary", "multilabel") and len(e.labels) >= _FEW and e.probabilities.std(0).max() < ALIKE:
        found.append(
            Finding("Predictions hardly differ from row to row (sd below 0.01): the outcome head has learned the base rate alone.")
        )
    if e is not None and m.config.task.type == "binary":
        ones = int(e.labels[m.splits[m.labelled] == best].sum())
        if min(ones, n - ones) < FEW_EVENTS:
            text = (
                f"{min(ones, n - ones)} of the {n} rows of split {best or 'unknown'} have the rarer outcome: too few to judge the fit by."
            )
            found.append(Finding(text))
    if n < _FEW:
        found.append(Finding(f"The reliability diagram rests on {n} rows only.", "note"))
    return found

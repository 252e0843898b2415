"""Pictures of how predictions hold up, drawn without pyplot, so that no window opens and no global figure stays behind."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike

from cm2pyro.diagnostics.calibration import BinnedError, LogisticRecalibration, bins_for
from cm2pyro.diagnostics.metrics import check_outcomes, predicted_class, reliability, wilson
from cm2pyro.diagnostics.resampling import Array, pattern_keys, patterns
from cm2pyro.files import atomic

PATTERNS = 12
"""Rows of the pattern panel; where there are more patterns, the last row lumps the rare ones."""

_SIZE, _DPI = (12.0, 5.0), 100  # inches and dots an inch: 1200 x 500 px
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6E6E6E"  # of Okabe and Ito, told apart with any colour vision
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")  # Okabe and Ito; two more
MARKERS = "osD^vP*X<>hpd"
_LABEL_WIDTH = 32
_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


def reliability_and_patterns(
    labels: ArrayLike,
    probabilities: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str],
    path: str | Path,
    title: str,
    before: ArrayLike | None = None,
) -> None:
    """Write one PNG, 1200 x 500 px: the reliability diagram, and accuracy per missingness pattern.

    Left, ten bins of equal count (fewer below 100 rows) with 95% Wilson intervals and a histogram of the predictions; for multiclass
    the confidence of the predicted class against its accuracy. Right, accuracy (binary: class 1 from 0.5 on) with 95% Wilson intervals
    per pattern, the most frequent on top, beside what always naming the pattern's commonest class would reach. Both intervals take
    rows as independent; `evaluate` has those over subjects. Beside the left heading stand the expected calibration error of what is
    drawn, and for a binary outcome calibration slope and intercept (see `evaluate`).

    Args:
        labels: (n,) class index.
        probabilities: (n,) of class 1, or (n, C) with rows that sum to 1.
        observed: (n, M) bool.
        names: M modality names.
        path: of the PNG; replaced if it exists.
        title: above both panels, one line.
        before: the probabilities before recalibration, whose curve is drawn as well.

    Raises:
        DataError: arrays that do not fit (see `evaluate`), or a path that cannot be written.
    """
    y, p = check_outcomes(labels, probabilities)
    keys = pattern_keys(observed, names, len(y))
    with page(path, title) as panels:
        curve, histogram = panels[0].subplots(2, 1, sharex=True, height_ratios=(4, 1))
        accuracy = panels[1].subplots()
        _reliability(curve, histogram, y, p, None if before is None else check_outcomes(labels, before)[1])
        _patterns(accuracy, y, predicted_class(p), keys, names)
        for panel, axes in zip(panels, (curve, accuracy), strict=True):
            legend_below(panel, axes)


@contextmanager
def page(path: str | Path, title: str, rows: int = 1) -> Iterator[Any]:
    """Two panels side by side, `rows` times, under a title: written to `path` as a PNG, 1200 x 500 px a row, when the block succeeds."""
    with sheet(path, title, (_SIZE[0], rows * _SIZE[1])) as figure:
        yield np.ravel(np.asarray(figure.subfigures(rows, 2, width_ratios=(1, 1.15))))


@contextmanager
def sheet(path: str | Path, title: str, inches: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure under a title, written to `path` when the block succeeds: PDF or SVG by its suffix, else PNG, 100 dots an inch."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
    figure = Figure(figsize=inches, dpi=_DPI, layout=layout, facecolor="white")
    figure.suptitle(short(" ".join(title.split()), round(110 * inches[0] / _SIZE[0])), fontsize=13, parse_math=False)
    yield figure
    words_as_they_are(figure)
    with atomic(path) as temporary:
        # The canvas and not savefig, whose size and margins a user's matplotlibrc can change.
        match Path(path).suffix.lower():
            case ".pdf":
                FigureCanvasPdf(figure).print_pdf(str(temporary), metadata={"CreationDate": None})
            case ".svg":
                FigureCanvasSVG(figure).print_svg(str(temporary), metadata={"Date": None})
            case _:
                FigureCanvasAgg(figure).print_png(str(temporary))


def words_as_they_are(figure: Figure) -> None:
    """No mathematics in names: a class called `$x_$` would end the drawing, `a$b$c` be set as a formula. Numbers on axes keep theirs."""
    numbers = (ScalarFormatter, LogFormatter)
    axes = [axis for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)]
    ours = {id(text) for axis in axes if isinstance(axis.get_major_formatter(), numbers) for text in axis.findobj(Text)}
    ours -= {id(axis.label) for axis in axes}
    for text in figure.findobj(Text):
        if id(text) not in ours:
            text.set_parse_math(False)


def _reliability(curve: Axes, histogram: Axes, y: Array, p: Array, before: Array | None) -> None:
    """Draw the diagram in `curve` and the predictions under it."""
    binary = p.ndim == 1
    x_label, y_label = ("predicted probability", "observed frequency") if binary else ("confidence of the predicted class", "accuracy")
    hit, sure = _pooled(y, p)
    now = "bins of equal count, 95% interval" if before is None else "recalibrated, 95% interval"
    series = [] if before is None else [(*_pooled(y, before), GREY, "s", "before recalibration, 95% interval")]
    series.append((hit, sure, BLUE, "o", now))
    curves = [{key: np.array(column) for key, column in reliability(hit, sure, bins_for(len(y))).items()} for hit, sure, *_ in series]
    # A rare outcome would fill a corner: show what there is, but cut nothing off.
    top = max(max(part[1].max() for part in series), max(bins["high"].max() for bins in curves))
    limit = next((limit for limit in _LIMITS if top <= limit), 1.0)
    curve.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle="--", label="perfect calibration")
    for (_, _, color, marker, label), bins in zip(series, curves, strict=True):
        draw_bins(curve, bins, label, color, marker)
    curve.set(ylabel=y_label, xlim=(-0.02 * limit, 1.02 * limit), ylim=(-0.02 * limit, 1.04 * limit))
    # Beside the heading, where no point can lie.
    curve.set_title("Reliability", fontsize=11, loc="left")
    texts = [_numbers(hit, sure, binary) for hit, sure, *_ in series]
    curve.set_title(texts[0] if len(texts) == 1 else f"before: {texts[0]}\nrecalibrated: {texts[1]}", fontsize=8, loc="right")
    curve.tick_params(labelbottom=False)
    histogram.hist(sure, bins=np.linspace(0, limit, 41).tolist(), color=BLUE, alpha=0.7)
    histogram.set(xlabel=x_label, ylabel="rows")
    histogram.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for axes in (curve, histogram):
        plain(axes)
        axes.grid(alpha=0.25)


def draw_bins(axes: Axes, bins: dict[str, Array], label: str, color: str = BLUE, marker: str = "o") -> None:
    """The curve of `reliability` with its intervals."""
    lengths = np.maximum(0, [bins["observed"] - bins["low"], bins["high"] - bins["observed"]])
    style: dict[str, Any] = {"markersize": 5, "linewidth": 0.7, "elinewidth": 1.5, "capsize": 2.5}
    axes.errorbar(bins["predicted"], bins["observed"], yerr=lengths, color=color, marker=marker, label=label, **style)


def _pooled(y: Array, p: Array) -> tuple[Array, Array]:
    """What the diagram is about, (n,) each: outcome and its probability, or whether the predicted class is right and its confidence."""
    return (y, p) if p.ndim == 1 else (predicted_class(p) == y, p.max(axis=1))


def _numbers(hit: Array, sure: Array, binary: bool) -> str:
    """Calibration in a line."""
    n = len(hit)
    shown = {"ECE" if binary else "ECE of the confidence": BinnedError.of(hit, sure, np.arange(n), n).under(np.ones((1, n)))[0]}
    if binary:
        slope, intercept = LogisticRecalibration.of(hit, sure).under(np.ones((1, n)))
        shown |= {"slope": slope[0], "intercept": intercept[0]}
    return ", ".join(f"{name} {'–' if np.isnan(value) else f'{value:.3f}'}" for name, value in shown.items())


def _patterns(axes: Axes, y: Array, predicted: Array, keys: Array, names: Sequence[str]) -> None:
    """Draw accuracy per pattern, the most frequent on top."""
    texts, place = pattern_rows(keys, names)
    rows = np.arange(len(texts))
    n = np.bincount(place)
    hits = np.bincount(place, weights=predicted == y)
    commonest = np.array([np.bincount(y[place == row]).max() for row in rows]) / n
    low, high = wilson(hits, n)
    axes.hlines(rows, low, high, color=ORANGE, linewidth=2)
    axes.plot(hits / n, rows, "o", color=ORANGE, markersize=6, label="accuracy, 95% interval")
    axes.scatter(commonest, rows, marker="|", s=170, linewidths=2, color=GREY, label="always the commonest class")
    # Dots, unlike bars, need no zero; the end at 1 stays, to show what is left to gain.
    start = min(0.8, np.floor(10 * min(low.min(), commonest.min())) / 10)
    axes.set(xlim=(start - 0.02 * (1 - start), 1 + 0.02 * (1 - start)), xlabel="accuracy")
    axes.set_title("Accuracy by observed modalities", fontsize=11, loc="left")
    set_pattern_rows(axes, texts, n)


def pattern_rows(keys: Array, names: Sequence[str]) -> tuple[list[str], Array]:
    """Texts of the patterns' rows, the most frequent first and the rare ones lumped; and (n,) int, which row a sample is in."""
    found, place = patterns(keys)
    texts = [_pattern_text(key, names) for key in found]
    if len(texts) > PATTERNS:
        texts = [*texts[: PATTERNS - 1], f"other ({len(texts) - PATTERNS + 1} patterns)"]
        place = np.minimum(place, PATTERNS - 1)
    return texts, place


def set_pattern_rows(axes: Axes, texts: list[str], n: Array) -> None:
    """Name the rows 0, 1, … of a panel, with the count of samples beside each."""
    for row, count in enumerate(n.tolist()):
        axes.text(1.02, row, f"{count:,}", transform=axes.get_yaxis_transform(), va="center", ha="left", fontsize=9)
    axes.text(1.02, 1.01, "n", transform=axes.transAxes, va="bottom", ha="left", fontsize=9)
    name_rows(axes, texts, 9 if len(texts) <= 8 else 8)


def _pattern_text(key: str, names: Sequence[str]) -> str:
    """At most two lines for a key of `pattern_keys`: "series + image", or "all but note" where that list is too long."""
    if key == "none":
        return "nothing observed"
    there = key.split(";")
    lines = textwrap.wrap(" + ".join(there), _LABEL_WIDTH)
    if len(lines) > 2:
        absent = [name for name in names if name not in there]
        text = "all but " + ", ".join(absent) if absent else f"all {len(names)} modalities"
        lines = min(lines, textwrap.wrap(text, _LABEL_WIDTH), key=len)
    return "\n".join([*lines[:1], short(" ".join(lines[1:]), _LABEL_WIDTH)]).rstrip()


def short(text: str, width: int = 24) -> str:
    """At most so many characters, an ellipsis for the rest."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def legend_below(panel: Any, axes: Axes, columns: int = 2, **style: Any) -> None:
    """The legend of the axes below their panel, where no point can lie."""
    panel.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, **{"fontsize": 9, "frameon": False} | style)


def name_rows(axes: Axes, texts: Sequence[str], size: float = 9) -> None:
    """Name the rows 0, 1, … of a panel, the first on top."""
    # A few rows would else stand a hand's breadth apart; room for five keeps them together at the top.
    axes.set_ylim(max(len(texts), 5) - 0.4, -0.6)
    axes.set_yticks(np.arange(len(texts)), list(texts), fontsize=size, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    plain(axes)


def plain(axes: Axes) -> None:
    """Take away what a panel does not need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)

"""Panels of the report: one PNG each, small enough to be read on a phone, drawn without pyplot."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from cm2pyro.diagnostics.plots import BLUE, GREY, ORANGE, plain, words_as_they_are
from cm2pyro.diagnostics.report.parts import Picture

Array = NDArray[np.float64]

DARK = "#08306b"  # outlines of densities
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_POINTS = (
    ORANGE,
    "#009E73",
    "#A0307C",
    "#000000",
    "#E69F00",
    GREY,
    "#56B4E9",
    BLUE,
)  # of Okabe and Ito, the purple darker; blue last: densities are blue
LINES = ("-", "--", "-.", ":")
POINTS = 1500  # drawn in one panel; more would hide one another
_DPI = 150
_PALETTE = 96  # colours of a PNG


class Drawn:
    """A panel in the making; `picture` is there when its block has ended."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.axes: Axes = figure.subplots()
        self.picture: Picture

    def rows(self, heights: Sequence[float]) -> list[Axes]:
        """Axes above one another in place of one."""
        self.figure.clear()
        return list(self.figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))


@contextmanager
def panel(alt: str, label: str = "", size: tuple[float, float] = (4.4, 3.4)) -> Iterator[Drawn]:
    """Draw into `axes` of what is yielded; size in inches of 150 dots."""
    drawn = Drawn(Figure(figsize=size, dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06), facecolor="white"))
    yield drawn
    for axes in drawn.figure.axes:
        axes.tick_params(labelsize=9)
    words_as_they_are(drawn.figure)
    drawn.picture = Picture(painted(drawn.figure), alt, label)


def painted(figure: Figure) -> bytes:
    """The figure as a PNG."""
    raw, small = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_png(raw)
    with Image.open(raw) as image:
        _with_palette(image.convert("RGB")).save(small, "PNG", optimize=True)
    return small.getvalue()


def _with_palette(image: Image.Image) -> Image.Image:
    """The picture in `_PALETTE` colours, a third of the bytes: the most frequent, and ours, of which a legend may show a few points alone.

    Pillow's own ways merge colours that few points have, or tint the ground.
    """
    pixels = np.asarray(image, dtype=np.int64) @ (1 << 16, 1 << 8, 1)  # one number a colour
    found, place, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    own = [int(color[1:], 16) for color in {*COLORS, *_POINTS, DARK}]
    kept = np.unique([*found[np.argsort(-counts, kind="stable")][: _PALETTE - len(own)], *own])
    parts = [np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1) for colors in (kept, found)]
    nearest = cKDTree(parts[0]).query(parts[1])[1].astype(np.uint8)
    made = Image.fromarray(nearest[place].reshape(pixels.shape))
    made.putpalette(parts[0].astype(np.uint8).tobytes())
    return made


def titled(axes: Axes, title: str, x: str, y: str) -> None:
    """Heading and axis labels; text with a dollar sign stays text."""
    axes.set_title(title, fontsize=11, loc="left", parse_math=False, wrap=True)
    axes.set_xlabel(x, fontsize=10, parse_math=False)
    axes.set_ylabel(y, fontsize=10, parse_math=False)
    axes.grid(alpha=0.25)
    plain(axes)


def legend(axes: Axes) -> None:
    """Under the panel, where no line can lie."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) > 12 else 3
        made = axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
        for handle in made.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([28])
                handle.set_alpha(1)
        for text in made.get_texts():
            text.set_parse_math(False)


def lines(axes: Axes, x: Sequence[float], series: dict[str, Sequence[float | None]]) -> None:
    """A line a name, told apart by colour and by stroke; None leaves a gap."""
    for i, (name, values) in enumerate(series.items()):
        y = np.array([np.nan if value is None else value for value in values], dtype=float)
        style = LINES[(i // len(COLORS) + i) % len(LINES)]
        marker = "o" if len(y) < 25 else None
        axes.plot(x, y, linestyle=style, color=COLORS[i % len(COLORS)], marker=marker, markersize=3, linewidth=1.5, label=name)


def component_color(k: int) -> str:
    return _POINTS[k % len(_POINTS)]


def points(axes: Axes, shown: Array, component: NDArray[Any], components: int, weights: Array | None = None) -> None:
    """A point a row (n, 2), coloured by component; where there are more components than colours all look the same.

    Args:
        weights: (components,), named in the legend.
    """
    size = float(np.clip(200 / np.sqrt(max(len(shown), 1)), 5.0, 14.0))
    several = components <= len(_POINTS)
    for k in range(components) if several else (0,):
        own = component == k if several else np.ones(len(shown), dtype=bool)
        label = f"component {k + 1}" if weights is None else f"{k + 1}: {weights[k]:.0%}"
        axes.scatter(
            shown[own, 0],
            shown[own, 1],
            s=size,
            color=component_color(k),
            marker=MARKERS[k % len(MARKERS)],
            linewidths=0,
            alpha=0.55,
            label=label if several and components > 1 else None,
        )


def spread_rows(n: int, most: int = POINTS) -> NDArray[np.int64]:
    """Evenly taken positions of n rows, at most `most`."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.zeros(0, dtype=np.int64)

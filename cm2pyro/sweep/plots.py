"""The picture of a sweep: metrics against the values of each key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from cm2pyro.diagnostics.plots import COLORS, GREY, MARKERS, ORANGE, plain, sheet
from cm2pyro.sweep import metrics
from cm2pyro.sweep.reference import Reference
from cm2pyro.sweep.space import Axis, Choice, Range, as_text
from cm2pyro.sweep.table import Entry, Results

_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}
_MOST_LINES = 8
_MOST_TICKS = 10
_LOG = 50  # ratio of the ends from which numbers are shown on a log scale


def draw(results: Results, path: str | Path) -> None:
    """Write a picture: a panel per metric and key, or where one key is varied per metric and split; bars as `Entry.interval` says.

    Two keys: a line per value of the other one. More: every setting a dot, and a line through the settings that differ from the chosen
    one in this key alone. Draws of a random search are dots.

    Args:
        path: replaced if it exists; PDF, SVG or PNG by its suffix.

    Raises:
        DataError: a path that cannot be written.
    """
    experiment = results.experiment
    keys = experiment.panels or tuple(axis.key for axis in experiment.axes)
    axes_of = {axis.key: axis for axis in experiment.axes}
    if len(keys) == 1:
        cells = [[(f"{split}_{name}", keys[0]) for name in experiment.show] for split in results.splits]
    else:
        cells = [[(f"{split}_{name}", key) for key in keys] for name, split in product(experiment.show, results.splits)]
    wide = len(cells[0])
    with sheet(path, experiment.title, (max(8.0, (4.8 if wide > 2 else 6.0) * wide), 1.0 + 4.0 * len(cells))) as figure:
        grid = figure.subplots(len(cells), wide, squeeze=False)
        for row, line in zip(grid, cells, strict=True):
            for i, (axes, (metric, key)) in enumerate(zip(row, line, strict=True)):
                _panel(axes, results, metric, axes_of[key], named=i == 0 or len(keys) > 1)
                axes.set_title(f"{_name(metric)}, {metrics.SPLITS[metrics.split_of(metric)]}", fontsize=11, loc="left")
                plain(axes)
        handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        seeds = len(experiment.seeds)
        bars = f"mean ± sd of {seeds} seeds" if seeds > 1 else "bars: 95% bootstrap interval over subjects"
        style = {"ncols": min(5, len(handles)), "fontsize": 9, "title_fontsize": 9, "frameon": False}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", title=bars, **style)


def _name(metric: str) -> str:
    return _NAMES.get(metrics.bare(metric), metrics.bare(metric).replace("_", " "))


@dataclass(frozen=True)
class _Scale:
    """Where the values of a key stand. words: of the places 0, 1, …, none for numbers. ticks: places to name, if few."""

    place: dict[str, float]
    words: tuple[str, ...] = ()
    log: bool = False
    ticks: tuple[float, ...] = ()

    @classmethod
    def of(cls, axis: Axis, entries: Sequence[Entry]) -> _Scale:
        if not isinstance(axis, Choice):
            return cls({as_text(entry.setting[axis.key]): float(entry.setting[axis.key]) for entry in entries}, log=axis.log)
        numbers, texts = _numbers(axis.values), [as_text(value) for value in axis.values]
        if numbers is None:
            return cls({text: float(i) for i, text in enumerate(texts)}, tuple(texts))
        wide = min(numbers) > 0 and max(numbers) >= _LOG * min(numbers)
        return cls(dict(zip(texts, numbers, strict=True)), (), wide, tuple(numbers) if len(numbers) <= _MOST_TICKS else ())

    def beside(self, places: np.ndarray, shift: float) -> np.ndarray:
        """Places, moved apart a little so that bars do not hide each other; shift from −0.5 to 0.5."""
        known = np.array(sorted(set(self.place.values())))
        if self.log:
            return np.asarray(places * (known.max() / known.min()) ** (0.015 * shift))
        return np.asarray(places + shift * (0.5 if self.words else 0.015 * np.ptp(known)))


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """The values as numbers, also those of `mcar:0.1, mcar:0.5`; None if they are words."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    parts = [value.partition(":") for value in values if isinstance(value, str)]
    if len(parts) < len(values) or len({head for head, _, _ in parts}) != 1:
        return None
    try:
        return [float(tail) for _, _, tail in parts]
    except ValueError:
        return None


def _panel(axes: Axes, results: Results, metric: str, axis: Axis, named: bool) -> None:
    """named: whether words stand beside the panel, or only beside the one to its left."""
    experiment, chosen = results.experiment, results.chosen
    entries = [entry for entry in results.entries if math.isfinite(entry.interval(metric, experiment.seeds)[0])]
    if not entries:
        axes.set(xticks=[], yticks=[], xlabel="no setting has this metric")
        return
    scale = _Scale.of(axis, entries)
    lines, dots = _lines(results, axis, entries)
    if dots:
        points = [(scale.place[as_text(entry.setting[axis.key])], entry.interval(metric, experiment.seeds)[0]) for entry in dots]
        axes.plot(*_across(scale, *np.transpose(points)), "o", color=GREY, alpha=0.5, markersize=4, label="every setting")
    for i, (label, part) in enumerate(lines.items()):
        beside = i / (len(lines) - 1) - 0.5 if len(lines) > 1 else 0.0
        places = scale.beside(np.array([scale.place[as_text(entry.setting[axis.key])] for entry in part]), beside)
        value, low, high = np.transpose([entry.interval(metric, experiment.seeds) for entry in part])
        order = np.argsort(places, kind="stable")
        lengths = np.nan_to_num(np.maximum(0, [value - low, high - value]))[:, order]
        x, y = _across(scale, places[order], value[order])
        axes.errorbar(
            x,
            y,
            xerr=lengths if scale.words else None,
            yerr=None if scale.words else lengths,
            color=COLORS[i % len(COLORS)],
            fmt=MARKERS[i % len(MARKERS)],
            linestyle="none" if scale.words else "-",
            markersize=5,
            linewidth=1,
            elinewidth=1.2,
            capsize=2,
            label=label or None,
        )
        rings = [at for at, entry in enumerate(part) if entry in chosen]
        if rings:
            color = ORANGE if len(lines) == 1 else "black"
            axes.plot(*_across(scale, places[rings], value[rings]), "o", ms=13, mfc="none", mec=color, label="chosen")
    for i, reference in enumerate(one for one in experiment.references if metric in one.names):
        _publish(axes, scale, axis.key, reference, metric, i)
    if isinstance(axis, Range) and not axis.log:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=axis.whole))
    _dress(axes, scale, experiment.labels.get(axis.key, axis.key), _name(metric), named)


def _publish(axes: Axes, scale: _Scale, key: str, reference: Reference, metric: str, place: int) -> None:
    """Published numbers: marks at the values they are for, a line where they are for a study as a whole."""
    points = [point for point in reference.points if metric in point.values]
    precise = [(as_text(point.at[key]), point.values[metric]) for point in points if key in point.at]
    known = [(scale.place[text], value) for text, value in precise if text in scale.place]
    if known:
        axes.plot(*_across(scale, *np.transpose(known)), "Dd"[place % 2], color=GREY, ms=6, mfc="none", label=reference.source)
    for point in points:
        if not point.at:
            line = axes.axvline if scale.words else axes.axhline
            line(point.values[metric], color=GREY, linewidth=1, linestyle=(":", "--", "-.")[place % 3], label=reference.source)


def _lines(results: Results, axis: Axis, entries: list[Entry]) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """Label -> settings that one line joins; and settings that are dots."""
    experiment = results.experiment
    others = [other for other in experiment.axes if other.key != axis.key]
    chosen = [entry for entry in results.chosen if entry in entries]
    if not all(isinstance(one, Choice) for one in experiment.axes) or any(entry.number is not None for entry in entries):
        return {"": chosen} if chosen else {}, entries
    if not others:
        return {"": entries} if entries else {}, []
    if len(others) == 1 and isinstance(others[0], Choice) and len(others[0].values) <= _MOST_LINES:
        name, found = experiment.labels.get(others[0].key, others[0].key), {}
        for value in others[0].values:
            part = [entry for entry in entries if as_text(entry.setting[others[0].key]) == as_text(value)]
            if part:
                found[f"{name}: {as_text(value)}"] = part
        return found, []
    if len(chosen) != 1:
        return {}, entries
    near = [entry for entry in entries if all(entry.setting[other.key] == chosen[0].setting[other.key] for other in others)]
    return {"other keys as chosen": near}, entries


def _across(scale: _Scale, places: Any, values: Any) -> tuple[Any, Any]:
    """Words stand on the left, one below the other, numbers along the bottom."""
    return (values, places) if scale.words else (places, values)


def _dress(axes: Axes, scale: _Scale, key: str, metric: str, named: bool) -> None:
    axes.grid(alpha=0.25)
    if scale.words:
        axes.set_yticks(range(len(scale.words)), list(scale.words) if named else [], fontsize=9)
        axes.set(xlabel=metric, ylabel=key if named else "", ylim=(len(scale.words) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return
    axes.set(xlabel=key, ylabel=metric)
    if scale.log:
        axes.set_xscale("log")
    if scale.ticks:
        axes.set_xticks(scale.ticks, [f"{place:g}" for place in scale.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())

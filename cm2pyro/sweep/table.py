"""What a sweep has found: a row a trial, a row a setting, and the choice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cm2pyro.sweep import metrics
from cm2pyro.sweep.experiment import Experiment
from cm2pyro.sweep.reference import Reference
from cm2pyro.sweep.space import Setting, as_text
from cm2pyro.sweep.trial import DONE

Record = dict[str, Any]


@dataclass(eq=False)
class Entry:
    """A setting with its trials.

    Attributes:
        setting: key -> value. trials: seed -> folder of the run. records: seed -> what its process left. number: in a study of Optuna.
        ours: whether the runs lie in this sweep's folder.
    """

    setting: Setting
    trials: dict[int, str] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    number: int | None = None
    ours: bool = True

    def complete(self, seeds: Sequence[int]) -> bool:
        """Whether every seed has ended, well or not."""
        return all(seed in self.records for seed in seeds)

    def value(self, metric: str, seed: int) -> float:
        """A metric such as val_auroc; NaN where there is none."""
        return _number(self.records.get(seed, {}), metric, "value")

    def values(self, metric: str, seeds: Sequence[int]) -> np.ndarray:
        """(seeds,), NaN where there is none."""
        return np.array([self.value(metric, seed) for seed in seeds])

    def score(self, metric: str, seeds: Sequence[int]) -> float:
        """Mean over all seeds, NaN if one is missing; greater is better."""
        return float(metrics.sign(metric) * self.values(metric, seeds).mean())

    def interval(self, metric: str, seeds: Sequence[int]) -> tuple[float, float, float]:
        """Mean, low, high: of several seeds that ended well mean ± sd, of one the bootstrap interval over subjects; NaN where undefined."""
        values = self.values(metric, seeds)
        good = [seed for seed, value in zip(seeds, values, strict=True) if math.isfinite(value)]
        if len(good) > 1:
            mean, sd = float(np.nanmean(values)), float(np.nanstd(values, ddof=1))
            return mean, mean - sd, mean + sd
        record = self.records.get(good[0], {}) if good else {}
        low, value, high = (_number(record, metric, what) for what in ("low", "value", "high"))
        return value, low, high


def _number(record: Record, metric: str, what: str) -> float:
    found = record.get(metrics.split_of(metric), {}).get(metrics.bare(metric), {}).get(what)
    return math.nan if found is None else float(found)


class Results:
    """Tables of a sweep.

    Args:
        experiment: what was asked. entries: the settings, in the order in which they were taken up.
    """

    def __init__(self, experiment: Experiment, entries: Sequence[Entry]) -> None:
        self.experiment, self.entries = experiment, list(entries)
        self.splits = [split for split in metrics.SPLITS if any(split in r for entry in self.entries for r in entry.records.values())]

    @property
    def chosen(self) -> list[Entry]:
        """The setting with the best mean of the metric over seeds; one of which a seed failed is not chosen. The first of equals.

        Where the rows that settings are judged by are varied too, as by masks, the best for each of these values.
        """
        best: dict[tuple[str, ...], tuple[float, Entry]] = {}
        for entry in self.entries:
            score, rows = entry.score(self.experiment.metric, self.experiment.seeds), self._rows(entry)
            if math.isfinite(score) and (rows not in best or score > best[rows][0]):
                best[rows] = score, entry
        return [entry for _, entry in best.values()]

    def _rows(self, entry: Entry) -> tuple[str, ...]:
        """What says by which rows a setting is judged."""
        return tuple(as_text(entry.setting[key]) for key in self.experiment.conditions)

    def trials(self) -> pd.DataFrame:
        """A row a trial: setting, its values, seed, status, metrics with the bounds of the metric that the choice goes by."""
        return pd.DataFrame(list(self._trial_rows()))

    def _trial_rows(self) -> Iterator[dict[str, Any]]:
        metric = self.experiment.metric
        for i, entry in enumerate(self.entries, 1):
            for seed in self.experiment.seeds:
                record = entry.records.get(seed, {})
                row: dict[str, Any] = {"setting": i} | {key: as_text(value) for key, value in entry.setting.items()}
                row |= {"seed": seed, "trial": entry.trials.get(seed), "status": record.get("status", "not run")}
                row |= {"reason": record.get("reason", record.get("test_reason", ""))}
                row |= {key: record.get(key) for key in ("seconds", "epochs", "best_epoch")}
                row |= {f"{metric}_{what}": _number(record, metric, what) for what in ("low", "high")}
                for split in self.splits:
                    row |= {f"{split}_{name}": found["value"] for name, found in record.get(split, {}).items()}
                yield row

    def settings(self) -> pd.DataFrame:
        """A row a setting, the best first: mean and sd over seeds of every metric, and the difference to the chosen one.

        `difference` is the mean over seeds of metric minus the chosen setting's with the same seed, `se_difference` its standard error.
        `reference` columns hold published numbers for the same values.
        """
        experiment = self.experiment
        chosen = {self._rows(entry): entry for entry in self.chosen}
        rows = []
        for i, entry in enumerate(self.entries, 1):
            best = chosen.get(self._rows(entry))
            row: dict[str, Any] = {"setting": i} | {key: as_text(value) for key, value in entry.setting.items()}
            done = sum(record.get("status") == DONE for record in entry.records.values())
            row |= {"chosen": int(entry is best), "seeds": done, "failed": len(entry.records) - done}
            for name in self._columns():
                mean, sd = _mean_sd(entry.values(name, experiment.seeds))
                row |= {name: mean, f"{name}_sd": sd}
            if best is not None:
                apart = entry.values(experiment.metric, experiment.seeds) - best.values(experiment.metric, experiment.seeds)
                mean, sd = _mean_sd(apart)
                row |= {"difference": mean, "se_difference": sd / math.sqrt(np.isfinite(apart).sum() or 1)}
            row |= {_column(one, name): one.at(entry.setting, name) for one in experiment.references for name in one.names}
            rows.append(row)
        orders = list(dict.fromkeys(self._rows(entry) for entry in self.entries))
        # Best first, settings with a failure last.
        ranks = [(orders.index(self._rows(entry)), -entry.score(experiment.metric, experiment.seeds)) for entry in self.entries]
        order = sorted(range(len(rows)), key=lambda i: (ranks[i][0], math.isnan(ranks[i][1]), ranks[i][1]))
        return pd.DataFrame([rows[i] for i in order])

    def _columns(self) -> list[str]:
        """Metrics of all splits, that of the choice first."""
        found = {
            f"{split}_{name}": None
            for split in self.splits
            for entry in self.entries
            for record in entry.records.values()
            for name in record.get(split, {})
        }
        return list(dict.fromkeys([self.experiment.metric, *found]))

    def lines(self) -> list[str]:
        """The tables for people, one of each split: mean ± sd of what is looked at."""
        experiment, frame = self.experiment, self.settings()
        keys = [axis.key for axis in experiment.axes]
        found = []
        for split in self.splits:
            shown = [f"{split}_{name}" for name in experiment.show]
            if split == metrics.VAL:
                shown = list(dict.fromkeys([experiment.metric, *shown]))
            columns = {key: frame[key] for key in keys}
            for name in shown:
                columns[name] = pd.Series([_plus_minus(*pair) for pair in zip(frame[name], frame[f"{name}_sd"], strict=True)])
            for one in experiment.references:
                of = [name for name in one.names if metrics.split_of(name) == split]
                if of:
                    numbers = frame[[_column(one, name) for name in of]].map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
                    columns[f"{one.source}: {' / '.join(map(metrics.bare, of))}"] = numbers.agg(" / ".join, axis=1).replace(
                        " / ".join("–" * len(of)), "–"
                    )
            if split == metrics.VAL:
                if len(experiment.seeds) > 1 and "difference" in frame:
                    pairs = zip(frame["difference"], frame["se_difference"], strict=True)
                    columns["difference ± se"] = pd.Series(["–" if math.isnan(mean) else f"{mean:+.4f} ± {se:.4f}" for mean, se in pairs])
                marks = zip(frame["chosen"], frame["failed"], strict=True)
                columns[""] = pd.Series(["chosen" if chosen else f"{failed} failed" if failed else "" for chosen, failed in marks])
            found += [f"{metrics.SPLITS[split]}:", *_aligned(pd.DataFrame(columns))]
        return found

    def failures(self) -> list[str]:
        """The reasons of failed trials, each once, with how many it stopped."""
        reasons = [record["reason"] for entry in self.entries for record in entry.records.values() if record.get("reason")]
        return [f"{reasons.count(reason)} failed: {reason}" for reason in dict.fromkeys(reasons)]


def _column(reference: Reference, metric: str) -> str:
    return f"reference {metric} ({reference.source})"


def _aligned(frame: pd.DataFrame) -> list[str]:
    rows = [list(map(str, frame)), *(list(map(str, row)) for row in frame.to_numpy())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _mean_sd(values: np.ndarray) -> tuple[float, float]:
    """Over those that are there; sd NaN of fewer than two."""
    values = values[np.isfinite(values)]
    return (float(values.mean()) if len(values) else math.nan, float(values.std(ddof=1)) if len(values) > 1 else math.nan)


def _plus_minus(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"

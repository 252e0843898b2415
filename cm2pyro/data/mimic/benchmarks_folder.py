"""A task folder that mimic3-benchmarks has prepared: listfiles and one CSV of events an episode, into a manifest and a table.

    <task>/train/listfile.csv, <task>/train/10011_episode1_timeseries.csv, …; <task>/test/ likewise; <task>/val_listfile.csv where made

The listfile tells the task: `stay,y_true` is in-hospital mortality, `stay,period_length,<25 titles>` is phenotyping. Values are those of
the episodes; what no living adult can show is left out, as `prepare mimic3` does, because the benchmark keeps it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2pyro.data.csv_file import read_columns
from cm2pyro.data.mimic.phenotypes import TITLES
from cm2pyro.data.mimic.spool import LONG
from cm2pyro.data.mimic.variables import CATEGORIES, RANGES, VARIABLES, code_of
from cm2pyro.data.splits import assign_splits, check_fractions
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import check_out_folder, fresh_folder
from cm2pyro.registry import one_line

__all__ = ["FolderSummary", "is_benchmarks_folder", "prepare_folder"]

_COMA = {"eye opening": "gcs_eye", "motor response": "gcs_motor", "total": "gcs_total", "verbal response": "gcs_verbal"}
# Column of an episode, in lower case and with the benchmark's own spelling of Glasgow -> variable.
_COLUMNS = {name.replace("_", " "): name for name in VARIABLES if name not in _COMA.values()}
_COLUMNS |= {f"glascow coma scale {part}": name for part, name in _COMA.items()}
_STAY = re.compile(r"(\d+)_episode\d+(?=_timeseries\.csv$)")
_GROUP = 200  # episodes held in memory
_SLACK = 1e-6  # hours by which the benchmark itself lets an event precede the stay


@dataclass(frozen=True)
class FolderSummary:
    """What `prepare_folder` wrote: counts of episodes, of values, and of values left out by reason and variable."""

    out: Path
    task: str
    episodes: int
    patients: int
    splits: dict[str, int]
    labels: dict[str, int]
    empty: int
    values: int
    coverage: dict[str, int]
    dropped: dict[str, int]
    own_val: bool

    def lines(self) -> list[str]:
        """Plain lines for a person."""
        val = "val_listfile.csv" if self.own_val else "--splits, of the subjects in train/"
        shares = ", ".join(f"{name} {count:,} ({count / self.episodes:.1%})" for name, count in self.labels.items())
        return [
            f"wrote {self.out}: manifest.csv, vitals.parquet, prepared.json",
            f"{self.task}: {self.episodes:,} episodes, {self.patients:,} patients; "
            + ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
            + f"; test is the folder's own, val by {val}",
            f"positive: {shares}",
            f"values: {self.values:,}; episodes without any: {self.empty:,}",
            "values left out: " + (", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items()) or "none"),
        ]


@dataclass(frozen=True)
class _Episode:
    path: Path
    sample: str
    subject: str
    labels: dict[str, int]


def is_benchmarks_folder(records: Path) -> bool:
    """Whether a folder is laid out as `prepare_folder` reads it, not as the official tables."""
    return any((records / part / "listfile.csv").is_file() for part in ("train", "test"))


def prepare_folder(records: str | Path, out: str | Path, splits: Mapping[str, float], seed: int, overwrite: bool) -> FolderSummary:
    """Write `manifest.csv`, `vitals.parquet` (long: sample_id, hours, variable, value) and `prepared.json` into the folder `out`.

    The label columns are `label_mortality` or `label_<phenotype>`; a sample is an episode and is named `<subject>_episode<N>`.

    Args:
        records: the folder of a task, with train/ or test/ or both.
        splits: what is in test/ is test. Of train/, val is what val_listfile.csv names; without that file its subjects are divided as
            `train` and `val` are to each other here, and `test` plays no part.
        seed: seeds that division. overwrite: replace a folder that holds an earlier `manifest.csv`.

    Raises:
        ConfigError: the splits, the seed or `out` cannot be used.
        DataError: a file is missing or malformed, the task is another one, an episode stands twice, or a subject is in train/ and test/.
    """
    records, out, splits = Path(records), Path(out), check_fractions(splits)
    check_out_folder(out, overwrite, "manifest.csv", [records])
    shares = {name: share for name, share in splits.items() if name != "test"}
    if not shares:
        raise ConfigError("splits: found test alone, but train/ and test/ of the folder are kept apart; give train, or train and val")
    parts = {part: _read_list(records / part / "listfile.csv", records / part) for part in ("train", "test") if (records / part).is_dir()}
    if not any(parts.values()):
        raise DataError(f"{records}: has no episodes in train/ or test/, expected a task folder of mimic3-benchmarks; name one")
    episodes = sorted((episode for part in parts.values() for episode in part), key=lambda episode: episode.sample)
    split_of, own_val = _split(records, parts, shares, seed)
    manifest = pd.DataFrame(
        {
            "sample_id": [e.sample for e in episodes],
            "subject_id": [e.subject for e in episodes],
            "split": [split_of[e.sample] for e in episodes],
        }
    )
    for label in _labels(records, episodes):
        manifest[label] = [e.labels[label] for e in episodes]

    with fresh_folder(out, overwrite, "manifest.csv") as folder:
        counts = _write_vitals(episodes, folder / "vitals.parquet")
        labels = {str(name): int(manifest[name].sum()) for name in manifest.columns[3:]}
        summary = FolderSummary(
            out=out,
            task="in-hospital mortality" if len(labels) == 1 else "phenotyping",
            episodes=len(episodes),
            patients=int(manifest["subject_id"].nunique()),
            splits={name: int((manifest["split"] == name).sum()) for name in ("train", "val", "test") if (manifest["split"] == name).any()},
            labels=labels,
            empty=counts.empty,
            values=counts.values,
            coverage={name: counts.coverage[name] for name in VARIABLES},
            dropped=dict(sorted(counts.dropped.items())),
            own_val=own_val,
        )
        content = {"source": "mimic3-benchmarks", "fractions": splits, "seed": seed} | asdict(summary)
        del content["out"]  # a folder can be moved
        content |= {"variables": list(VARIABLES), "ranges": RANGES, "categories": CATEGORIES}
        (folder / "prepared.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        manifest.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    return summary


def _read_list(path: Path, folder: Path) -> list[_Episode]:
    """The episodes that a listfile names, their files in `folder`."""
    columns, rows = read_columns(path, str(path))
    titles = {title: f"label_{name}" for name, title in TITLES.items()}
    if list(columns) == ["stay", "y_true"]:
        labels = {"label_mortality": columns["y_true"]}
    elif list(columns)[:2] == ["stay", "period_length"] and set(columns) - {"stay", "period_length"} == set(titles):
        labels = {label: columns[title] for title, label in titles.items()}
    else:
        raise DataError(
            f"{path}, row 1: found the columns {one_line(', '.join(columns), 80)}, expected stay,y_true (in-hospital mortality) or stay, "
            "period_length and 25 conditions (phenotyping); name the folder of one of these tasks"
        )
    episodes = []
    for i, (row, stay) in enumerate(zip(rows, columns["stay"], strict=True)):
        match = _STAY.match(stay)
        if match is None:
            raise DataError(f"{path}, row {row}: found the stay '{one_line(stay, 60)}', expected one such as 10011_episode1_timeseries.csv")
        for label, cells in labels.items():
            if cells[i] not in ("0", "1"):
                raise DataError(f"{path}, row {row}: found '{one_line(cells[i], 30)}' for {label}, expected 0 or 1; correct the row")
        if not (folder / stay).is_file():
            raise DataError(f"{path}, row {row}: names {stay}, which is not in {folder}; prepare the task again or remove the row")
        episodes.append(_Episode(folder / stay, match[0], match[1], {label: int(cells[i]) for label, cells in labels.items()}))
    return episodes


def _labels(records: Path, episodes: list[_Episode]) -> list[str]:
    labels = list(episodes[0].labels)
    if any(list(episode.labels) != labels for episode in episodes):
        raise DataError(f"{records}: the listfiles of train/ and test/ are of different tasks, expected one; name the folder of a task")
    return labels


def _split(records: Path, parts: dict[str, list[_Episode]], shares: Mapping[str, float], seed: int) -> tuple[dict[str, str], bool]:
    """Sample -> split, and whether the folder's own val_listfile.csv decided."""
    split_of: dict[str, str] = {}
    home: dict[str, str] = {}
    for part, episodes in parts.items():
        for episode in episodes:
            if episode.sample in split_of:
                raise DataError(f"{records}: {episode.sample} stands twice in the listfiles, expected once; remove one row")
            if home.setdefault(episode.subject, part) != part:
                raise DataError(
                    f"{records}: subject {episode.subject} is in train/ and test/, expected one of them; prepare the task again"
                )
            split_of[episode.sample] = part
    path = records / "val_listfile.csv"
    training = {episode.sample: episode.subject for episode in parts.get("train", [])}
    if path.is_file():
        for episode in _read_list(path, records / "train"):
            if episode.sample not in training:
                raise DataError(f"{path}: names {episode.sample}, which train/listfile.csv does not; make the list again")
            split_of[episode.sample] = "val"
        torn = sorted({training[s] for s in training if split_of[s] == "val"} & {training[s] for s in training if split_of[s] == "train"})
        if torn:
            raise DataError(f"{path}: subject {torn[0]} has episodes inside and outside of it, expected all or none; make the list again")
        return split_of, True
    if training:
        total = sum(shares.values())
        assigned = assign_splits(training.values(), {name: share / total for name, share in shares.items()}, seed)
        split_of |= {sample: assigned[subject] for sample, subject in training.items()}
    return split_of, False


@dataclass
class _Counts:
    """Of `FolderSummary`: episodes without a value, values, episodes by variable, values left out."""

    empty: int = 0
    values: int = 0
    coverage: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def _write_vitals(episodes: list[_Episode], path: Path) -> _Counts:
    counts = _Counts()
    with pq.ParquetWriter(path, LONG) as writer:
        for start in range(0, len(episodes), _GROUP):
            rows = [list(_read_episode(episode, counts.dropped)) for episode in episodes[start : start + _GROUP]]
            counts.coverage.update(variable for episode in rows for variable in {row[2] for row in episode})
            counts.empty += sum(not episode for episode in rows)
            flat = [row for episode in rows for row in episode]
            counts.values += len(flat)
            columns = list(zip(*flat, strict=True)) or [()] * len(LONG)
            writer.write_table(pa.table(dict(zip(LONG.names, columns, strict=True)), schema=LONG))
    return counts


def _read_episode(episode: _Episode, dropped: Counter[str]) -> Iterator[tuple[str, float, str, float]]:
    """Rows (sample, hours, variable, value) by time and variable; what is left out is counted by reason and variable."""
    columns, rows = read_columns(episode.path, str(episode.path))
    known = {name.strip().lower(): name for name in columns}
    if set(known) != {"hours", *_COLUMNS}:
        odd = sorted(set(known) ^ {"hours", *_COLUMNS})
        raise DataError(
            f"{episode.path}, row 1: column '{one_line(odd[0], 60)}' is missing or unknown, expected Hours and the 17 variables"
        )
    order = sorted(((variable, columns[known[name]]) for name, variable in _COLUMNS.items()), key=lambda pair: pair[0])
    times = [_number(cell, f"{episode.path}, row {row}, column Hours") for row, cell in zip(rows, columns[known["hours"]], strict=True)]
    seen: set[tuple[float, str]] = set()
    for i in sorted(range(len(times)), key=lambda i: times[i]):
        hours = max(times[i], 0.0)
        for variable, cells in order:
            text = cells[i].strip()
            if not text:
                continue
            value: float | None
            if variable in CATEGORIES:
                value, reason = code_of(variable, text, math.nan), "unreadable"
            else:
                value, reason = _number(text, f"{episode.path}, row {rows[i]}, column {variable}"), "impossible"
                value = value if RANGES[variable][0] <= value <= RANGES[variable][1] else None
            if times[i] < -_SLACK:
                value, reason = None, "before the stay"
            elif (hours, variable) in seen:
                value, reason = None, "repeated"
            if value is None:
                dropped[f"{reason} {variable}"] += 1
                continue
            seen.add((hours, variable))
            yield episode.sample, hours, variable, float(value)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
        if "_" in cell or not math.isfinite(value):
            raise ValueError(cell)
    except ValueError:
        raise DataError(
            f"{where}: found '{one_line(cell, 30)}', expected a finite number; correct the file or prepare the task again"
        ) from None
    return value

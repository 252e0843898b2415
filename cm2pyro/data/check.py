"""What a manifest holds, as a fit would read it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cm2pyro.config import Config, Task
from cm2pyro.data.labels import UNLABELLED, Labels, classes_of, read_labels
from cm2pyro.data.manifest import PREDICT_ONLY, Manifest
from cm2pyro.data.prepared import Preparation


def describe(manifest: Manifest, config: Config, views: dict[str, tuple[str, ...]]) -> list[str]:
    """Read labels and every modality of every row; lines on what is there. Raises DataError at the first fault."""
    task = config.task
    absent = [column for column in task.columns if column not in manifest.frame]
    if absent:
        lines = [f"labels: no column '{column}'; {PREDICT_ONLY} or evaluate" for column in absent]
    else:
        classes = classes_of(manifest, task)
        lines = describe_labels(task, classes, read_labels(manifest, task, classes))
    preparation = Preparation.from_config(config, views)
    patterns = Counter(tuple(row) for row in preparation.observed(manifest).tolist())
    return lines + describe_observed(preparation.names, patterns, preparation.remarks)


def describe_observed(names: Sequence[str], patterns: Counter[tuple[bool, ...]], remarks: list[str]) -> list[str]:
    """How many rows have each modality, what readers had to say, and the patterns that occur: all that could would be 2^M."""
    rows = patterns.total()
    lines = []
    for m, name in enumerate(names):
        seen = sum(count for pattern, count in patterns.items() if pattern[m])
        lines.append(f"modality {name}: {seen} of {rows} rows ({seen / rows:.1%})" + ("" if seen else f"; {PREDICT_ONLY}"))
    lines += remarks
    for pattern in sorted(patterns, reverse=True) if len(names) > 1 else []:
        there = " + ".join(name for name, has in zip(names, pattern, strict=True) if has) or "nothing observed"
        lines.append(f"  {there}: {patterns[pattern]} rows")
    return lines


def describe_labels(task: Task, classes: tuple[str, ...], labels: Labels) -> list[str]:
    """What the label columns hold, a line each."""
    if task.type == "regression":
        seen = labels[np.isfinite(labels)]
        spread = f", mean {seen.mean():.4g}, sd {seen.std():.4g}, {seen.min():.4g} to {seen.max():.4g}" if len(seen) else ""
        return [f"labels in '{task.label}': {len(seen)} numbers{spread}, empty {len(labels) - len(seen)}"]
    columns, names = (labels.T, ("0", "1")) if task.type == "multilabel" else (labels[None], classes)
    return [
        f"labels in '{column}': "
        + ", ".join(f"{name} {int((values == i).sum())}" for i, name in enumerate(names))
        + f", empty {int((values == UNLABELLED).sum())}"
        for column, values in zip(task.columns, columns, strict=True)
    ]

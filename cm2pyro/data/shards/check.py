"""What shards hold, as a fit would read them, one at a time."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cm2pyro.config import Config
from cm2pyro.data.check import describe_labels, describe_observed
from cm2pyro.data.labels import read_labels
from cm2pyro.data.manifest import SPLITS
from cm2pyro.data.prepared import Preparation
from cm2pyro.data.shards.dataset import Part, Remarks
from cm2pyro.data.shards.index import Shards
from cm2pyro.data.shards.learn import classes_in


def describe(source: Shards, config: Config | None, views: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Lines on what is there; with a config labels and every modality of every row are read. Raises DataError at the first fault."""
    index = source.index
    yield f"{source.name}: {index.rows} rows, {index.subjects} subjects, {len(index.shards)} shards, columns {', '.join(index.columns)}"
    if "split" in index.columns:
        yield "splits: " + ", ".join(f"{split} {source.rows(split)}" for split in SPLITS)
    if config is None:
        return
    task, parts = config.task, [Part(shard) for shard in index.shards]
    absent = [column for column in task.columns if column not in index.columns]
    classes = () if absent else classes_in(source, parts, task)
    preparation, patterns, remarks, labels = Preparation.from_config(config, views), Counter[tuple[bool, ...]](), Remarks(), []
    for part in parts:
        with source.manifest(part.shard) as manifest:
            if not absent:
                labels.append(read_labels(manifest, task, classes).astype(np.float64 if task.type == "regression" else np.int16))
            patterns.update(tuple(row) for row in preparation.observed(manifest).tolist())
        remarks.add(preparation.remarks)
        preparation.remarks.clear()
    for column in absent:
        yield f"labels: no column '{column}'; enough to predict, not to fit or evaluate"
    if not absent:
        yield from describe_labels(task, classes, np.concatenate(labels))
    yield from describe_observed(preparation.names, patterns, remarks.lines())

"""Learning from the training rows of shards, one shard at a time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cm2pyro.config import Task
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.labels import UNLABELLED, Labels, check_training_labels, classes_of, read_labels
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.prepared import Preparation, absent_in_training
from cm2pyro.data.sampled import row_keys
from cm2pyro.data.scaling import Moments
from cm2pyro.data.shards.dataset import Part, Remarks, StreamedDataset, cells
from cm2pyro.data.shards.index import Shards
from cm2pyro.data.splits import training_rows

LIMIT = 32_768  # training rows from which quantiles are learned, a random sample where there are more; a quarter of it for tokenizers
_EXACT_ROWS = 100_000  # up to here held-out subjects are those that the same manifest would give in memory


def learn(preparation: Preparation, source: Shards, train: Sequence[Part], val: Sequence[Part]) -> StreamedDataset:
    """`Preparation.fit` on shards, and the training rows as a data set.

    Classes, variables, categories, channels are exact; means and sds agree to rounding, and are the same bits where there is one
    shard; quantiles and tokenizers come from a random sample of `LIMIT` rows (a quarter of it for notes), exact where there are
    no more. The empirical distribution function of n rows is within 1.36 / √n of the true one with probability 0.95 (Dvoretzky,
    Kiefer and Wolfowitz 1956; Massart 1990): 0.0075 for 32,768.
    """
    task = preparation.task
    preparation.classes = classes_in(source, [*train, *val], task)
    kinds = {name: make_kind(name, old.modality, old.views) for name, old in preparation.kinds.items()}
    learners = {name: kind.learner(LIMIT) for name, kind in kinds.items()}
    counts = dict.fromkeys(kinds, 0)
    labels, labelled, scaling, remarks = _Labels(task), 0, Moments.zeros(0), Remarks()
    reader = Preparation(task, kinds)
    for part in train:
        with source.manifest(part.shard, part.rows) as manifest:
            y = read_labels(manifest, task, preparation.classes)
            labels.add(y)
            labelled += int((np.isfinite(y) if task.type == "regression" else (y != UNLABELLED).reshape(len(y), -1).any(1)).sum())
            if task.type == "regression":
                scaling = scaling.plus(Moments.of(y[:, None]))
            rows, keys = np.arange(len(manifest)), row_keys(manifest.ids)
            for name, kind in kinds.items():
                raw = reader.read(kind, manifest)
                if raw is not None:
                    counts[name] += int(kind.observed(raw).sum())
                    learners[name].add(raw, rows, keys)
            remarks.add(reader.remarks)
            reader.remarks.clear()
    whole = Manifest(pd.DataFrame(), source.name, source.folder)  # for messages
    preparation.remarks += check_training_labels(whole, task, preparation.classes, labels.values())
    preparation.scaling = scaling.standard() if task.type == "regression" else None
    for name, kind in kinds.items():
        if not counts[name]:
            raise absent_in_training(whole, kind)
        learners[name].finish()
    preparation.kinds = kinds
    for kind in kinds.values():
        preparation.check_inputs(whole, kind)
    preparation.remarks += remarks.lines()
    return StreamedDataset(source, tuple(train), preparation, observed_rows=tuple(counts.values()), labelled_rows=labelled)


class _Labels:
    """The distinct labels of training rows; of numbers the smallest and the largest."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._found: Labels | None = None

    def add(self, labels: Labels) -> None:
        both = labels if self._found is None else np.concatenate([self._found, labels])
        if self.task.type == "regression":
            seen = both[np.isfinite(both)]
            self._found = np.array([seen.min(), seen.max()]) if len(seen) else np.zeros(0)
        else:
            self._found = np.unique(both, axis=0)

    def values(self) -> Labels:
        return np.zeros(0) if self._found is None else self._found


def classes_in(source: Shards, parts: Sequence[Part], task: Task) -> tuple[str, ...]:
    """`classes_of` the rows."""
    frame = pd.DataFrame()
    if task.type == "multiclass" and task.classes is None and task.label in source.index.columns:
        found = sorted({cell for part in parts for cell in cells(source, part, task.label)})
        frame = pd.DataFrame({task.label: found}, dtype=object)
    return classes_of(Manifest(frame, source.name, source.folder), task)


def training_parts(
    source: Shards, seed: int, share: float, held: set[str], labels: Sequence[str]
) -> tuple[list[Part], list[Part], dict[str, list[str]]]:
    """Rows to fit on and rows that stop the fit, as `splits.training_rows`.

    Of more than 100,000 training rows without `val` among them, a subject is held out where a number that depends on its id and the
    seed alone says so, and the run does not list them.

    Returns:
        both, and the held-out subjects and samples.
    """
    train = [Part(shard) for shard in source.of("train")]
    val = [Part(shard) for shard in source.of("val")]
    if val or not share or not train:
        return train, val, {"subjects": [], "samples": []}
    if sum(map(len, train)) <= _EXACT_ROWS:
        frames = [source.frame(part.shard, ["sample_id", "subject_id", "split", *labels]) for part in train]
        light = Manifest(pd.concat(frames, ignore_index=True), source.name, source.folder)
        _, rows, subjects = training_rows(light, seed, share, held, [label for label in labels if label in light.frame])
        out = np.zeros(len(light), dtype=bool)
        out[rows] = bool(subjects)
        names = {"subjects": subjects, "samples": [light.ids[i] for i in np.flatnonzero(out)]}
        outs = np.split(out, np.cumsum([len(part) for part in train])[:-1])
    else:
        limit = np.uint64(int(share * 2**64))
        outs = [row_keys(f"{seed} {subject.strip()}" for subject in cells(source, part, "subject_id")) < limit for part in train]
        names = {"subjects": [], "samples": []}
    pairs = list(zip(train, outs, strict=True))
    kept = [Part(part.shard, None if not out.any() else np.flatnonzero(~out)) for part, out in pairs if not out.all()]
    return kept, [Part(part.shard, np.flatnonzero(out)) for part, out in pairs if out.any()], names

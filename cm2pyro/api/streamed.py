"""Fit, predict and evaluate on data sets larger than memory: folders of shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cm2pyro.api.base import Base
from cm2pyro.data.dataset import Dataset, joined
from cm2pyro.data.missingness import Mechanism, hiding_probability
from cm2pyro.data.shards.dataset import Part, Remarks, StreamedDataset, chosen
from cm2pyro.data.shards.index import Shards
from cm2pyro.data.shards.learn import learn, training_parts
from cm2pyro.data.subgroups import group_rows, read_column
from cm2pyro.diagnostics.evaluation import Evaluation, Measures
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.files import atomic
from cm2pyro.inference import distributed
from cm2pyro.inference.predict import Prediction, predict
from cm2pyro.inference.prediction_columns import prediction_columns, report_columns
from cm2pyro.inference.variance import Decomposition, VarianceSplit

EVALUATED = 100_000  # rows that metrics are computed from, a random sample of subjects where there are more
_INDEPENDENT = ("mcar", "only", "without")  # of the rows: what they hide does not depend on the rest of the data


class Streamed(Base):
    """What reads shards. See `CM2`."""

    def _streamed_sets(self, data: str | Path, held: set[str]) -> tuple[StreamedDataset, Dataset]:
        """The training rows as a stream, and the validation rows, at most `HELD_ROWS` of them, in memory."""
        config = self.config
        for key, wrong in (
            ("guide.globals: nuts", config.guide.globals == "nuts"),
            # The posterior given a sample of the rows would be too wide for all of them; a point does well with a sample.
            ("fit.settle with a guide that has a spread", config.fit.settle and config.guide.globals not in ("delta", "nuts")),
            ("missingness.mask", config.missingness.mask is not None),
        ):
            if wrong:
                raise ConfigError(f"{key}: needs all rows in memory, and the data are shards; give the manifest itself, or change {key}")
        source = Shards.open(data)
        for column in ("split", "subject_id", *config.task.columns):
            if column not in source.index.columns:
                raise DataError(
                    f"{source.name}: column '{column}' is missing, and a fit needs it; add it to the manifest and shard it again"
                )
        train, val, self.holdout = training_parts(source, config.fit.seed, config.fit.validation, held, config.task.columns)
        if not train:
            raise DataError(f"{source.name}: no row has split 'train'; expected some to fit on")
        train_set = learn(self.preparation, source, train, val)
        self.say(f"{source.name}: {len(source.index.shards)} shards are streamed")
        if val and not source.of("val"):
            rows = sum(map(len, val))
            self.say(f"no row has split 'val': {rows} rows of training subjects are held out for validation")
        stopping = StreamedDataset(source, tuple(val or [Part(train[0].shard, np.zeros(0, dtype=np.int64))]), self.preparation)
        val_set = stopping.sample()
        if len(val_set) < len(stopping):
            self.say(f"a random sample of {len(val_set):,} of {len(stopping):,} validation rows stops the fit")
        return train_set, val_set

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predictions(self, data: str | Path, draws: int = 100, split: str | None = None) -> Iterator[pd.DataFrame]:
        """What `predict` gives, shard by shard.

        Args:
            data: a folder of shards. draws, split: as for `predict`.
        """
        if draws < 1:
            raise ConfigError(f"draws: found {draws}, expected 1 or more")
        programs, rows = self.programs, self._stream(data, split, labels=False)
        world = distributed.world()
        # Each of several processes reads shards of its own.
        mine = replace(rows, parts=rows.parts[distributed.rank() :: world]).datasets()
        for _ in range(0, len(rows.parts), world):
            with distributed.alone():
                frame = None
                for dataset in islice(mine, 1):
                    parts = VarianceSplit(programs, draws, self.config.fit.seed, self._map)
                    prediction = predict(programs, dataset, draws, self.config.fit.seed, recalibrate=self._map, also=parts.add)
                    frame = self._frame(dataset, prediction, parts.result())
            yield from (found for found in distributed.every(frame) if found is not None)
        for line in Remarks.merged(distributed.every(rows.remarks)).lines():
            self.say(line)

    def predict_to(self, data: str | Path, out: str | Path, draws: int = 100, split: str | None = None) -> int:
        """Write predictions.csv of a folder of shards, a shard at a time; the file appears whole. Returns its rows."""
        rows = 0
        if not distributed.first():
            return sum(map(len, self.predictions(data, draws, split)))
        with atomic(Path(out)) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
            for frame in self.predictions(data, draws, split):
                frame.to_csv(opened, index=False, header=not rows)
                rows += len(frame)
        return rows

    def _stream(self, data: str | Path, split: str | None, labels: bool) -> StreamedDataset:
        source = Shards.open(data)
        parts = tuple(Part(shard) for shard in source.of(split))
        if not parts:
            raise DataError(f"{source.name}: no row has split '{split}'; choose another --split or leave it out")
        n = source.rows(split)
        self.say(f"every row of {source.name} ({n})" if split is None else f"{n} rows with split '{split}' of {source.name}")
        return StreamedDataset(source, parts, self.preparation, labels)

    def _frame(self, dataset: Dataset, prediction: Prediction, parts: Decomposition) -> pd.DataFrame:
        scaling, task = self.preparation.scaling, self.config.task.type
        prediction, parts = prediction.in_units(scaling), parts.in_units(scaling)
        columns: dict[str, Any] = {"sample_id": list(dataset.ids)}
        columns |= prediction_columns(task, self.classes, prediction)
        # A fit that was cut before its end has no reference yet.
        columns["typicality"] = np.nan if self.reference is None else self.reference.percentiles(self.program, dataset)
        seen = dataset.observed.numpy()
        columns["observed"] = [";".join(np.array(self.names)[row]) for row in seen]
        columns["missing"] = [";".join(np.array(self.names)[~row]) for row in seen]
        return pd.DataFrame(columns | report_columns(task, self.names, prediction, parts))

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def _evaluate_shards(
        self,
        data: str | Path,
        split: str | None,
        missing: tuple[str, ...],
        draws: int,
        by: tuple[str, ...],
        mask_seed: int,
        rows: int,
        asked: Measures,
    ) -> Evaluation:
        """`evaluate` on at most `rows` rows (a random sample of subjects); labels, predictions and masks alone are held."""
        mechanisms = {text: Mechanism.parse(text, self.names) for text in missing}
        for text, mechanism in mechanisms.items():
            if mechanism.kind not in _INDEPENDENT:
                raise ConfigError(
                    f"--missing {text}: depends on all rows, and the data are shards; use mcar, only or without, or the manifest"
                )
        if split is None and Shards.open(data).of("test"):
            split = "test"
        stream = self._stream(data, split, labels=True)
        subject = "subject_id" if "subject_id" in stream.source.index.columns else "sample_id"
        parts = chosen(stream.source, stream.parts, rows, subject)
        gathered = {text: _Gathered() for text in ("", *missing)}
        noise = {text: np.random.default_rng(mask_seed) for text in missing}
        cells: dict[str, list[pd.Series]] = {column: [] for column in by}
        unlabelled = 0
        for part in parts:
            with self._part(stream, part, by) as (dataset, columns):
                labelled = dataset.labelled.nonzero()[:, 0].tolist()
                unlabelled += len(dataset) - len(labelled)
                dataset = dataset.take(labelled)
                for column, found in columns.items():
                    cells[column].append(found.iloc[labelled])
                for text, held in gathered.items() if labelled else ():
                    masked = dataset
                    if text:
                        probability = hiding_probability(dataset, mechanisms[text])
                        keep = noise[text].random(probability.shape) >= probability
                        masked = dataset.with_observed(dataset.observed & torch.from_numpy(keep))
                    held.add(masked, predict(self.programs, masked, draws, self.config.fit.seed, recalibrate=self._map))
        for line in stream.remarks.lines():
            self.say(line)
        total = sum(map(len, parts))
        if total < len(stream):
            self.say(f"a random sample of subjects, {total:,} of {len(stream):,} rows, is evaluated; --rows sets how many")
        self._say_unlabelled(unlabelled, total, stream.source.name)
        groups = {column: group_rows(pd.concat(series, ignore_index=True), column) for column, series in cells.items()}
        evaluations = {text: held.evaluation(self) for text, held in gathered.items()}
        for evaluation in evaluations.values():
            evaluation.metrics = evaluation.measure(asked, groups)
        result = evaluations.pop("")
        if evaluations:
            result.metrics["missing"] = {text: evaluation.metrics for text, evaluation in evaluations.items()}
        return result

    @contextmanager
    def _part(self, stream: StreamedDataset, part: Part, by: tuple[str, ...]) -> Iterator[tuple[Dataset, dict[str, pd.Series]]]:
        with stream.source.manifest(part.shard, part.rows) as manifest:
            dataset = self.preparation.transform(manifest, labels=True)
            yield dataset, {column: read_column(manifest, self.preparation.kinds, column) for column in by}
        stream.remarks.add(self.preparation.remarks)
        self.preparation.remarks.clear()


class _Gathered:
    """Labels, masks, ids and predictions of many shards, without inputs."""

    def __init__(self) -> None:
        self.datasets: list[Dataset] = []
        self.predictions: list[Prediction] = []

    def add(self, dataset: Dataset, prediction: Prediction) -> None:
        light = Dataset(
            dataset.names, {name: {} for name in dataset.names}, dataset.observed, dataset.labels, dataset.ids, dataset.subjects
        )
        self.datasets.append(light)
        self.predictions.append(prediction)

    def evaluation(self, model: Base) -> Evaluation:
        whole: dict[str, Any] = {}
        for entry in fields(Prediction):
            values = [getattr(prediction, entry.name) for prediction in self.predictions]
            whole[entry.name] = None if values[0] is None else np.concatenate(values)
        task, scaling = model.config.task.type, model.preparation.scaling
        return Evaluation(task, model.classes, joined(self.datasets), Prediction(**whole), scaling)

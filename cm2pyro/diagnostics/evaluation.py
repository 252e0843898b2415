"""Metrics of a fit together with what they were computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cm2pyro.data.dataset import Dataset
from cm2pyro.data.scaling import Standard
from cm2pyro.diagnostics.challenge import challenge_scores
from cm2pyro.diagnostics.metrics import evaluate
from cm2pyro.diagnostics.metrics_multilabel import evaluate_labels
from cm2pyro.diagnostics.metrics_regression import evaluate_numbers
from cm2pyro.diagnostics.resampling import Array
from cm2pyro.inference.predict import Prediction

FEW_EVENTS = 10  # rows of either outcome below which a metric and its bootstrap interval rest on single patients
ALIKE = 0.01  # sd of predictions over rows below which a fit has learned the base rate alone

Groups = dict[str, dict[str, Array]]
if TYPE_CHECKING:
    from cm2pyro.diagnostics.sensitivity import Sensitivity


@dataclass(frozen=True)
class Measures:
    """What is measured of predictions.

    Attributes:
        bootstrap: resamples of subjects for the intervals. seed: of these. patterns: also per missingness pattern.
        challenge: also the scores of a public challenge, see `challenge_scores`. threshold: that it needs, chosen on other rows.
    """

    bootstrap: int
    seed: int
    patterns: bool = False
    challenge: str | None = None
    threshold: float | None = None


class Evaluation:
    """Metrics with what they were computed from.

    Args:
        task: type of the task. classes: names of its classes or labels. dataset: the labelled rows.
        prediction: of these rows, as `predict` gives it. scaling: of a regression's labels, else None.

    Attributes:
        labels: (n,), of several labels (n, L), −1 where one is empty; of a regression in its own units.
        prediction: in the units of the labels. metrics: the content of metrics.json. sensitivity: with delta, what it found.
    """

    def __init__(self, task: str, classes: tuple[str, ...], dataset: Dataset, prediction: Prediction, scaling: Standard | None) -> None:
        self.task, self.classes, self.dataset = task, classes, dataset
        self.labels: Array = dataset.labels.numpy()
        if scaling is not None:
            self.labels = scaling.inverse(self.labels)
        self.prediction = prediction.in_units(scaling)
        self.metrics: dict[str, Any] = {}
        self.sensitivity: Sensitivity | None = None

    @property
    def probabilities(self) -> Array:
        """(n,) of class 1 in a binary task, else (n, C) of the classes or labels; meaningless in a regression."""
        return self.prediction.mean[:, 1] if self.task == "binary" else self.prediction.mean

    def measure(self, asked: Measures, by: Groups | None = None) -> dict[str, Any]:
        """See `evaluate`, `evaluate_labels` and `evaluate_numbers` in `diagnostics`.

        Args:
            by: column -> group -> rows; adds `by` with the same metrics per group.
        """
        bootstrap, seed = asked.bootstrap, asked.seed
        result = self._measure(np.arange(len(self.labels)), bootstrap, seed, asked.patterns)
        if asked.challenge is not None and asked.threshold is not None:
            subjects = np.array(self.dataset.subjects)
            scored = (self.labels, self.probabilities, asked.threshold, subjects)
            result["challenge"] = challenge_scores(asked.challenge, *scored, bootstrap, seed)
        if by:
            # The same seed for each, as for patterns: a group's interval does not depend on which others there are.
            result["by"] = {
                column: {group: self._measure(rows, bootstrap, seed, False) for group, rows in groups.items()}
                for column, groups in by.items()
            }
        return result

    def of_rows(self, rows: Array) -> dict[str, Any]:
        """The metrics of some of the rows (k,), without intervals."""
        return self._measure(rows, 0, 0, False)

    def _measure(self, rows: Array, bootstrap: int, seed: int, patterns: bool) -> dict[str, Any]:
        """The metrics of some of the rows (k,)."""
        observed = self.dataset.observed.numpy()[rows]
        shared = (np.array(self.dataset.subjects)[rows], observed, self.dataset.names, bootstrap, seed, patterns)
        if self.task == "regression":
            p = self.prediction
            return evaluate_numbers(self.labels[rows], p.mean[rows, 0], p.q05[rows, 0], p.q95[rows, 0], p.log_score[rows], *shared)
        if self.task == "multilabel":
            return evaluate_labels(self.labels[rows], self.probabilities[rows], self.classes, *shared)
        return evaluate(self.labels[rows], self.probabilities[rows], *shared)

    def remarks(self) -> list[str]:
        """Why metrics of a binary outcome may say less than their digits and intervals do, a line each."""
        if self.task != "binary" or not len(self.labels):
            return []
        rarer, said = int(min(self.labels.sum(), len(self.labels) - self.labels.sum())), []
        if rarer < FEW_EVENTS:
            said.append(f"{rarer} of {len(self.labels)} rows have the rarer outcome: too few for any metric here, whatever its interval")
        if len(self.labels) >= FEW_EVENTS and (sd := float(self.probabilities.std())) < ALIKE:
            said.append(f"predictions hardly differ from row to row (sd {sd:.1g}): slopes and rankings of such predictions mean little")
        return said

    def draw(self, path: str | Path, title: str) -> None:
        """Write the picture: reliability, of several labels that of all cells pooled; in a regression predicted against observed."""
        from cm2pyro.diagnostics.plots import reliability_and_patterns
        from cm2pyro.diagnostics.plots_regression import predicted_and_patterns

        labels, p, observed, names = self.labels, self.probabilities, self.dataset.observed.numpy(), self.dataset.names
        before = self.prediction.before
        if before is not None and self.task == "binary":
            before = before[:, 1]
        if self.task == "regression":
            predicted_and_patterns(labels, p[:, 0], self.prediction.q05[:, 0], self.prediction.q95[:, 0], observed, names, path, title)
            return
        if self.task == "multilabel":
            rows, columns = np.nonzero(labels >= 0)
            labels, p, observed = labels[rows, columns], p[rows, columns], observed[rows]
            before = None if before is None else before[rows, columns]
            title = f"{title} ({len(self.classes)} labels pooled)"
        reliability_and_patterns(labels, p, observed, names, path, title, before)

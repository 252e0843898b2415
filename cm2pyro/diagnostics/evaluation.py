"""Metrics of a fit together with what they were computed from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm2pyro.data.dataset import Dataset
from cm2pyro.diagnostics import metrics


class Evaluation:
    """Metrics with what they were computed from.

    Attributes:
        dataset: the labelled rows. probabilities: (n,) of class 1, or (n, C). metrics: the content of metrics.json.
    """

    def __init__(self, dataset: Dataset, probabilities: NDArray[np.float64], names: tuple[str, ...]) -> None:
        self.dataset, self.probabilities, self.names = dataset, probabilities, names
        self.metrics: dict[str, Any] = {}

    def measure(self, bootstrap: int, seed: int, patterns: bool) -> dict[str, Any]:
        """See `diagnostics.metrics.evaluate`."""
        return metrics.evaluate(
            self.dataset.labels.numpy(),
            self.probabilities,
            np.array(self.dataset.subjects),
            self.dataset.observed.numpy(),
            self.names,
            bootstrap=bootstrap,
            seed=seed,
            patterns=patterns,
        )

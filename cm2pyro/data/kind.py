"""A kind of modality: how raw cells become the tensors ("views") that encoders read."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cm2pyro.config import Modality
from cm2pyro.data.columns import Columns
from cm2pyro.data.manifest import Manifest
from cm2pyro.errors import DataError


class Learner:
    """What a kind learns from training rows that come in parts; `finish` leaves it in the kind."""

    def add(self, raw: Any, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        """A part: what `read` gave, the positions of its training rows, and their `sampled.row_keys`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Raises DataError if the parts together are nothing to learn from."""
        raise NotImplementedError


class Kind:
    """Reads one modality and turns it into views. What is learned from training rows lives in `state`, as plain JSON.

    A subclass takes its options as keyword-only parameters with annotations; these are keys that a config may use. An
    option that the encoder declares too goes to both.

    Args:
        name: of the modality. modality: its config. views: those that its encoder reads, a subset of `offers`.
    """

    offers: ClassVar[tuple[str, ...]]

    def __init__(self, name: str, modality: Modality, views: tuple[str, ...]) -> None:
        self.name = name
        self.modality = modality
        self.views = views
        self.remarks: list[str] = []  # what the reader of the data should know, found by `read`

    def read(self, manifest: Manifest) -> Any:
        """The raw modality of every row. Raises DataError."""
        raise NotImplementedError

    def observed(self, raw: Any) -> NDArray[np.bool_]:
        """(n,) which rows have it."""
        raise NotImplementedError

    def fit(self, raw: Any, rows: NDArray[np.int64]) -> None:
        """Learn scalings and vocabularies from the training rows alone."""
        learner = self.learner()
        learner.add(raw, rows, np.arange(len(rows), dtype=np.uint64))
        learner.finish()

    def learner(self, limit: int | None = None) -> Learner:
        """Learns the same from parts. limit: rows that quantiles and tokenizers are learned from, a random sample; None: all."""
        raise DataError(
            f"modality {self.name}: its kind '{self.modality.kind}' learns from whole data sets alone; expected one with a learner, "
            "since shards come one by one; give the manifest itself"
        )

    def transform(self, raw: Any) -> Columns:
        """View name -> n rows; those that lack the modality hold zeros."""
        raise NotImplementedError

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each view, known once fitted."""
        raise NotImplementedError

    def inputs(self) -> list[str]:
        """Names of the columns or variables that were learned from, where they come from a table; known once fitted."""
        return []

    def state(self) -> dict[str, Any]:
        """What was learned, as plain JSON; known once fitted."""
        raise NotImplementedError

    def load(self, state: dict[str, Any]) -> None:
        """Take over what another of this kind has learned. Raises ValueError, or whatever Python does, where it is no such state."""
        raise NotImplementedError

"""This package, fitted as a user would."""

from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fusion.base import Options
from benchmarks.fusion.folds import Fold, Mask
from cm2pyro import CM2
from cm2pyro.config import Config, apply_override
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.prepared import Preparation
from cm2pyro.inference.predict import predict

_DRAWS = 100


@dataclass
class Masked(Preparation):
    """A preparation whose training rows show fewer modalities than they have.

    Attributes:
        kept: sample id -> (M,) which it may show.
    """

    kept: dict[str, Mask] | None = None

    def fit(self, manifest: Manifest, train: NDArray[np.int64]) -> Dataset:
        dataset = super().fit(manifest, train)
        if self.kept is None:
            return dataset
        mask = np.stack([self.kept[sample] for sample in dataset.ids])
        return dataset.with_observed(dataset.observed & torch.from_numpy(mask))


def fit_ours(fold: Fold, seed: int, dropout: float, options: Options) -> Callable[[Mask], NDArray[np.float64]]:
    """`CM2.from_config(config).fit(...)` on the rows of the fold.

    Args:
        dropout: in place of `fit.modality_dropout`, where it is not 0. options: further keys of the config, as `a.b`.
    """
    raw = fold.config.to_dict()
    for key, value in (options | ({"fit.modality_dropout": dropout} if dropout else {})).items():
        apply_override(raw, f"{key}={value}")
    # Members of an ensemble have the seeds from fit.seed on: no two ensembles share one.
    raw["fit"]["seed"] = seed = seed * raw["fit"]["ensemble"]
    model = CM2(Config.from_dict(raw))
    kept = dict(zip(fold.train.ids + fold.val.ids, fold.kept(), strict=True))
    model.preparation = Masked(model.preparation.task, model.preparation.kinds, kept=kept)
    with chdir(fold.fitting.root):  # tables are found relative to the working folder where a data frame is given
        model.fit(fold.fitting.frame)
    rows = model.preparation.transform(fold.testing, labels=True)

    def predicted(mask: Mask) -> NDArray[np.float64]:
        return predict(model.programs, rows.with_observed(rows.observed & torch.from_numpy(mask)), _DRAWS, seed).mean[:, 1]

    return predicted

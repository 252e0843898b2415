"""Gradient boosting on summaries: the baseline that tables of patients are hard to beat with."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.fusion.base import Options
from benchmarks.fusion.folds import Fold, Mask
from cm2pyro.data.embedding import Embedding
from cm2pyro.data.kind import Kind
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.table import parse_numbers
from cm2pyro.data.tabular import Tabular
from cm2pyro.data.timeseries import TimeSeries, summaries
from cm2pyro.errors import ConfigError

Matrix = NDArray[np.float64]
TRIALS: tuple[Options, ...] = (
    {"learning_rate": 0.03, "max_iter": 400, "max_leaf_nodes": 8},
    {"learning_rate": 0.03, "max_iter": 400, "max_leaf_nodes": 15},
    {"learning_rate": 0.02, "max_iter": 500, "max_leaf_nodes": 15, "max_features": 0.1, "l2_regularization": 10.0},
)
READABLE = ("timeseries", "tabular", "embedding")  # kinds of modalities
_COPIES = 2  # of each training row with modalities dropped, beside the row itself


def raw_features(kind: Kind, manifest: Manifest) -> Matrix:
    """(n, F) of one modality, unscaled, NaN where there is nothing: the 11 summaries of each variable, its count and the hours since
    its last measurement; the columns of a table, categories as numbers; vectors as they are.
    """
    raw = kind.read(manifest)
    if isinstance(kind, Embedding):
        return np.asarray(raw[0], dtype=np.float64)
    if isinstance(kind, TimeSeries):
        values, counts, recency = summaries(raw.select(kind.names), kind.window)
        return np.concatenate([values, counts, recency], 1)
    if isinstance(kind, Tabular):
        frame = raw[0]
        columns = [parse_numbers(_cells(frame, name))[0] for name in kind.numbers]
        for name, known in kind.categories.items():
            codes = _cells(frame, name).str.strip().map({category: float(i) for i, category in enumerate(known)})
            columns.append(codes.to_numpy(dtype=np.float64, na_value=np.nan))
        return np.stack(columns, 1)
    raise ConfigError(f"boosting: modality {kind.name} is of kind {kind.modality.kind}; it reads {', '.join(READABLE)}; leave boosting out")


def fit_boosting(fold: Fold, seed: int, dropout: float, options: Options) -> Callable[[Mask], Matrix]:
    """HistGradientBoostingClassifier (scikit-learn) on unscaled summaries, NaN for everything of a missing modality.

    It takes no part in early stopping, so it is fitted on the rows of `train` and of `val`.

    Args:
        dropout: with it each row is there three times: as it is, and twice with every modality dropped with that chance (a copy
            that would lose all keeps what it has).
    """
    train, test = ({name: raw_features(kind, rows) for name, kind in fold.kinds.items()} for rows in (fold.fitting, fold.testing))
    observed = fold.kept()
    labels = np.concatenate([fold.train.labels.numpy(), fold.val.labels.numpy()])
    known = labels >= 0
    masks = [observed]
    if dropout:
        rng = np.random.default_rng(seed)
        for _ in range(_COPIES):
            left = observed & (rng.random(observed.shape) >= dropout)
            masks.append(np.where(left.any(1, keepdims=True), left, observed))
    x = np.concatenate([_masked(train, mask)[known] for mask in masks])
    filled = ~np.isnan(x).all(0)  # it cannot bin a column without values
    # Copies of a patient are no new patients: leaves are as large in patients as without them.
    leaf = 20 * len(masks)
    chosen = {"l2_regularization": 1.0, "max_features": 0.3} | options
    model = HistGradientBoostingClassifier(min_samples_leaf=leaf, early_stopping=False, random_state=seed, **chosen)
    model.fit(x[:, filled], np.tile(labels[known], len(masks)))
    return lambda mask: model.predict_proba(_masked(test, mask)[:, filled])[:, 1]


def _masked(features: dict[str, Matrix], observed: Mask) -> Matrix:
    return np.concatenate([np.where(observed[:, m, None], x, np.nan) for m, x in enumerate(features.values())], 1)


def _cells(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name] if name in frame else pd.Series([""] * len(frame), dtype=object)

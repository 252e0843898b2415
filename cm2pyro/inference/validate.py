"""How good the outcome's predictions are on the rows that stop a fit."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.predict import predict
from cm2pyro.inference.program import Program

_DRAWS = 20


def validate(program: Program, dataset: Dataset, seed: int) -> tuple[float | None, float | None]:
    """Mean negative log score over the labels that are there, and AUROC; None where undefined.

    The score is the log-loss of classes and labels; in a regression minus the log density of the standardised label,
    about 1.42 where nothing is known. AUROC: of several classes one against the rest, of several labels the mean over
    those with both values; none in a regression.
    """
    labels = dataset.labels.numpy()
    labelled = dataset.labelled.numpy()
    if not labelled.any():
        return None, None
    prediction = predict([program], dataset, _DRAWS, seed)
    if labels.ndim == 2:
        known = labels >= 0
        scored = [roc_auc_score(labels[rows, j], prediction.mean[rows, j]) for j, rows in enumerate(known.T) if _both(labels[rows, j])]
        return float(-prediction.log_score[known].mean()), float(np.mean(scored)) if scored else None
    log_loss = float(-prediction.log_score[labelled].mean())
    if dataset.labels.is_floating_point():
        return log_loss, None
    labels, p = labels[labelled], prediction.mean[labelled]
    if len(set(labels.tolist())) < p.shape[1]:
        return log_loss, None
    if p.shape[1] == 2:
        return log_loss, float(roc_auc_score(labels, p[:, 1]))
    return log_loss, float(roc_auc_score(labels, p, multi_class="ovr", average="macro"))


def _both(labels: NDArray[np.int64]) -> bool:
    return set(labels.tolist()) == {0, 1}

"""The columns of predictions.csv that say what is predicted."""

from typing import Any

import numpy as np

from cm2pyro.inference.predict import Matrix, Prediction
from cm2pyro.inference.variance import Decomposition

_SPREAD = ("sd", "q05", "q95")


def prediction_columns(task: str, classes: tuple[str, ...], prediction: Prediction) -> dict[str, Matrix]:
    """Column name -> (n,) values.

    binary: `probability` of class 1, `sd`, `q05`, `q95`. multiclass: `probability_<class>`, then the spread of the predicted
    class' probability. multilabel: `probability_<label>`, then `sd_<label>`, `q05_<label>`, `q95_<label>` label by label.
    regression: `mean`, `sd`, `q05`, `q95` of the outcome, observation noise included.

    Args:
        classes: names of the classes or labels; none in a regression. prediction: in the units of the labels.
    """
    spread = {name: getattr(prediction, name) for name in _SPREAD}
    if task == "regression":
        return {"mean": prediction.mean[:, 0]} | {name: values[:, 0] for name, values in spread.items()}
    if task == "binary":
        return {"probability": prediction.mean[:, 1]} | {name: values[:, 1] for name, values in spread.items()}
    columns = {f"probability_{name}": prediction.mean[:, c] for c, name in enumerate(classes)}
    if task == "multilabel":
        return columns | {f"{name}_{label}": values[:, c] for c, label in enumerate(classes) for name, values in spread.items()}
    best = prediction.mean.argmax(1)
    return columns | {name: values[np.arange(len(best)), best] for name, values in spread.items()}


def report_columns(task: str, names: tuple[str, ...], prediction: Prediction, parts: Decomposition) -> dict[str, Any]:
    """Column name -> (n,) values: where the spread comes from and what it would pay to obtain.

    `sd_missing`, `sd_encoder`, `sd_global`, whose squares add up to the square of `sd` (multilabel: to the sum over labels of
    those of `sd_<label>`; regression: together with `sd_noise`, that of the outcome around its mean); `pays_most`, empty where
    nothing is missing or nothing missing matters; `reduction_<modality>`, a share of the variance, empty where it is observed.

    Args:
        prediction, parts: in one unit.
    """
    columns: dict[str, Any] = {"sd_missing": parts.missing, "sd_encoder": parts.encoder, "sd_global": parts.globals}
    columns = {name: np.sqrt(values) for name, values in columns.items()}
    if task == "regression":
        columns["sd_noise"] = np.sqrt(np.maximum(prediction.sd[:, 0] ** 2 - parts.total, 0))
    columns["pays_most"] = [names[m] if m >= 0 else "" for m in parts.pays_most()]
    return columns | {f"reduction_{name}": parts.reduction[:, m] for m, name in enumerate(names)}

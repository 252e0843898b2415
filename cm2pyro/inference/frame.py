"""The columns of predictions.csv that say what is predicted."""

import numpy as np

from cm2pyro.inference.predict import Matrix, Prediction

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

"""Recalibration: predicted probabilities bent so that they agree with frequencies in the validation rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from cm2pyro.errors import CheckpointError, ConfigError, DataError
from cm2pyro.files import read_text, write_text
from cm2pyro.registry import Registry, one_line

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
FILE = "recalibration.json"
NONE = "none"
_MOST_BYTES = 64 << 20

_CLIP = 1e-7  # logits of probabilities no closer to 0 and 1 than this
_HOTTEST = 20.0  # temperatures from 1/20 to 20; labels that a threshold separates have no lowest one


class Recalibrator:
    """A map of probabilities. A subclass is fitted to one column at a time, or (`joint`) to all classes at once.

    Args:
        task: binary, multiclass or multilabel. parameters: one entry a column, a single one in a binary or joint fit;
            None leaves its column as it is.
    """

    tasks: ClassVar[tuple[str, ...]]

    def __init__(self, task: str, parameters: Sequence[list[float] | None]) -> None:
        self.task, self.parameters = task, list(parameters)

    @classmethod
    def fit(cls, task: str, p: Array, labels: Labels) -> Self:
        """Fit on validation rows.

        Args:
            p: (n, C) probabilities of classes with rows that sum to 1, or of labels. labels: (n,) class index, or (n, L) with −1
                where one is empty. A label without both values stays as it is.
        """
        if task == "multiclass":
            return cls(task, [cls.fit_joint(p, labels)])
        p, labels = (p[:, 1:], labels[:, None]) if task == "binary" else (p, labels)
        return cls(task, [cls._fit_known(column[known], y[known]) for column, y, known in zip(p.T, labels.T, labels.T >= 0, strict=True)])

    @classmethod
    def _fit_known(cls, p: Array, labels: Labels) -> list[float] | None:
        return cls.fit_column(p, labels) if len(labels) and 0 < labels.mean() < 1 else None

    @classmethod
    def fit_column(cls, p: Array, labels: Labels) -> list[float]:
        """(n,) probabilities of 1 and labels 0 or 1, both there -> parameters."""
        raise NotImplementedError

    @classmethod
    def fit_joint(cls, p: Array, labels: Labels) -> list[float]:
        """(n, C) probabilities and class indices (n,) -> parameters. Only where multiclass is among `tasks`."""
        raise NotImplementedError

    def __call__(self, p: Tensor) -> Tensor:
        """Probabilities (..., C) -> recalibrated ones, whatever stands before the last dimension."""
        if self.task == "multiclass":
            return self.joint(p, self.parameters[0] or [])
        columns = [
            x if own is None else self.column(x, own)
            for x, own in zip((p[..., 1:] if self.task == "binary" else p).unbind(-1), self.parameters, strict=True)
        ]
        return torch.stack([1 - columns[0], columns[0]] if self.task == "binary" else columns, -1)

    def column(self, p: Tensor, parameters: list[float]) -> Tensor:
        """(...) -> (...), never falling in p."""
        raise NotImplementedError

    def joint(self, p: Tensor, parameters: list[float]) -> Tensor:
        """(..., C) -> (..., C)."""
        raise NotImplementedError


class Temperature(Recalibrator):
    """Logits divided by a temperature, found by maximum likelihood; of several labels each has its own (Guo et al. 2017)."""

    tasks = ("binary", "multiclass", "multilabel")

    @classmethod
    def fit_column(cls, p: Array, labels: Labels) -> list[float]:
        return cls.fit_joint(np.column_stack([1 - p, p]), labels)

    @classmethod
    def fit_joint(cls, p: Array, labels: Labels) -> list[float]:
        logs, rows = np.log(np.clip(p, _CLIP, 1.0)), np.arange(len(p))

        def loss(log_temperature: float) -> float:
            scaled = logs / np.exp(log_temperature)
            return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, labels]))

        bound = float(np.log(_HOTTEST))
        return [float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-8}).x))]

    def column(self, p: Tensor, parameters: list[float]) -> Tensor:
        return self.joint(torch.stack([1 - p, p], -1), parameters)[..., 1]

    def joint(self, p: Tensor, parameters: list[float]) -> Tensor:
        return (p.clamp_min(_CLIP).log() / parameters[0]).softmax(-1)


class Isotonic(Recalibrator):
    """The best map that never falls, by least squares; linear between its knots, level beyond them (Zadrozny and Elkan 2002).

    Parameters are the knots on p, then their values. n rows cannot tell a probability from 0 or 1 more closely than about 1/n:
    values are kept between 1/(n + 2) and 1 − 1/(n + 2), or one death that was called impossible would make the log-loss infinite.
    """

    tasks = ("binary", "multilabel")

    @classmethod
    def fit_column(cls, p: Array, labels: Labels) -> list[float]:
        fitted = IsotonicRegression(out_of_bounds="clip").fit(p, labels)
        edge = 1 / (len(labels) + 2)
        return [*fitted.X_thresholds_.tolist(), *np.clip(fitted.y_thresholds_, edge, 1 - edge).tolist()]

    def column(self, p: Tensor, parameters: list[float]) -> Tensor:
        x, y = p.new_tensor(parameters).chunk(2)
        if len(x) == 1:
            return y.expand(p.shape)
        right = torch.searchsorted(x, p.contiguous()).clamp(1, len(x) - 1)
        share = ((p - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
        return y[right - 1] + share * (y[right] - y[right - 1])


RECALIBRATORS: Registry[type[Recalibrator]] = Registry("recalibration")
RECALIBRATORS.register("temperature", Temperature)
RECALIBRATORS.register("isotonic", Isotonic)


@dataclass(frozen=True)
class Recalibration:
    """What was fitted on validation rows, as it stands in recalibration.json.

    Attributes:
        method: a name of `RECALIBRATORS`, or none. task: of the run. parameters: of the recalibrator, none without one.
        rows: how many it was fitted on. log_loss: of these rows before and after, a mean over their labels.
        threshold: binary: of the recalibrated probability, see `best_threshold`; else None.
    """

    method: str
    task: str
    parameters: list[list[float] | None]
    rows: int
    log_loss: dict[str, float]
    threshold: float | None

    @classmethod
    def fit(cls, method: str, task: str, p: Array, labels: Labels) -> Self:
        """From predictions of validation rows, see `Recalibrator.fit`. Raises DataError: no label has two values."""
        check_recalibration(method, task)
        check_rows(labels)
        fitted = None if method == NONE else RECALIBRATORS.get(method).fit(task, p, labels)
        after = p if fitted is None else fitted(torch.from_numpy(p)).numpy()
        threshold = best_threshold(labels, after[:, 1]) if task == "binary" else None
        log_loss = {"before": _log_loss(p, labels), "after": _log_loss(after, labels)}
        return cls(method, task, [] if fitted is None else fitted.parameters, len(labels), log_loss, threshold)

    @property
    def recalibrator(self) -> Recalibrator | None:
        """The map, None where the method is none."""
        return None if self.method == NONE else RECALIBRATORS.get(self.method)(self.task, self.parameters)

    def write(self, run: Path) -> None:
        """Write recalibration.json into a run folder."""
        write_text(run / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """None where the run has none. Raises CheckpointError: not what `write` wrote."""
        path = run / FILE
        if not path.exists():
            return None
        try:
            found = cls(**json.loads(read_text(path, _MOST_BYTES)))
            check_recalibration(found.method, found.task)
            if found.recalibrator is not None:
                columns = 2 if found.task != "multilabel" else len(found.parameters)
                found.recalibrator(torch.full((1, columns), 0.5, dtype=torch.float64))
        except (OSError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, ConfigError) as error:
            raise CheckpointError(f"{path}: cannot be read ({one_line(error)}); run cm2pyro recalibrate, or delete it") from error
        return found


def check_recalibration(method: str, task: str) -> None:
    """Raises ConfigError: an unknown method, or one that the task cannot use."""
    if method == NONE:
        return
    if task == "regression":
        raise ConfigError(f"fit.recalibration: {method} maps probabilities, and a regression has none; write none")
    tasks = RECALIBRATORS.get(method, "fit.recalibration").tasks
    if task not in tasks:
        raise ConfigError(f"fit.recalibration: {method} is for tasks {', '.join(tasks)}, this one is {task}; write temperature or none")


def check_rows(labels: Labels) -> None:
    """Raises DataError where labels (n,) or (n, L), −1 if empty, leave nothing to fit: no label has two values."""
    columns = labels if labels.ndim == 2 else labels[:, None]
    if not any(len(np.unique(column[column >= 0])) > 1 for column in columns.T):
        raise DataError(
            f"recalibration: {int((columns >= 0).any(axis=1).sum())} validation rows have a label, and none has two values among them; "
            "expected rows with both; give other rows as val, or leave recalibration out"
        )


def best_threshold(labels: Labels, p: Array) -> float:
    """The threshold on p (n,) that makes the smaller of sensitivity and positive predictive value largest; of equal ones the highest.

    It stands half-way between the lowest p that is called positive and the next one below (or 0). Both labels are expected.
    """
    levels, group = np.unique(-p, return_inverse=True)
    positive = np.cumsum(np.bincount(group.reshape(-1), weights=labels))
    called = np.cumsum(np.bincount(group.reshape(-1)))
    score = np.minimum(positive / positive[-1], positive / called)
    best = int(score.argmax())
    below = -levels[best + 1] if best + 1 < len(levels) else 0.0
    return float((-levels[best] + below) / 2)


def _log_loss(p: Array, labels: Labels) -> float:
    likelihood = p[np.arange(len(p)), labels] if labels.ndim == 1 else np.where(labels == 1, p, 1 - p)[labels >= 0]
    return float(-np.log(np.clip(likelihood, _CLIP, 1.0)).mean())

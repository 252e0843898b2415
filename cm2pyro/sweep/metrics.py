"""Names of metrics: `val_auroc` is that of the validation rows, `test_masked_auroc` of test rows under the fit's mask."""

from typing import Any

from cm2pyro.diagnostics.metrics import METRICS
from cm2pyro.diagnostics.metrics_regression import REGRESSION_METRICS
from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest, one_line

VAL, TEST, MASKED = "val", "test", "test_masked"
SPLITS = {VAL: "validation rows", TEST: "test rows", MASKED: "test rows, masked as in training"}
_LESS_IS_BETTER = ("log_loss", "brier", "ece", "rmse", "mae", "width")
_NO_GOAL = ("width", "coverage")  # best at no end: intervals should be as wide as they claim


def bare(metric: str) -> str:
    """`val_auroc` -> `auroc`."""
    for split in (MASKED, TEST, VAL):
        if metric.startswith(f"{split}_"):
            return metric.removeprefix(f"{split}_")
    return metric


def split_of(metric: str) -> str:
    """`val_auroc` -> `val`; '' without one."""
    return metric.removesuffix(bare(metric)).rstrip("_")


def sign(metric: str) -> int:
    """1 where greater is better, else −1."""
    return -1 if bare(metric) in _LESS_IS_BETTER else 1


def check(metric: str | None, task: str) -> str:
    """A metric to choose by; by default the validation log-loss, in a regression the log score.

    Raises:
        ConfigError: of test rows, by which nothing is chosen; unknown for this task.
    """
    if metric is None:
        return "val_log_score" if task == "regression" else "val_log_loss"
    if split_of(metric) in (TEST, MASKED):
        raise ConfigError(f"metric {one_line(metric, 60)}: settings are chosen on validation rows alone; write val_{bare(metric)}")
    name = known(metric, task, "metric")
    if name in _NO_GOAL:
        raise ConfigError(f"metric {name}: neither the greatest nor the least is best; choose by val_log_score or val_rmse")
    return f"val_{name}"


def known(metric: str, task: str, where: str) -> str:
    """The metric's name without its split. Raises ConfigError for one that the task does not have."""
    names = REGRESSION_METRICS if task == "regression" else METRICS
    if bare(metric) not in names:
        raise ConfigError(f"{where} {one_line(metric, 60)}: task {task} has no such metric; {nearest(bare(metric), names)}")
    return bare(metric)


def flat(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """What `evaluate` gives, its metrics alone."""
    return {name: value for name, value in found.items() if isinstance(value, dict) and set(value) == {"value", "low", "high"}}

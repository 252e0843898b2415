"""Experiment trackers: `fit.trackers` names them, `register_tracker` adds one."""

from cm2pyro.registry import Registry
from cm2pyro.trackers.base import Run, Tracker
from cm2pyro.trackers.mlflow import MLflow
from cm2pyro.trackers.tensorboard import TensorBoard
from cm2pyro.trackers.wandb import WeightsAndBiases

__all__ = ["TRACKERS", "MLflow", "Run", "TensorBoard", "Tracker", "WeightsAndBiases", "register_tracker"]

TRACKERS: Registry[type[Tracker]] = Registry("tracker")
TRACKERS.register("tensorboard", TensorBoard)
TRACKERS.register("mlflow", MLflow)
TRACKERS.register("wandb", WeightsAndBiases)


def register_tracker(name: str, tracker: type[Tracker]) -> None:
    """Make a tracker, whose class takes no arguments, known to `fit.trackers`. Raises ConfigError if the name is taken by another."""
    TRACKERS.register(name, tracker)

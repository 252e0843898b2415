"""MLflow: its local store, a database in the run folder, or the server that MLFLOW_TRACKING_URI names."""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cm2pyro.trackers.base import Run, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FORBIDDEN = re.compile(r"[^\w./ -]")  # in names: the tilde between two modalities
_MOST = 100  # parameters that MLflow takes at once
_LONGEST = 500  # characters of a value that every version takes


class MLflow(Tracker):
    package = "mlflow"
    places = True
    client: "MlflowClient"

    def start(self, run: Run) -> str | None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else it reports its use
        from mlflow import MlflowClient
        from mlflow.entities import Param

        with _quiet():
            self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.place}/mlflow.db")
            self.step = run.step
            if run.id is not None:
                self.run = run.id
                self.client.update_run(self.run, status="RUNNING")
                return self.run
            self.run = self.client.create_run(self._experiment(run), run_name=run.name, tags=_texts(run.environment)).info.run_id
            parameters = [Param(name, value) for name, value in _texts(run.parameters).items()]
            for begin in range(0, len(parameters), _MOST):
                self.client.log_batch(self.run, params=parameters[begin : begin + _MOST])
        return self.run

    def _experiment(self, run: Run) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "cm2pyro")
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server has a place of its own for files; without one they would go where the command was started.
        place = None if os.environ.get("MLFLOW_TRACKING_URI") else (run.place / "files").as_uri()
        return str(self.client.create_experiment(name, place))

    def epoch(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        self.step, now = step, int(1000 * time.time())
        self.client.log_batch(self.run, metrics=[Metric(_FORBIDDEN.sub("-", name), value, now, step) for name, value in values.items()])

    def finish(self, values: dict[str, float] | None) -> None:
        if values is not None:
            self.epoch(self.step, values)
        self.client.set_terminated(self.run, status="KILLED" if values is None else "FINISHED")


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {_FORBIDDEN.sub("-", name): str(value)[:_LONGEST] for name, value in values.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its lines on tables being made."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)

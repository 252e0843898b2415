"""Weights & Biases, offline unless WANDB_MODE says otherwise: files in the run folder, which `wandb sync` sends."""

import os
from typing import TYPE_CHECKING, Any

from cm2pyro.trackers.base import Run, Tracker

if TYPE_CHECKING:
    import wandb


class WeightsAndBiases(Tracker):
    package = "wandb"
    places = True
    run: "wandb.Run"

    def start(self, run: Run) -> str | None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it calls out in offline mode too
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(
            mode=mode,
            root_dir=str(run.place.parent),  # in which it makes a folder wandb
            silent=True,
            reinit="create_new",  # a run that the user's program has open stays open
            host="-",
            # What is printed names rows of the data, the command line their files.
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cm2pyro"),
            name=run.name,
            id=run.id,
            resume="allow",
            config=run.parameters | run.environment,
            settings=settings,
        )
        return str(self.run.id)

    def epoch(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def finish(self, values: dict[str, float] | None) -> None:
        self.run.summary.update(values or {})
        self.run.finish(exit_code=0 if values is not None else 1)

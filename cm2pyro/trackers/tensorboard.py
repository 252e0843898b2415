"""TensorBoard: event files in the run folder."""

from typing import TYPE_CHECKING

from cm2pyro.trackers.base import Run, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    package = "tensorboard"
    places = True
    writer: "SummaryWriter"

    def start(self, run: Run) -> str | None:
        from torch.utils.tensorboard import SummaryWriter

        # What a fit that was killed wrote after its last checkpoint is purged.
        self.writer = SummaryWriter(str(run.place), purge_step=run.step + 1 if run.id else None)
        self.step = run.step
        if run.id is None:
            rows = "\n".join(f"| {name} | {value} |" for name, value in (run.parameters | run.environment).items())
            self.writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)
        self.writer.flush()
        return run.name

    def epoch(self, step: int, values: dict[str, float]) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, values: dict[str, float] | None) -> None:
        for name, value in (values or {}).items():
            self.writer.add_scalar(name, value, self.step)
        self.writer.close()

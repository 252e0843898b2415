"""What a fit tells: one small class, which the trackers that people use, or a program of the user's own, fill in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Run:
    """What a tracker is told before the first epoch.

    Attributes:
        name: of the run folder. folder: the tracker's own inside it; None where the fit is kept in memory.
        parameters: the resolved config, `fit.lr` -> 0.001. environment: versions of packages, and the device.
        id: what `start` returned when this fit began, where it goes on; else None.
        step: of the last epoch that the tracker has been told; 0 where the fit begins.
    """

    name: str
    folder: Path | None
    parameters: dict[str, Any]
    environment: dict[str, Any]
    id: str | None
    step: int

    @property
    def place(self) -> Path:
        """The tracker's own folder, made if it is not there."""
        if self.folder is None:
            raise ValueError("the fit is kept in memory")
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder.resolve()


class Tracker:
    """Told of a fit, in the first of several processes. What a subclass leaves out does nothing.

    An exception ends the tracker and never the fit. No identifier of a sample or subject, no text and no path of a data file is told.
    """

    package: ClassVar[str | None] = None  # without which it cannot work; an extra of the tracker's name brings it
    places: ClassVar[bool] = False  # whether it needs a folder to write to

    def start(self, run: Run) -> str | None:
        """Before the first epoch, and again where a fit goes on. Returns an id by which to go on, or None."""
        return None

    def epoch(self, step: int, values: dict[str, float]) -> None:
        """After every epoch: the numbers of its line in metrics.jsonl, `tau/a~b` where that has `{"tau": {"a~b": …}}`.

        Args:
            step: counts epochs from 1, of an ensemble those of all members; names of the second member's values begin with `members/2/`.
        """

    def finish(self, values: dict[str, float] | None) -> None:
        """At the end: the best epoch's numbers, each with `best/` before its name; None where the fit was stopped or failed."""

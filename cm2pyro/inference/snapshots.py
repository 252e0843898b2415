"""What the global sites were at a few epochs of a fit, kept beside its history."""

from pathlib import Path

import torch
from torch import Tensor

from cm2pyro.errors import CheckpointError
from cm2pyro.inference import checkpoint
from cm2pyro.inference.program import Program
from cm2pyro.registry import one_line

FILE = "snapshots.safetensors"
MOST = 16
"""A run keeps at most this many snapshots, and two more: the start and the latest epoch."""

Values = dict[str, Tensor]


def spacing(epoch: int) -> int:
    """Epochs between snapshots once `epoch` of them are done: the least power of two that keeps `MOST` or fewer."""
    step = 1
    while epoch // step > MOST:
        step *= 2
    return step


class Snapshots:
    """Site values at epoch 0, before the first step, at multiples of a spacing that doubles as the fit grows, and at the latest epoch.

    Which epochs are kept follows from the number of epochs done alone: a fit that was cut and resumed, or resumed for more epochs,
    ends with the file that an uninterrupted one writes.

    Attributes:
        values: epoch -> site -> point estimate (or median), on the CPU.
    """

    def __init__(self) -> None:
        self.values: dict[int, Values] = {}

    def take(self, program: Program, epoch: int) -> None:
        """Keep the sites as they are now, under `epoch`, and drop what the spacing leaves out."""
        self.values[epoch] = {name: value.detach().cpu().clone() for name, value in program.values().items()}
        self.values = {kept: self.values[kept] for kept in sorted(self.values) if kept % spacing(epoch) == 0 or kept == epoch}

    def tensors(self) -> Values:
        """`EPOCH.SITE` -> value."""
        return {f"{epoch}.{name}": value for epoch, values in self.values.items() for name, value in values.items()}

    def restore(self, tensors: Values, last: int | None = None, where: Path = Path(FILE)) -> None:
        """Take over what `tensors` gave, up to epoch `last`. Raises CheckpointError, which names the file."""
        found: dict[int, Values] = {}
        for name, tensor in tensors.items():
            epoch, _, site = name.partition(".")
            if not epoch.isdecimal():
                raise CheckpointError(f"{where}: '{one_line(name, 60)}' belongs to no epoch; delete the file")
            if last is None or int(epoch) <= last:
                found.setdefault(int(epoch), {})[site] = tensor
        self.values = dict(sorted(found.items()))

    def write(self, folder: Path) -> None:
        """Write the file of a run (or of a member); without a snapshot there is none."""
        if self.values:
            checkpoint.write(folder / FILE, self.tensors(), {"epochs": list(self.values)})

    def read(self, folder: Path, last: int | None = None) -> None:
        """Take over the snapshots of a run up to epoch `last`; a run that has no such file has none. Raises CheckpointError."""
        path = folder / FILE
        self.restore(checkpoint.read(path)[0] if path.exists() else {}, last, path)


def chosen(epochs: list[int], most: int = 5) -> list[int]:
    """Of increasing epochs at most `most` that are spread evenly from the first to the last; each the nearest to its place."""
    if len(epochs) <= most:
        return epochs
    places = torch.linspace(epochs[0], epochs[-1], most).tolist()
    return sorted({min(epochs, key=lambda epoch: abs(epoch - place)) for place in places})

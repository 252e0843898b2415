"""The exponential average of the weights, with which a fit validates and predicts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cm2pyro.inference.program import Program


class Average:
    """Of a program's state; without decay the weights themselves, read at the end of each epoch.

    Attributes:
        tensors: name -> average, with the names of `state_dict`.
    """

    def __init__(self, program: Program, decay: float) -> None:
        self.program, self.decay = program, decay
        self.tensors = current(program)

    def follow(self, step: int, steps: int) -> None:
        """Move towards the weights after `step` steps of `steps` an epoch; early ones weigh more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if decay == 0 and step % steps:
            return
        with torch.no_grad():
            for name, tensor in self.program.state_dict().items():
                if tensor.is_floating_point():
                    self.tensors[name].lerp_(tensor, 1 - decay)
                else:
                    self.tensors[name].copy_(tensor)

    def end_epoch(self) -> None:
        """Without decay: read the weights, however many steps the epoch had."""
        if self.decay == 0:
            self.tensors = current(self.program)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in the program, for as long as the block runs."""
        own = current(self.program)
        self.program.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.program.load_state_dict(own)


def current(program: Program) -> dict[str, Tensor]:
    """A copy of a program's state."""
    return {name: tensor.detach().clone() for name, tensor in program.state_dict().items()}

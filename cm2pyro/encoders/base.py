"""What an encoder is."""

from typing import ClassVar

from torch import Tensor, nn

from cm2pyro.data.kind import Views


class Encoder(nn.Module):
    """Turns the views of one modality into features.

    A subclass names the `views` that it reads, sets `width`, and takes its options as keyword-only parameters with
    annotations; these are the keys that a config may use. It is called with the rows that have the modality, never
    with padded ones.

    Args:
        shapes: view -> shape of one row.
    """

    views: ClassVar[tuple[str, ...]]
    given: ClassVar[bool] = False  # the features are the latent itself
    width: int

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, inputs: Views) -> Tensor:
        """view -> (n, ...) to (n, width)."""
        raise NotImplementedError

    def first_layers(self) -> list[nn.Parameter]:
        """Weights that touch the inputs, for an L1 penalty; none by default."""
        return []

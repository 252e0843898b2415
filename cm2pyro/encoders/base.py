"""What an encoder is."""

from typing import Any, ClassVar

from torch import Tensor, nn

from cm2pyro.data.columns import Views


class Encoder(nn.Module):
    """Turns the views of one modality into features.

    A subclass names the `views` that it reads, sets `width`, and takes its options as keyword-only parameters with
    annotations; these are the keys that a config may use. In training it is called with the rows that have the modality and
    no others; in evaluation with all rows, and what it returns for missing ones is dropped. No row may depend on another in
    evaluation.

    Attributes:
        width: of the features. remarks: what the person who fits should know, such as that nothing pretrained is used.
        architecture: plain JSON that, with `weights` none, makes the same network again without the source of its weights.

    Args:
        shapes: view -> shape of one row.
    """

    views: ClassVar[tuple[str, ...]]
    given: ClassVar[bool] = False  # the features are the latent itself
    width: int
    remarks: tuple[str, ...] = ()
    architecture: dict[str, Any] | None = None

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, inputs: Views) -> Tensor:
        """view -> (n, ...) to (n, width)."""
        raise NotImplementedError

    def networks(self) -> list[nn.Module]:
        """What `fit.compile` compiles: the encoder whole, or the parts of it whose shapes depend on rows and sizes alone."""
        return [self]

    def first_layers(self) -> list[nn.Parameter]:
        """Weights that touch the inputs, for an L1 penalty; none by default."""
        return []

"""Multilayer perceptrons over a vector: given vectors, tables, summaries of time series."""

from typing import ClassVar

from torch import Tensor, nn

from cm2pyro.config_base import Fraction, PositiveInt
from cm2pyro.data.columns import Views
from cm2pyro.encoders.base import Encoder


class MLP(Encoder):
    """Dropout on the inputs, then hidden layers with ReLU and dropout."""

    views: ClassVar[tuple[str, ...]] = ("vector",)

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        hidden: PositiveInt = 64,
        layers: PositiveInt = 1,
        input_dropout: Fraction = 0.0,
        dropout: Fraction = 0.1,
    ) -> None:
        super().__init__(shapes)
        self.width = hidden
        modules: list[nn.Module] = [nn.Dropout(input_dropout)]
        size = shapes[self.views[0]][0]
        for _ in range(layers):
            modules += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden
        self.layers = nn.Sequential(*modules)

    def forward(self, inputs: Views) -> Tensor:
        return self.layers(inputs[self.views[0]])

    def networks(self) -> list[nn.Module]:
        return [self.layers]

    def first_layers(self) -> list[nn.Parameter]:
        first = self.layers[1]
        return [p for p in first.parameters() if p.dim() > 1]


class Summary(MLP):
    """A perceptron over the per-variable summaries of a time series."""

    views: ClassVar[tuple[str, ...]] = ("summary",)


class Identity(Encoder):
    """The given vector is the latent itself: no parameters, no guide density. The vector's length must be latent.dim."""

    views: ClassVar[tuple[str, ...]] = ("vector",)
    given: ClassVar[bool] = True

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(shapes)
        self.width = shapes["vector"][0]

    def forward(self, inputs: Views) -> Tensor:
        return inputs["vector"]

    def networks(self) -> list[nn.Module]:
        return []

"""Recurrent encoders of time series."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cm2pyro.config_base import Fraction, PositiveInt
from cm2pyro.data.columns import Views
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.mlp import Summary


class LSTM(Encoder):
    """A two-layer LSTM over the bins, read out at the last bin that holds a measurement."""

    views: ClassVar[tuple[str, ...]] = ("binned", "measured")

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        hidden: PositiveInt = 64,
        layers: PositiveInt = 2,
        dropout: Fraction = 0.3,
    ) -> None:
        super().__init__(shapes)
        self.width = hidden
        channels = shapes["binned"][1]
        self.lstm = nn.LSTM(channels, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Views) -> Tensor:
        x = inputs["binned"]  # (n, T, C)
        states, _ = self.lstm(x)
        bins = torch.arange(x.shape[1], device=x.device)
        last = torch.where(inputs["measured"] > 0, bins, 0).amax(1)
        return self.dropout(states[torch.arange(len(x), device=x.device), last])

    def networks(self) -> list[nn.Module]:
        return []  # torch.compile leaves recurrent layers as they are


class SummaryLSTM(Encoder):
    """The LSTM and the perceptron over summaries, side by side."""

    views: ClassVar[tuple[str, ...]] = ("binned", "measured", "summary")

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        hidden: PositiveInt = 64,
        layers: PositiveInt = 2,
        input_dropout: Fraction = 0.3,
        dropout: Fraction = 0.5,
    ) -> None:
        super().__init__(shapes)
        self.lstm = LSTM(shapes, hidden=hidden, layers=layers, dropout=dropout)
        self.summary = Summary(shapes, hidden=hidden, input_dropout=input_dropout, dropout=dropout)
        self.width = 2 * hidden

    def forward(self, inputs: Views) -> Tensor:
        return torch.cat([self.lstm(inputs), self.summary(inputs)], -1)

    def networks(self) -> list[nn.Module]:
        return self.summary.networks()

    def first_layers(self) -> list[nn.Parameter]:
        return self.summary.first_layers()

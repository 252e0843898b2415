"""A transformer over the bins of a time series."""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from cm2pyro.config_base import Fraction, PositiveInt
from cm2pyro.data.columns import Views
from cm2pyro.encoders.base import Encoder
from cm2pyro.errors import ConfigError


class Transformer(Encoder):
    """Self-attention over the bins that hold a measurement; their outputs are averaged.

    Bins without one take no part, so neither does what lies after the last. The hour enters as sines and cosines.
    """

    views: ClassVar[tuple[str, ...]] = ("binned", "measured")

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        hidden: Annotated[int, Field(gt=0, multiple_of=2)] = 64,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        dropout: Fraction = 0.2,
    ) -> None:
        super().__init__(shapes)
        bins, channels = shapes["binned"]
        self.width = hidden
        if hidden % heads:
            raise ConfigError(f"encoder transformer: hidden is {hidden} and heads {heads}; expected a multiple; change one of them")
        self.enter = nn.Linear(channels, hidden)
        self.register_buffer("place", _waves(bins, hidden), persistent=False)
        layer = nn.TransformerEncoderLayer(hidden, heads, 2 * hidden, dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, inputs: Views) -> Tensor:
        x = inputs["binned"]  # (n, T, C)
        there = inputs["measured"] > 0  # (n, T)
        # A row without any measurement attends to its first bin: a softmax over nothing is not a number.
        there = there | (~there.any(1, keepdim=True) & (torch.arange(x.shape[1], device=x.device) == 0))
        out = self.norm(self.layers(self.enter(x) + self.place, src_key_padding_mask=~there))
        weight = there[..., None].to(out.dtype)
        mean: Tensor = (out * weight).sum(1) / weight.sum(1)
        return mean


def _waves(bins: int, width: int) -> Tensor:
    """(T, width) sines and cosines of the bin's number, wavelengths from 2π to 2π · 10,000."""
    angle = torch.arange(bins)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

"""A temporal convolutional network over time series."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cm2pyro.data.columns import Views
from cm2pyro.encoders.base import Encoder


class TCN(Encoder):
    """Causal convolutions whose dilation doubles from layer to layer (Bai, Kolter and Koltun 2018, arXiv 1803.01271), averaged over
    the bins that hold a measurement.

    `layers` of kernel k see (k − 1) (2^layers − 1) + 1 bins; with the defaults 31, more than the 24 of two days in bins of two hours.
    """

    views: ClassVar[tuple[str, ...]] = ("binned", "measured")  # what it reads: see the views of each kind, in cm2pyro/data

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,  # from here on: the keys that a config may use, checked by these annotations
        hidden: Annotated[int, Field(gt=0)] = 64,
        layers: Annotated[int, Field(gt=0, le=12)] = 4,
        kernel: Annotated[int, Field(gt=1)] = 3,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    ) -> None:
        super().__init__(shapes)
        self.width = hidden
        self.kernel = kernel
        self.inlet = nn.Linear(shapes["binned"][1], hidden)
        self.convolutions = nn.ModuleList([nn.Conv1d(hidden, hidden, kernel, dilation=2**i) for i in range(layers)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Views) -> Tensor:
        x = self.inlet(inputs["binned"]).transpose(1, 2)  # (n, hidden, T)
        for i, convolution in enumerate(self.convolutions):
            past = functional.pad(x, ((self.kernel - 1) * 2**i, 0))  # no bin sees a later one
            x = x + self.dropout(convolution(past).relu())
        measured = inputs["measured"][:, None, :]
        return (x * measured).sum(-1) / measured.sum(-1).clamp_min(1)

    def first_layers(self) -> list[nn.Parameter]:
        return [p for p in self.inlet.parameters() if p.dim() > 1]  # for fit.l1

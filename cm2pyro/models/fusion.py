"""Fusion: the latents of all modalities -> features of the outcome. A new fusion is one class and one line here."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from cm2pyro.registry import Registry


class LSTMFusion(nn.Module):
    """An LSTM that reads z_1 … z_M as a sequence and ends with its last state (CM², ICML 2025)."""

    def __init__(
        self,
        modalities: int,
        dim: int,
        *,
        hidden: Annotated[int, Field(gt=0)] = 64,
        layers: Annotated[int, Field(gt=0)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.width = hidden
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        """z (..., M, D) -> (..., width)."""
        states, _ = self.lstm(z.reshape(-1, *z.shape[-2:]))
        return self.dropout(states[:, -1]).reshape(*z.shape[:-2], self.width)


class MLPFusion(nn.Module):
    """A perceptron over the latents side by side; with `layers: 0` they go to the outcome's linear head as they are."""

    def __init__(
        self,
        modalities: int,
        dim: int,
        *,
        hidden: Annotated[int, Field(gt=0)] = 64,
        layers: Annotated[int, Field(ge=0)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.width = hidden if layers else modalities * dim
        modules: list[nn.Module] = []
        size = modalities * dim
        for _ in range(layers):
            modules += [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)]
            size = hidden
        self.layers = nn.Sequential(*modules)

    def forward(self, z: Tensor) -> Tensor:
        """z (..., M, D) -> (..., width)."""
        return self.layers(z.flatten(-2))


FUSIONS: Registry[type[nn.Module]] = Registry("fusion")
FUSIONS.register("lstm", LSTMFusion)
FUSIONS.register("mlp", MLPFusion)

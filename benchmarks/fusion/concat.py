"""Concatenation with zeros for what is missing."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Options, Setting
from cm2pyro.data.dataset import Batch


class Concat(FusionNet):
    """Features side by side, 0 for a missing modality, then a head: the usual first answer to missing modalities.

    Args:
        mask: whether the M indicators of what is observed stand beside the features.
        hidden: width of the head's hidden layer, 0 for a linear head.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"hidden": 0}, {"hidden": 32}, {"hidden": 64})

    def __init__(self, setting: Setting, *, mask: bool = False, hidden: int = 0) -> None:
        super().__init__(setting)
        self.mask = mask
        size = sum(self.widths) + (len(self.names) if mask else 0)
        self.head = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1)) if hidden else nn.Linear(size, 1)

    def forward(self, batch: Batch) -> Tensor:
        parts = self.features(batch)
        if self.mask:
            parts.append(batch.observed.to(parts[0].dtype))
        return self.head(torch.cat(parts, 1))[:, 0]

"""One modality alone."""

import math

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Setting, outcome_loss
from cm2pyro.data.dataset import Batch


class Unimodal(FusionNet):
    """The encoder of one modality and a linear head, trained on the rows that have it; others get the training prevalence.

    Args:
        modality: its name.
    """

    def __init__(self, setting: Setting, *, modality: str) -> None:
        super().__init__(setting)
        self.place = self.names.index(modality)
        # The other encoders would only add to the L1 penalty.
        self.encoders = nn.ModuleList([encoder if m == self.place else nn.Identity() for m, encoder in enumerate(self.encoders)])
        self.head = nn.Linear(self.widths[self.place], 1)
        self.otherwise = math.log(setting.prevalence / (1 - setting.prevalence))

    def forward(self, batch: Batch) -> Tensor:
        logits = self.head(self.feature(batch, self.place))[:, 0]
        return torch.where(batch.observed[:, self.place], logits, self.otherwise)

    def loss(self, batch: Batch) -> Tensor:
        return outcome_loss(self(batch), batch.labels, batch.labelled & batch.observed[:, self.place])

    def l1(self) -> Tensor:
        weights = self.encoders[self.place].first_layers()  # type: ignore[operator]
        return torch.stack([w.abs().sum() for w in weights]).sum() if weights else torch.zeros(())

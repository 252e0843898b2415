"""Joint and unimodal classifiers in one training."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Options, Setting, outcome_loss
from cm2pyro.data.dataset import Batch


class Unified(FusionNet):
    """Unified training (Hayat et al., 2021; a baseline of MedFuse and of CM²): joint and unimodal classifiers share encoders.

    Every modality has a classifier of its own, trained on all rows that have it, paired or not, and a joint classifier reads the
    representations side by side. Adapted: the original alternates between batches of one modality and paired ones; here each
    batch gives all the losses at once, which is the same objective, so that the budget of steps is that of the other methods. A
    missing modality's place in the joint representation holds a learned token.

    Args:
        unimodal: weight of the mean of the unimodal losses.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"unimodal": 0.1}, {"unimodal": 0.3}, {"unimodal": 1.0})

    def __init__(self, setting: Setting, *, unimodal: float = 0.3) -> None:
        super().__init__(setting)
        self.unimodal = unimodal
        self.tokens = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in self.widths])
        self.heads = nn.ModuleList([nn.Linear(width, 1) for width in self.widths])
        self.head = nn.Linear(sum(self.widths), 1)

    def joint(self, features: list[Tensor], batch: Batch) -> Tensor:
        """(B,) logits of the joint classifier."""
        seen = batch.observed.unbind(1)
        parts = [torch.where(there[:, None], x, token) for x, there, token in zip(features, seen, self.tokens, strict=True)]
        return self.head(torch.cat(parts, 1))[:, 0]

    def forward(self, batch: Batch) -> Tensor:
        return self.joint(self.features(batch), batch)

    def loss(self, batch: Batch) -> Tensor:
        features = self.features(batch)
        alone = [
            outcome_loss(head(x)[:, 0], batch.labels, batch.labelled & there)
            for head, x, there in zip(self.heads, features, batch.observed.unbind(1), strict=True)
        ]
        return outcome_loss(self.joint(features, batch), batch.labels, batch.labelled) + self.unimodal * torch.stack(alone).mean()

"""Multimodal transfer module."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Options, Setting
from cm2pyro.data.dataset import Batch


class MMTM(FusionNet):
    """Multimodal transfer module (Joze et al., CVPR 2020): each modality's channels are gated by a summary of all.

    The paper averages every stream's feature map over space ("squeeze"), joins the averages in one hidden layer, and multiplies
    the channels of each stream by 2 sigmoid(W_m joint), between the layers of convolutional networks. Adapted: our features are
    vectors, so the average is the vector itself, and there is one place for the module, between the encoder's hidden layer and
    the head. A missing modality enters the summary as zeros. Afterwards the streams stand side by side under a linear head, as in
    MedFuse's comparison.

    Args:
        ratio: the hidden layer has (sum of widths) / ratio units; the paper has 4 for two streams.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"ratio": 2}, {"ratio": 4}, {"ratio": 8})

    def __init__(self, setting: Setting, *, ratio: int = 4) -> None:
        super().__init__(setting)
        total = sum(self.widths)
        self.squeeze = nn.Sequential(nn.Linear(total, max(1, total // ratio)), nn.ReLU())
        self.gates = nn.ModuleList([nn.Linear(max(1, total // ratio), width) for width in self.widths])
        self.head = nn.Linear(total, 1)

    def forward(self, batch: Batch) -> Tensor:
        features = self.features(batch)
        joint = self.squeeze(torch.cat(features, 1))
        gated = [2 * torch.sigmoid(gate(joint)) * feature for gate, feature in zip(self.gates, features, strict=True)]
        return self.head(torch.cat(gated, 1))[:, 0]

"""Dynamic affine feature map transform."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Options, Setting
from cm2pyro.data.dataset import Batch


class DAFT(FusionNet):
    """Dynamic affine feature map transform (Wolf et al., NeuroImage 2022): one modality scales and shifts another's features.

    In the paper the patient's table, together with the pooled feature map, gives through a bottleneck without biases a scale and
    a shift per channel of an image network's feature map, inside a residual block. Adapted: our features are vectors, pooling
    them is the identity, and none of our modalities is the image, so each is transformed in turn, given all of them. The block's
    residual path remains: feature + (scale * feature + shift). What comes out stands side by side under a linear head. A missing
    modality enters as zeros, and its place then holds the shift alone.

    Args:
        ratio: the bottleneck has (sum of widths) / ratio units; the paper has 7.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"ratio": 4}, {"ratio": 7}, {"ratio": 14})

    def __init__(self, setting: Setting, *, ratio: int = 7) -> None:
        super().__init__(setting)
        total = sum(self.widths)
        narrow = max(1, total // ratio)
        self.affine = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(total, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, 2 * width, bias=False))
                for width in self.widths
            ]
        )
        self.head = nn.Linear(total, 1)

    def forward(self, batch: Batch) -> Tensor:
        features = self.features(batch)
        joint = torch.cat(features, 1)
        parts = []
        for affine, feature in zip(self.affine, features, strict=True):
            scale, shift = affine(joint).chunk(2, -1)
            parts.append(feature + scale * feature + shift)
        return self.head(torch.cat(parts, 1))[:, 0]

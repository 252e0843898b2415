"""Tensor fusion: the product of all modalities' representations."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import Options, Projected, Setting
from cm2pyro.data.dataset import Batch
from cm2pyro.errors import ConfigError

_LARGEST = 20_000  # entries of the full product


class TensorFusion(Projected):
    """Tensor Fusion Network (Zadeh et al., EMNLP 2017): the Kronecker product of [z_m; 1] over all modalities, then a head.

    The appended 1 keeps every product of fewer modalities in the tensor. Adapted: features are projected to `width` d first, so
    that the full product of M modalities, (d + 1)^M entries, can be held (d = 8 and M = 4: 6,561); a missing modality has z = 0
    and leaves its 1, which removes it from every product. The head on the tensor is linear: the paper's hidden layers of 128
    would have more weights than there are patients.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"width": 2}, {"width": 4}, {"width": 8})

    def __init__(self, setting: Setting, *, width: int = 4) -> None:
        super().__init__(setting, width)
        size = (self.dim + 1) ** len(self.names)
        if size > _LARGEST:
            raise ConfigError(f"tensor: the product has {size:,} entries, at most {_LARGEST:,} are held; use tensor_lowrank")
        self.head = nn.Linear(size, 1)

    def forward(self, batch: Batch) -> Tensor:
        z = self.projected(batch)
        product = torch.ones_like(z[:, 0, :1])
        for m in range(len(self.names)):
            product = torch.einsum("bi,bj->bij", product, _with_one(z[:, m])).flatten(1)
        return self.head(product)[:, 0]


class LowRankFusion(Projected):
    """Low-rank tensor fusion (Liu et al., ACL 2018): the same product times weights of rank r, never formed.

    out = sum over r of the elementwise product over m of W_m^r [z_m; 1], then a linear head. Adapted as `TensorFusion`.

    Args:
        rank: r. hidden: width of `out`.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"rank": 2}, {"rank": 4}, {"rank": 8})

    def __init__(self, setting: Setting, *, rank: int = 4, hidden: int = 16, width: int | None = None) -> None:
        super().__init__(setting, width)
        # Near a product of ones: of M factors around 0 nothing would be left to learn from.
        start = torch.randn(len(self.names), rank, self.dim + 1, hidden) / (self.dim + 1) ** 0.5
        start[:, :, -1] = 1.0
        self.factors = nn.Parameter(start)
        self.head = nn.Linear(hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        z = _with_one(self.projected(batch))
        factors = torch.einsum("bmi,mrih->bmrh", z, self.factors)
        return self.head(factors.prod(1).mean(1))[:, 0]


def _with_one(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[..., :1])], -1)

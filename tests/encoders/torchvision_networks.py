"""Networks of torchvision as encoders, and pictures for them."""

from typing import Any

import torch

from cm2pyro.encoders import ENCODERS
from cm2pyro.encoders.vision import Backbone

STILL = {"degrees": 0.0, "translate": 0.0, "zoom": 0.0}


def make(name: str, size: int = 32, channels: int = 3, **options: Any) -> Backbone:
    torch.manual_seed(0)
    encoder = ENCODERS.get(name)({"pixels": (channels, size + 8, size + 8)}, size=size, **{**STILL, **options})
    assert isinstance(encoder, Backbone)
    return encoder


def pictures(n: int, size: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, size + 8, size + 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)

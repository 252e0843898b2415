"""What the networks of the comparison share: the package's encoders, and a loss on labelled rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.encoders import make_encoder

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
Options = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a network is built for: the config's modalities and their shapes, and the share of positive training labels."""

    config: Config
    shapes: Shapes
    prevalence: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)


class FusionNet(nn.Module):
    """Encoders of all modalities and a fusion of their features; a subclass says which.

    The encoders are those of the config, made by `cm2pyro.encoders`. An encoder sees the rows that have its modality and no
    others, in training and in evaluation.

    Attributes:
        trials: the values of the method's own options that its search tries; the same number for every method.
    """

    trials: ClassVar[tuple[Options, ...]] = ({},)

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.names = setting.names
        self.encoders = nn.ModuleList([make_encoder(setting.config, name, dict(setting.shapes[name])) for name in self.names])
        self.widths = [int(encoder.width) for encoder in self.encoders]  # type: ignore[arg-type]

    def features(self, batch: Batch) -> list[Tensor]:
        """Per modality (B, width), 0 where it is missing."""
        return [self.feature(batch, m) for m in range(len(self.names))]

    def feature(self, batch: Batch, m: int) -> Tensor:
        """(B, width) of the modality at place m, 0 where it is missing."""
        out = torch.zeros(len(batch), self.widths[m], device=batch.observed.device)
        rows = batch.observed[:, m].nonzero()[:, 0]
        if not len(rows):
            return out
        inputs = {view: x[rows] for view, x in batch.inputs[self.names[m]].items()}
        return out.index_copy(0, rows, self.encoders[m](inputs))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the outcome, (B,)."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """What training lowers, a mean over labelled rows."""
        return outcome_loss(self(batch), batch.labels, batch.labelled)

    def probabilities(self, batch: Batch) -> Tensor:
        """(B,), in evaluation."""
        return torch.sigmoid(self(batch))

    def mixture_parameters(self) -> list[nn.Parameter]:
        """Parameters of a prior, which as in the package have their own learning rate and no weight decay."""
        return []

    def l1(self) -> Tensor:
        """Sum of absolute first-layer weights of the encoders that name them."""
        weights = [w.abs().sum() for encoder in self.encoders for w in encoder.first_layers()]  # type: ignore[operator]
        return torch.stack(weights).sum() if weights else torch.zeros(())


class Projected(FusionNet):
    """Features projected to one width d, for fusions that need it.

    Args:
        width: d; None for the config's latent.dim.
    """

    def __init__(self, setting: Setting, width: int | None = None) -> None:
        super().__init__(setting)
        self.dim = width or setting.config.latent.dim
        self.projections = nn.ModuleList([nn.Linear(size, self.dim) for size in self.widths])

    def projected(self, batch: Batch) -> Tensor:
        """(B, M, d), 0 where the modality is missing."""
        columns = [project(feature) for project, feature in zip(self.projections, self.features(batch), strict=True)]
        return torch.stack(columns, 1) * batch.observed[..., None]


def outcome_loss(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy over the rows that are `counted` (B,) bool, 0 where there are none."""
    each = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return (each * counted).sum() / counted.sum().clamp_min(1)

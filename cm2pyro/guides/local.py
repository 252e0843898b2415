"""The amortized guide of one modality: encoder features -> a latent's location and scale."""

import torch
from torch import Tensor, nn

from cm2pyro.data.columns import Views
from cm2pyro.encoders import Encoder

_LEAST_SCALE = 1e-3
_MOMENTUM = 0.05  # weight of the latest step in running statistics
_FIRST_SCALE = -1.0  # softplus(-1) = 0.31: draws spread from the first step, but less than the latents themselves


class RowNorm(nn.Module):
    """Standardise each latent dimension over the rows given, without learned scale or shift.

    Running statistics serve evaluation and batches of one row. Without it a deterministic representation and its
    prior shrink together, and the objective has no lower bound.
    """

    loc: Tensor
    variance: Tensor
    steps: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor) -> Tensor:
        """z (n, D), n >= 1, only rows that have the modality."""
        loc, variance = self.loc, self.variance
        if self.training and len(z) > 1:
            loc, variance = z.mean(0), z.var(0, unbiased=False)
            with torch.no_grad():
                # The first steps average evenly: a start at 0 and 1 would linger.
                weight = (1 / (self.steps + 1).to(z.dtype)).clamp_min(_MOMENTUM)
                self.loc.lerp_(loc, weight)
                self.variance.lerp_(variance * len(z) / (len(z) - 1), weight)
                self.steps += 1
        return (z - loc) / (variance + 1e-6).sqrt()


class LocalGuide(nn.Module):
    """z_m ~ Normal(loc(x_m), scale(x_m)), or with `delta` z_m = loc(x_m).

    An encoder that gives the latent itself is always a delta, without a projection.

    Args:
        encoder: of the modality. dim: latent width D. delta: no scale, no density.
        precision: in which the encoder computes. Its features are float32 again before anything else reads them, since densities of
            latents and the copula's tails need more than bfloat16's 8 bits.
    """

    def __init__(self, encoder: Encoder, dim: int, delta: bool, precision: str = "float32") -> None:
        super().__init__()
        self.precision = precision
        self.encoder = encoder
        self.dim = dim
        self.delta = delta or encoder.given
        self.project: nn.Module = nn.Identity()
        if not encoder.given:
            linear = nn.Linear(encoder.width, dim if self.delta else 2 * dim)
            self.project = nn.Sequential(linear, RowNorm(dim)) if self.delta else linear

    def forward(self, inputs: Views) -> tuple[Tensor, Tensor]:
        """(n, ...) views of rows that have the modality -> loc (n, D), scale (n, D), 0 for a delta."""
        out = self.project(self._features(inputs))
        if self.delta:
            return out, torch.zeros_like(out)
        loc, raw = out.split(self.dim, -1)
        return loc, nn.functional.softplus(raw + _FIRST_SCALE) + _LEAST_SCALE

    def _features(self, inputs: Views) -> Tensor:
        if self.precision == "float32" or self.encoder.given:  # a latent that is given has nothing to compute
            features: Tensor = self.encoder(inputs)
            return features
        device = next(iter(inputs.values())).device.type
        with torch.autocast(device, torch.bfloat16):
            features = self.encoder(inputs)
        return features.float()

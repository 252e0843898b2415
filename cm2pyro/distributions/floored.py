"""A positive distribution moved up by a floor."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform


class Floored(dist.TransformedDistribution):
    """floor + X: a positive distribution moved up, with its support known."""

    def __init__(self, base: TorchDistribution, floor: float, validate_args: bool | None = None) -> None:
        self.floor = floor
        super().__init__(base, [AffineTransform(floor, 1.0)], validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        return constraints.greater_than(self.floor)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Floored":
        return Floored(self.base_dist.expand(batch_shape), self.floor, validate_args=False)

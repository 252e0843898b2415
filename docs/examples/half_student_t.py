"""The half-Student-t, which Pyro does not have: a prior of standard deviations with a tail as heavy as one likes."""

from typing import Any, ClassVar

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class HalfStudentT(dist.FoldedDistribution):
    """|X|, X ~ StudentT(df, 0, scale). Gelman (2006), Bayesian Analysis 1.

    Args:
        df, scale: positive, broadcast against each other.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"df": constraints.positive, "scale": constraints.positive}

    def __init__(self, df: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.df, self.scale = broadcast_all(df, scale)
        super().__init__(dist.StudentT(self.df, 0.0, self.scale, validate_args=False), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TorchDistributionMixin:
        return HalfStudentT(self.df.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False)

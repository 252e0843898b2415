"""Likelihoods of the outcome, by task."""

import pyro.distributions as dist
import torch
from torch import Tensor

from cm2pyro.registry import Registry


class Likelihood:
    """Turns the outcome head's outputs into a distribution of the outcome.

    Args:
        classes: number of classes.
    """

    outputs: int

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        """outputs (..., outputs) -> a distribution with batch shape (...)."""
        raise NotImplementedError

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(..., outputs) -> (..., classes)."""
        raise NotImplementedError

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Class indices (B,) long in the type that the distribution takes."""
        return labels

    def mixture(self, outputs: Tensor, log_weights: Tensor) -> dist.MixtureSameFamily:
        """Completions with weights: outputs (L, B, outputs), log_weights (L, B) -> a distribution with batch shape (B,)."""
        components = self.distribution(outputs.movedim(0, 1))
        return dist.MixtureSameFamily(dist.Categorical(logits=log_weights.mT, validate_args=False), components, validate_args=False)


class Binary(Likelihood):
    """y ~ Bernoulli(logit)."""

    outputs = 1

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=outputs[..., 0], validate_args=False)

    def probabilities(self, outputs: Tensor) -> Tensor:
        positive = outputs[..., 0].sigmoid()
        return torch.stack([1 - positive, positive], -1)

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        return labels.to(dtype)


class Multiclass(Likelihood):
    """y ~ Categorical(logits)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.outputs = classes

    def distribution(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs, validate_args=False)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)


LIKELIHOODS: Registry[type[Likelihood]] = Registry("task")
LIKELIHOODS.register("binary", Binary)
LIKELIHOODS.register("multiclass", Multiclass)

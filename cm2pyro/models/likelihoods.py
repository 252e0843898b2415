"""Likelihoods of the outcome, by task."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from cm2pyro.registry import Registry

_CLIP = 1e-7  # a sure and wrong probability costs 16.1 and not infinity
_LEAST_NOISE = 0.01  # sd of the training labels; with none a fit that interpolates would have no lower bound
_QUANTILES = (0.05, 0.95)
_ROUNDING = 1e-9  # of a sum of weights


class Likelihood(nn.Module):
    """Turns the outcome head's outputs into a distribution of the outcome.

    Args:
        classes: number of classes, or of labels.

    Attributes:
        outputs: how many numbers of the head it takes. columns: how many numbers a prediction has per row.
        completions: draws of missing latents per component in training.
    """

    outputs: int
    columns: int
    completions: int = 1

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.columns = classes

    def distribution(self, outputs: Tensor, known: Tensor | None = None) -> dist.TorchDistribution:
        """outputs (..., outputs), known as from `known` -> a distribution with batch shape (...)."""
        raise NotImplementedError

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Labels of a batch in the type that the distribution takes."""
        return labels

    def known(self, labels: Tensor) -> Tensor | None:
        """Which of a row's several labels are there, (B, L) bool; None where a row has one label, or none at all."""
        return None

    def mixture(self, outputs: Tensor, log_weights: Tensor, known: Tensor | None = None) -> dist.MixtureSameFamily:
        """Completions with weights: outputs (L, B, outputs), log_weights (L, B) -> a distribution with batch shape (B,)."""
        components = self.distribution(outputs.movedim(0, 1), None if known is None else known[:, None])
        return dist.MixtureSameFamily(dist.Categorical(logits=log_weights.mT, validate_args=False), components, validate_args=False)

    def predictive(self, outputs: Tensor) -> Tensor:
        """What a draw says about the outcome, (..., outputs) -> (..., P) float64: probabilities; of a number location and scale.

        Those of several fits can stand side by side as draws.
        """
        raise NotImplementedError

    def reported(self, mean: Tensor) -> Tensor:
        """Which of the numbers of `predictive` a report on their spread is about: their means (B, P) -> (B, L) long."""
        return torch.arange(self.columns, device=mean.device).expand(len(mean), -1)

    def summary(self, parameters: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """What is predicted from S draws: parameters (S, B, P) -> (4, B, columns) float64, mean, sd, 5% and 95% quantile.

        Args:
            log_weights: (S, B) of the draws, summing to 1 over them; None: equal.
        """
        raise NotImplementedError

    def log_score(self, parameters: Tensor, labels: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """log of the predictive density of a batch's labels: (S, B, P), (B, …), (S, B) -> like labels, float64.

        The density is the mean over the draws. Where there is no label the value means nothing.
        """
        raise NotImplementedError


class Discrete(Likelihood):
    """An outcome whose prediction is probabilities; their spread over draws is what missing data leave open."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(..., outputs) -> (..., columns)."""
        raise NotImplementedError

    def predictive(self, outputs: Tensor) -> Tensor:
        return self.probabilities(outputs).double()

    def summary(self, parameters: Tensor, log_weights: Tensor | None = None) -> Tensor:
        p = parameters
        if log_weights is None:
            return torch.stack([p.mean(0), p.std(0, unbiased=False), *torch.quantile(p, p.new_tensor(_QUANTILES), dim=0)])
        mean = weighted_mean(p, log_weights)
        return torch.stack(
            [mean, weighted_mean((p - mean) ** 2, log_weights).sqrt(), *(weighted_quantile(p, log_weights, q) for q in _QUANTILES)]
        )

    def log_score(self, parameters: Tensor, labels: Tensor, log_weights: Tensor | None = None) -> Tensor:
        return weighted_mean(parameters, log_weights).gather(1, labels[:, None])[:, 0].clamp(_CLIP, 1).log()


class Binary(Discrete):
    """y ~ Bernoulli(logit)."""

    outputs = 1

    def distribution(self, outputs: Tensor, known: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=outputs[..., 0], validate_args=False)

    def probabilities(self, outputs: Tensor) -> Tensor:
        positive = outputs[..., 0].sigmoid()
        return torch.stack([1 - positive, positive], -1)

    def reported(self, mean: Tensor) -> Tensor:
        return torch.ones(len(mean), 1, dtype=torch.long, device=mean.device)

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        return labels.to(dtype)


class Multiclass(Discrete):
    """y ~ Categorical(logits)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.outputs = classes

    def distribution(self, outputs: Tensor, known: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs, validate_args=False)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def reported(self, mean: Tensor) -> Tensor:
        return mean.argmax(-1, keepdim=True)


class Multilabel(Discrete):
    """y_l ~ Bernoulli(logit_l) independently for every label l, given the latents; a label that is empty drops out alone."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.outputs = classes

    def distribution(self, outputs: Tensor, known: Tensor | None = None) -> dist.TorchDistribution:
        each = dist.Bernoulli(logits=outputs, validate_args=False)
        return (each if known is None else each.mask(known.expand(outputs.shape))).to_event(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        return labels.clamp_min(0).to(dtype)

    def known(self, labels: Tensor) -> Tensor:
        return labels >= 0

    def log_score(self, parameters: Tensor, labels: Tensor, log_weights: Tensor | None = None) -> Tensor:
        return weighted_mean(torch.where(labels > 0, parameters, 1 - parameters), log_weights).clamp(_CLIP, 1).log()


class Regression(Likelihood):
    """y ~ Normal(output, scale), of standardised labels; the observation scale is learned, the same for every row, above a floor."""

    outputs = 1
    # log p(y | z) averaged over draws falls with their variance without bound: with one draw the fit would shrink the spread
    # of missing latents and widen the noise of complete rows in exchange. The log of the mean over many draws does not.
    completions = 20

    def __init__(self, classes: int) -> None:
        super().__init__(1)
        # Begins at the labels' own sd: the head begins at their mean.
        self.raw_scale = nn.Parameter(torch.tensor(math.log(math.expm1(1 - _LEAST_NOISE))))

    @property
    def scale(self) -> Tensor:
        """() observation scale, in sd of the training labels."""
        return _LEAST_NOISE + nn.functional.softplus(self.raw_scale)

    def distribution(self, outputs: Tensor, known: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(outputs[..., 0], self.scale, validate_args=False)

    def labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        return labels.to(dtype)

    def predictive(self, outputs: Tensor) -> Tensor:
        loc = outputs[..., 0].double()
        return torch.stack([loc, self.scale.double().expand(loc.shape)], -1)

    def summary(self, parameters: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """Mean, sd and quantiles of the outcome itself: a mixture over draws of normals, observation noise included."""
        locs, scales = parameters.unbind(-1)
        mean = weighted_mean(locs, log_weights)
        sd = weighted_mean((locs - mean) ** 2 + scales**2, log_weights).sqrt()
        return torch.stack([mean, sd, *(_mixture_quantile(locs, scales, log_weights, q) for q in _QUANTILES)])[..., None]

    def log_score(self, parameters: Tensor, labels: Tensor, log_weights: Tensor | None = None) -> Tensor:
        locs, scales = parameters.unbind(-1)
        each = torch.distributions.Normal(locs, scales, validate_args=False).log_prob(labels.double())
        return (each - math.log(len(each)) if log_weights is None else each + log_weights).logsumexp(0)


def weighted_mean(values: Tensor, log_weights: Tensor | None) -> Tensor:
    """Mean over draws: values (S, B, …), log_weights (S, B) or None for equal ones -> (B, …)."""
    if log_weights is None:
        return values.mean(0)
    return (values * log_weights.exp().reshape(*log_weights.shape, *(1,) * (values.dim() - 2))).sum(0)


def weighted_quantile(values: Tensor, log_weights: Tensor, q: float) -> Tensor:
    """Quantile over draws: values (S, B, C), log_weights (S, B) -> (B, C), the least draw up to which the weights reach q.

    Not interpolated: between two draws one of which has nearly all the weight there is nothing to interpolate.
    """
    ordered, order = values.sort(0)
    upto = log_weights.exp()[..., None].expand_as(values).gather(0, order).cumsum(0)
    first = (upto < q - _ROUNDING).sum(0, keepdim=True).clamp_max(len(values) - 1)
    return ordered.gather(0, first)[0]


def _mixture_quantile(locs: Tensor, scales: Tensor, log_weights: Tensor | None, q: float) -> Tensor:
    """Quantile of a mixture of S normals: (S, B) each -> (B,), by bisection to 1e-12 of the bracket."""
    alone = locs + scales * torch.special.ndtri(locs.new_tensor(q))
    low, high = alone.amin(0), alone.amax(0)  # between the quantiles of the outermost normals
    for _ in range(40):
        middle = (low + high) / 2
        below = weighted_mean(torch.special.ndtr((middle - locs) / scales), log_weights) < q
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


LIKELIHOODS: Registry[type[Likelihood]] = Registry("task")
LIKELIHOODS.register("binary", Binary)
LIKELIHOODS.register("multiclass", Multiclass)
LIKELIHOODS.register("multilabel", Multilabel)
LIKELIHOODS.register("regression", Regression)

"""Likelihoods of the outcome, by task."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from cm2pyro.registry import Registry

_CLIP = 1e-7  # a sure and wrong probability costs 16.1 and not infinity
_LEAST_NOISE = 0.01  # sd of the training labels; with none a fit that interpolates would have no lower bound
_QUANTILES = (0.05, 0.95)


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

    def expectation(self, outputs: Tensor) -> Tensor:
        """What a draw of the latents predicts, (..., outputs) -> (..., columns): probabilities, of a number its mean."""
        raise NotImplementedError

    def reported(self, mean: Tensor) -> Tensor:
        """Columns whose spread a report is about: mean prediction (B, columns) -> (B, L) long; every column, unless overridden."""
        return torch.arange(self.columns, device=mean.device).expand(len(mean), -1)

    def summary(self, outputs: Tensor) -> Tensor:
        """What is predicted from S draws: outputs (S, B, outputs) -> (4, B, columns) float64, mean, sd, 5% and 95% quantile."""
        raise NotImplementedError

    def log_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """log of the predictive density of a batch's labels: (S, B, outputs), (B, …) -> like labels, float64.

        The density is the mean over the draws. Where there is no label the value means nothing.
        """
        raise NotImplementedError


class Discrete(Likelihood):
    """An outcome whose prediction is probabilities; their spread over draws is what missing data leave open."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(..., outputs) -> (..., columns)."""
        raise NotImplementedError

    def expectation(self, outputs: Tensor) -> Tensor:
        return self.probabilities(outputs)

    def summary(self, outputs: Tensor) -> Tensor:
        p = self.probabilities(outputs).double()
        return torch.stack([p.mean(0), p.std(0, unbiased=False), *torch.quantile(p, p.new_tensor(_QUANTILES), dim=0)])

    def log_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        p = self.probabilities(outputs).double().mean(0)
        return p.gather(1, labels[:, None])[:, 0].clamp(_CLIP, 1).log()


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

    def log_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        p = self.probabilities(outputs)
        return torch.where(labels > 0, p, 1 - p).double().mean(0).clamp(_CLIP, 1).log()


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

    def expectation(self, outputs: Tensor) -> Tensor:
        return outputs[..., :1]

    def summary(self, outputs: Tensor) -> Tensor:
        """Mean, sd and quantiles of the outcome itself: a mixture over draws of normals, observation noise included."""
        draws, scale = outputs[..., 0].double(), self.scale.double()
        sd = (draws.var(0, unbiased=False) + scale**2).sqrt()
        return torch.stack([draws.mean(0), sd, *(_mixture_quantile(draws, scale, q) for q in _QUANTILES)])[..., None]

    def log_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        each = torch.distributions.Normal(outputs[..., 0].double(), self.scale.double(), validate_args=False).log_prob(labels.double())
        return each.logsumexp(0) - math.log(len(outputs))


def _mixture_quantile(locs: Tensor, scale: Tensor, q: float) -> Tensor:
    """Quantile of the even mixture of S normals: locs (S, B), scale () -> (B,), by bisection to 1e-12 of the bracket."""
    alone = scale * torch.special.ndtri(locs.new_tensor(q))
    low, high = locs.amin(0) + alone, locs.amax(0) + alone  # between the quantiles of the outermost normals
    for _ in range(40):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle - locs) / scale).mean(0) < q
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


LIKELIHOODS: Registry[type[Likelihood]] = Registry("task")
LIKELIHOODS.register("binary", Binary)
LIKELIHOODS.register("multiclass", Multiclass)
LIKELIHOODS.register("multilabel", Multilabel)
LIKELIHOODS.register("regression", Regression)

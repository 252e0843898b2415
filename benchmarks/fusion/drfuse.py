"""DrFuse: what modalities share and what each has alone."""

import itertools
import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.fusion.base import FusionNet, Options, Setting, outcome_loss
from cm2pyro.data.dataset import Batch

_MARGIN_LOSS = 0.1  # weight of the ranking of attention weights
_EDGE = 1e-6


class Parts(NamedTuple):
    """One pass of DrFuse; M modalities, d wide.

    Attributes:
        shared, distinct: (B, M, d). logits: (B, M + 1) of each distinct part, then of the pooled shared one.
        weights: (B, M + 1) attention, 0 where the part is missing. final: (B,) logits of the outcome.
    """

    shared: Tensor
    distinct: Tensor
    logits: Tensor
    weights: Tensor
    final: Tensor


class DrFuse(FusionNet):
    """DrFuse (Yao et al., AAAI 2024): shared and distinct representations, aligned and kept apart, weighed by attention.

    From each modality a shared and a distinct representation; sigmoids of the shared ones of two observed modalities are pulled
    together by the Jensen–Shannon divergence, shared and distinct of one modality are kept apart by |cosine|. The shared ones are
    pooled as the logit of the mean of their sigmoids. Each distinct part and the pooled shared one have a classifier; attention
    over the parts that are there gives the prediction, and a margin loss asks that of two parts the one whose own classifier is
    nearer to the label gets more attention.

    Adapted: from two modalities to M (means over modalities and over pairs); each pair of branches is two linear layers on the
    features of our encoder, in place of two networks on common low-level layers; attention for one outcome, where the paper has one
    per disease. A row without modalities has the pooled representation of sigmoids 1/2.

    Args:
        weight: of the alignment and disentangling terms. width: d.
    """

    trials: ClassVar[tuple[Options, ...]] = ({"weight": 0.1}, {"weight": 0.3}, {"weight": 1.0})

    def __init__(self, setting: Setting, *, weight: float = 0.3, width: int = 32) -> None:
        super().__init__(setting)
        self.weight, self.dim = weight, width
        self.to_shared = nn.ModuleList([nn.Linear(size, width) for size in self.widths])
        self.to_distinct = nn.ModuleList([nn.Linear(size, width) for size in self.widths])
        self.common = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(len(self.names) + 1)])
        self.attention = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, 1)

    def parts(self, batch: Batch) -> Parts:
        """Everything that prediction and losses need."""
        features = self.features(batch)
        shared = torch.stack([self.common(to(x)) for to, x in zip(self.to_shared, features, strict=True)], 1)
        distinct = torch.stack([to(x) for to, x in zip(self.to_distinct, features, strict=True)], 1)
        pooled = pool(shared, batch.observed)
        tokens = torch.cat([distinct, pooled[:, None]], 1)
        there = torch.cat([batch.observed, torch.ones_like(batch.observed[:, :1])], 1)
        query, key, value = self.attention(tokens).chunk(3, -1)
        asked = (query * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        scores = torch.einsum("bd,bnd->bn", asked, key) / math.sqrt(self.dim)
        weights = scores.masked_fill(~there, -math.inf).softmax(-1)
        logits = torch.cat([head(tokens[:, n]) for n, head in enumerate(self.heads)], 1)
        return Parts(shared, distinct, logits, weights, self.head(torch.einsum("bn,bnd->bd", weights, value))[:, 0])

    def forward(self, batch: Batch) -> Tensor:
        return self.parts(batch).final

    def loss(self, batch: Batch) -> Tensor:
        parts = self.parts(batch)
        there = torch.cat([batch.observed, torch.ones_like(batch.observed[:, :1])], 1) & batch.labelled[:, None]
        own = [outcome_loss(parts.logits[:, n], batch.labels, there[:, n]) for n in range(there.shape[1])]
        loss = outcome_loss(parts.final, batch.labels, batch.labelled) + torch.stack(own).mean()
        return (
            loss
            + self.weight * (self._alignment(parts, batch) + self._overlap(parts, batch))
            + _MARGIN_LOSS * _ranking(parts, there, batch)
        )

    def _alignment(self, parts: Parts, batch: Batch) -> Tensor:
        """Mean Jensen–Shannon divergence of the shared representations of two observed modalities, per dimension."""
        terms = [parts.shared.new_zeros(())]
        for a, b in itertools.combinations(range(len(self.names)), 2):
            both = batch.observed[:, a] & batch.observed[:, b]
            divergence = _jensen_shannon(torch.sigmoid(parts.shared[:, a]), torch.sigmoid(parts.shared[:, b])).mean(-1)
            terms.append((divergence * both).sum() / both.sum().clamp_min(1))
        return torch.stack(terms[1:] or terms).mean()

    def _overlap(self, parts: Parts, batch: Batch) -> Tensor:
        """Mean |cosine| of shared and distinct over observed modalities."""
        cosine = nn.functional.cosine_similarity(parts.shared, parts.distinct, dim=-1).abs()
        return (cosine * batch.observed).sum() / batch.observed.sum().clamp_min(1)


def pool(shared: Tensor, observed: Tensor) -> Tensor:
    """(B, M, d) and (B, M) bool -> (B, d), the logit of the mean of the observed modalities' sigmoids; 0 where there are none."""
    count = observed.sum(1, keepdim=True)
    mean = (torch.sigmoid(shared) * observed[..., None]).sum(1) / count.clamp_min(1)
    return torch.logit(torch.where(count > 0, mean, 0.5), eps=_EDGE)


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Of Bernoulli distributions, elementwise."""

    def entropy(x: Tensor) -> Tensor:
        x = x.clamp(_EDGE, 1 - _EDGE)
        return -(x * x.log() + (1 - x) * (1 - x).log())

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def _ranking(parts: Parts, there: Tensor, batch: Batch) -> Tensor:
    """Mean over pairs of parts of how far attention contradicts their classifiers' losses."""
    labels = batch.labels.to(parts.logits.dtype)[:, None].expand_as(parts.logits)
    losses = nn.functional.binary_cross_entropy_with_logits(parts.logits.detach(), labels, reduction="none")
    terms = []
    for a, b in itertools.combinations(range(there.shape[1]), 2):
        both = there[:, a] & there[:, b]
        sign = torch.where(losses[:, a] < losses[:, b], 1.0, -1.0)
        wrong = torch.relu(-sign * (parts.weights[:, a] - parts.weights[:, b]))
        terms.append((wrong * both).sum() / both.sum().clamp_min(1))
    return torch.stack(terms).mean()

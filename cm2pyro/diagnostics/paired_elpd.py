"""Models compared by expected log predictive density on the same subjects: paired differences, weights, the choice of the simplest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cm2pyro.diagnostics.resampling import Array

TIE = 2.0  # standard errors that a gain must exceed
_RESAMPLES, _BLOCK = 1000, 100


@dataclass(frozen=True)
class PairedElpd:
    """C models on S subjects.

    Attributes:
        elpd, se: (C,) sum over subjects and its standard error. difference, se_difference: (C,) to the best, paired; at most 0.
        best: the greatest elpd. chosen: the simplest within 2 standard errors of it. weights: (C,) pseudo-BMA+.
        picked: (C,) share of resamples in which the model is chosen.
    """

    elpd: Array
    se: Array
    difference: Array
    se_difference: Array
    best: int
    chosen: int
    weights: Array
    picked: Array

    @property
    def plausible(self) -> Array:
        """(C,) bool, within 2 standard errors of the best."""
        return self.difference >= -TIE * self.se_difference


def paired_elpd(elpd: Array, simplicity: Sequence[tuple[float, ...]], seed: int = 0) -> PairedElpd:
    """Compare models by their elpd of each subject.

    Weights are the mean over 1,000 Bayesian bootstraps of subjects of softmax(elpd): pseudo-BMA+ of Yao, Vehtari, Simpson & Gelman
    (2018), Bayesian Analysis 13. The same bootstraps (Rubin 1981) say how often each model would be chosen.

    Args:
        elpd: (S, C). simplicity: of each model, smaller is simpler; between equally simple ones the greater elpd decides.
    """
    S, C = elpd.shape
    total = elpd.sum(0)
    best = int(total.argmax())
    se = np.sqrt(S * elpd.var(0, ddof=1))
    apart = elpd - elpd[:, [best]]
    difference, se_difference = apart.sum(0), np.sqrt(S * apart.var(0, ddof=1))
    ranks = {key: i for i, key in enumerate(sorted(set(simplicity)))}
    rank = np.array([ranks[key] for key in simplicity])
    rng = np.random.default_rng(seed)
    weights, picked = np.zeros(C), np.zeros(C)
    for start in range(0, _RESAMPLES, _BLOCK):
        share = rng.dirichlet(np.ones(S), min(_BLOCK, _RESAMPLES - start))  # (B, S)
        totals = S * share @ elpd
        scaled = np.exp(totals - totals.max(1, keepdims=True))
        weights += (scaled / scaled.sum(1, keepdims=True)).sum(0)
        winners = totals.argmax(1)
        for winner in np.unique(winners):
            mine, paired = share[winners == winner], elpd - elpd[:, [winner]]
            mean = mine @ paired
            spread = np.sqrt(S * np.maximum(mine @ paired**2 - mean**2, 0))
            for row_mean, row_spread, row_total in zip(S * mean, spread, totals[winners == winner], strict=True):
                picked[_simplest(row_mean, row_spread, rank, row_total)] += 1
    chosen = _simplest(difference, se_difference, rank, total)
    return PairedElpd(total, se, difference, se_difference, best, chosen, weights / _RESAMPLES, picked / _RESAMPLES)


def _simplest(difference: Array, spread: Array, rank: Array, total: Array) -> int:
    """The simplest of the models whose gap to the best does not exceed 2 standard errors."""
    tied = difference >= -TIE * spread
    return int(np.lexsort((-total, np.where(tied, rank, np.inf)))[0])

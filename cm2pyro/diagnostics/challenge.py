"""Scores that public challenges were ranked by."""

from typing import Any

import numpy as np

from cm2pyro.diagnostics.resampling import Array, measured, reflected, subject_codes
from cm2pyro.errors import ConfigError
from cm2pyro.registry import Registry

DECILES = 10
_SOFTENING = 0.001  # of the challenge's denominators
_ROUNDING = 1e-12  # a range of mean risks below it is none


class PhysioNet2012:
    """Mortality of intensive care patients (Silva et al., Computing in Cardiology 2012).

    `event1` is the smaller of sensitivity and positive predictive value of "p ≥ threshold" (the greater the better). `event2` is the
    Hosmer-Lemeshow H over ten groups of ⌊n / 10⌋ rows by rising p (the n mod 10 highest are in none),
    H = Σ_g (O_g − E_g)² / (m π_g (1 − π_g) + 0.001) with m rows, O_g deaths, E_g = m π_g and mean probability π_g, divided by
    π_10 − π_1 (the smaller the better); undefined below ten rows and where these are equal. Ties keep the order of the rows.

    Args:
        labels: (n,) 0 or 1. p: (n,) probabilities of 1. threshold: chosen on other rows.
    """

    names = ("event1", "event2")

    def __init__(self, labels: Array, p: Array, threshold: float) -> None:
        order = np.argsort(p, kind="stable")
        self.order, self.y, self.p = order, labels[order].astype(float), p[order]
        self.called = (self.p >= threshold).astype(float)

    def under(self, weights: Array) -> Array:
        """(B, n) whole row weights in the order of the rows -> (B, 2), NaN where undefined."""
        w = weights[:, self.order]
        hits, deaths, calls = (w @ column for column in (self.y * self.called, self.y, self.called))
        with np.errstate(divide="ignore", invalid="ignore"):
            # Nobody called: the positive predictive value is 0 / 0, and no death is found.
            event1 = np.where(deaths > 0, np.minimum(hits / deaths, np.where(calls > 0, hits / calls, 0.0)), np.nan)
        return np.column_stack([event1, [self._event2(row) for row in w]])

    def _event2(self, weights: Array) -> float:
        """Sums over whole rows up to the edges of the groups: a row that counts several times may stand in two."""
        upto = np.concatenate([[0.0], np.cumsum(weights)])
        size = upto[-1] // DECILES
        if size < 1:
            return float("nan")
        edges = size * np.arange(DECILES + 1)
        there = np.concatenate([[True], weights > 0])  # np.interp wants rising places
        deaths, risk = (
            np.diff(np.interp(edges, upto[there], np.concatenate([[0.0], np.cumsum(weights * column)])[there]))
            for column in (self.y, self.p)
        )
        mean = risk / size
        if mean[-1] - mean[0] < _ROUNDING:
            return float("nan")
        return float((((deaths - risk) ** 2) / (size * mean * (1 - mean) + _SOFTENING)).sum() / (mean[-1] - mean[0]))


CHALLENGES: Registry[type[PhysioNet2012]] = Registry("challenge")
CHALLENGES.register("physionet2012", PhysioNet2012)


def check_challenge(name: str, task: str, threshold: float | None) -> None:
    """Raises ConfigError: an unknown challenge, another task than binary, a run without a threshold."""
    CHALLENGES.get(name, "--challenge")
    if task != "binary":
        raise ConfigError(f"--challenge {name}: scores a binary outcome, the task of this run is {task}; leave it out")
    if threshold is None:
        raise ConfigError(
            f"--challenge {name}: found no threshold in the run, expected one that was chosen on validation rows; "
            "run cm2pyro recalibrate RUN --data MANIFEST --method none"
        )


def challenge_scores(name: str, labels: Array, p: Array, threshold: float, subjects: Array, bootstrap: int, seed: int) -> dict[str, Any]:
    """The scores of a challenge with 95% bootstrap intervals over subjects; of `event2`, which noise makes greater, the basic interval.

    Args:
        labels: (n,) 0 or 1. p: (n,) of 1. threshold: chosen on other rows. subjects: (n,) ids.

    Returns:
        `name`, `threshold`, and each score as `{"value", "low", "high"}`.
    """
    challenge = CHALLENGES.get(name, "--challenge")
    codes = subject_codes(subjects, len(labels))
    scores = challenge(labels, p, threshold)
    found = measured(lambda counts: scores.under(counts[:, codes]), len(labels), int(codes.max()) + 1, bootstrap, seed)
    each = dict(zip(scores.names, found, strict=True))
    return {"name": name, "threshold": threshold, **each, "event2": reflected(each["event2"])}

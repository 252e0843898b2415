"""Masks that hide modalities which a sample has, to train or to ask how a fit fares without them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit

from cm2pyro.data.content import Matrix, Rows, content_score, standardised
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.simulated_truth import MAR_SLOPE, MNAR_SLOPES
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.registry import nearest, one_line

RANDOM = ("mcar", "mar", "mnar")
NAMING = ("only", "without")


@dataclass(frozen=True)
class Mechanism:
    """How a mask comes about, as `mcar:P`, `mar:P`, `mnar:P`, each with `@a,b` or without, `only:NAME` or `without:NAME`.

    Attributes:
        text: as it was written. kind: the part before the colon. probability: with which a modality of the scope is
            hidden, on average. scope: the modalities that may be hidden, in the order of the config.
    """

    text: str
    kind: str
    probability: float
    scope: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, names: tuple[str, ...], where: str = "--missing") -> Self:
        """Read a mechanism.

        Args:
            names: the modalities, in the order of the config. where: the option or key, for messages.

        Raises:
            ConfigError: unknown mechanism, probability or modality; nothing left on which `mar` could depend.
        """
        fault = f"{where} {one_line(text)}: "
        kind, _, argument = text.partition(":")
        kind, (argument, at, listed) = kind.strip(), argument.partition("@")
        argument = argument.strip()
        if kind not in RANDOM + NAMING:
            known = nearest(kind, RANDOM + NAMING)
            raise ConfigError(f"{fault}unknown mechanism '{one_line(kind, 60)}'; {known}; write for example mcar:0.5 or only:{names[0]}")
        if kind in NAMING:
            if at:
                raise ConfigError(f"{fault}'@' gives a scope to mcar, mar and mnar alone; write {kind}:{one_line(argument, 60)}")
            _known(argument, names, fault)
            return cls(text, kind, 1.0, tuple(name for name in names if (name == argument) == (kind == "without")))
        try:
            probability = float(argument)
        except ValueError:
            probability = -1.0
        if not 0 <= probability <= 1:  # also refuses NaN
            raise ConfigError(f"{fault}'{one_line(argument, 60)}' is not a probability; write for example {kind}:0.5")
        if at:
            chosen = [name.strip() for name in listed.split(",")]
            for name in chosen:
                _known(name, names, fault)
            scope = tuple(name for name in names if name in chosen)
        else:
            scope = names[1:] if kind == "mar" else names
        if kind == "mar" and len(scope) == len(names):
            raise ConfigError(f"{fault}mar depends on modalities that are never hidden, and the scope names all; leave one out")
        if not scope:
            raise ConfigError(f"{fault}mar never hides the first modality, and '{names[0]}' is the only one; use mcar or mnar")
        return cls(text, kind, probability, scope)


def _known(name: str, names: tuple[str, ...], fault: str) -> None:
    if name not in names:
        raise ConfigError(f"{fault}no modality '{one_line(name, 60)}'; {nearest(name, names)}")


def hide(data: Dataset, mechanism: str, seed: int, reference: Iterable[int] | None = None) -> Rows:
    """The mask that a mechanism leaves of `data.observed`.

    The same seed compares the same uniform numbers, one per row and modality, with the probabilities: for a larger P
    everything that was hidden stays hidden.

    Args:
        data: N rows, M modalities. mechanism: see `Mechanism`. reference: see `hiding_probability`.

    Returns:
        (N, M) bool, a subset of `data.observed`.

    Raises:
        ConfigError: see `Mechanism.parse`. DataError: `mnar` where no row has a label.
    """
    probability = hiding_probability(data, Mechanism.parse(mechanism, data.names), reference)
    return data.observed.numpy() & (np.random.default_rng(seed).random(probability.shape) >= probability)


def hiding_probability(data: Dataset, mechanism: Mechanism, reference: Iterable[int] | None = None) -> Matrix:
    """The probability with which each modality of each row is hidden, if the row has it.

        mcar:  P
        mar:   sigmoid(a_m + 1.5 s), s the sum over modalities outside the scope of their scores, standardised
        mnar:  sigmoid(a_m + c_m + o), c_m the modality's own score, o the outcome
        only, without:  1

    For scores see `content_score`; a modality that a row lacks counts 0 in s. The outcome is 1 for every class but the
    first, of several labels if any is 1, in a regression the standardised label; in unlabelled rows its mean. Slopes are
    those of `simulate`, so that a mask on real data is no weaker or stronger than a simulated one. The intercepts a_m make
    the mean over the reference rows that have m equal P.

    Args:
        reference: positions of the rows from which scores and intercepts are learned; by default all.

    Returns:
        (N, M), 0 outside the scope.

    Raises:
        DataError: `mnar` where no reference row has a label.
    """
    observed = data.observed.numpy()
    learned = np.ones(len(data), dtype=bool)
    if reference is not None:
        learned = np.isin(np.arange(len(data)), list(reference))
    inside = [data.names.index(name) for name in mechanism.scope]
    probability = np.zeros(observed.shape)
    probability[:, inside] = mechanism.probability
    if mechanism.kind not in ("mar", "mnar") or mechanism.probability in (0, 1):
        return probability
    scored = inside if mechanism.kind == "mnar" else [m for m in range(len(data.names)) if m not in inside]
    scores = {m: content_score(data.inputs[data.names[m]], observed[:, m], learned) for m in scored}
    if mechanism.kind == "mar":
        severity = standardised(np.stack(list(scores.values())).sum(0), np.ones(len(data), dtype=bool), learned)
        log_odds = dict.fromkeys(inside, MAR_SLOPE * severity)
    else:
        own, outcome = MNAR_SLOPES
        log_odds = {m: own * score + outcome * _outcome(data, learned, mechanism) for m, score in scores.items()}
    for m, terms in log_odds.items():
        probability[:, m] = expit(_intercept(terms[learned & observed[:, m]], mechanism.probability) + terms)
    return probability


def _intercept(terms: Matrix, share: float) -> float:
    """The a with mean(sigmoid(a + terms)) = share; any where there are no terms."""
    if not len(terms):
        return float(logit(share))
    # At the ends every single probability is below the share, and above it.
    low, high = logit(share) - terms.max() - 1, logit(share) - terms.min() + 1
    return float(brentq(lambda a: expit(a + terms).mean() - share, low, high, xtol=1e-10))


def _outcome(data: Dataset, learned: Rows, mechanism: Mechanism) -> Matrix:
    """(N,) numbers of the outcome, the mean of the labelled reference rows where there is no label."""
    labelled = data.labelled.numpy()
    if not (labelled & learned).any():
        raise DataError(f"{mechanism.text}: mnar depends on the outcome, and no row has a label; expected some; use mcar or mar")
    labels = data.labels.numpy()
    if not data.labels.is_floating_point():
        labels = np.asarray((labels > 0).reshape(len(labels), -1).any(1))
    return np.where(labelled, labels, labels[labelled & learned].mean(dtype=np.float64)).astype(np.float64)


def hide_for_fit(data: Dataset, mechanism: str, seed: int, train: int) -> tuple[Dataset, str]:
    """Hide modalities from the rows of a fit; what the mechanism depends on is learned from the first `train` rows.

    Returns:
        the rows under their mask, and a line that says what is left of each modality.

    Raises:
        ConfigError: no training row keeps a modality. DataError: see `hide`.
    """
    mask = hide(data, mechanism, seed, range(train))
    for m, name in enumerate(data.names):
        if not mask[:train, m].any():
            raise ConfigError(
                f"missingness.mask {mechanism}: hides '{name}' in every training row, expected one that keeps it; "
                "lower the probability, or remove the modality from the config"
            )
    before = data.observed.numpy()
    left = ", ".join(f"{name} {mask[:, m].sum() / before[:, m].sum():.0%}" for m, name in enumerate(data.names))
    return data.with_observed(torch.from_numpy(mask)), f"mask {mechanism}, seed {seed}; left of what the rows of train and val have: {left}"


def mask_table(data: Dataset, mask: Rows, mechanism: str | None = None) -> pd.DataFrame:
    """`sample_id`, `mechanism` if one is given, and a column per modality, 1 where the mask (N, M) leaves it observed."""
    table = pd.DataFrame(mask.astype(int), columns=list(data.names))
    if mechanism is not None:
        table.insert(0, "mechanism", mechanism, allow_duplicates=True)
    table.insert(0, "sample_id", list(data.ids), allow_duplicates=True)
    return table

"""Masks that hide modalities which a sample has, to ask how a fit fares without them."""

import numpy as np
from numpy.typing import NDArray

from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest


def hide(observed: NDArray[np.bool_], names: tuple[str, ...], mechanism: str, seed: int) -> NDArray[np.bool_]:
    """Apply a mechanism to a mask.

    Args:
        observed: (n, M) bool. names: the M modalities. seed: of the random mechanisms.
        mechanism: `mcar:P` hides each modality of each row with probability P in [0, 1]; `only:NAME` keeps one
            modality; `without:NAME` hides one.

    Returns:
        (n, M) bool, a subset of `observed`.

    Raises:
        ConfigError: unknown mechanism, probability or modality.
    """
    kind, _, argument = mechanism.partition(":")
    if kind == "mcar":
        try:
            share = float(argument)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ConfigError(f"--missing {mechanism}: '{argument}' is not a probability; write for example mcar:0.5")
        return observed & (np.random.default_rng(seed).random(observed.shape) >= share)
    if kind in ("only", "without"):
        if argument not in names:
            raise ConfigError(f"--missing {mechanism}: no modality '{argument}'; {nearest(argument, names)}")
        chosen = np.array([name == argument for name in names])
        return observed & (chosen if kind == "only" else ~chosen)
    raise ConfigError(f"--missing {mechanism}: unknown mechanism '{kind}'; known: mcar:P, only:NAME, without:NAME")

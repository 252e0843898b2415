"""How good draws of something hidden are, once it is shown."""

import torch
from torch import Tensor


def energy_score(draws: Tensor, truth: Tensor) -> Tensor:
    """The energy score of draws x of a vector z: E|x − z| − ½ E|x − x'|, in the units of z; lower is better.

    It is lowest in the mean for draws from the truth's own law (Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102); in one
    dimension it is the continuous ranked probability score.

    Args:
        draws: (S, B, F); S = 1 is a point forecast. truth: (B, F).

    Returns:
        (B,), unbiased: pairs of different draws alone.
    """
    S = len(draws)
    error = (draws - truth).norm(dim=-1).mean(0)
    if S == 1:
        return error
    rows = draws.transpose(0, 1)
    # Differences themselves: by inner products the distance of near draws is rounding.
    pairs = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum((-2, -1))
    return error - pairs / (2 * S * (S - 1))


def explained(forecast: Tensor, truth: Tensor) -> float:
    """R² of a point forecast over all coordinates: forecast, truth (B, F). 1 is perfect, 0 as good as the truth's mean."""
    return float(1 - (forecast - truth).square().sum() / (truth - truth.mean(0)).square().sum())

"""Where the spread of a prediction comes from: missing modalities, encoders' noise, global sites and members of an ensemble."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.scaling import Standard
from cm2pyro.guides.imputation import Noise
from cm2pyro.inference import distributed
from cm2pyro.inference.draws import Draws, Member, groups_of, shared_noise
from cm2pyro.inference.program import Program
from cm2pyro.models.likelihoods import weighted_mean

Vector = NDArray[np.float64]
_SECOND = 1 << 31  # flips a bit of the seed for the second completions; torch's generator on the CPU takes the lowest 32
Recalibrate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decomposition:
    """Variances of the predicted probability (of a number: of its mean) over draws, row by row.

    By the law of total variance, in the order in which draws are made: global sites G (and members of an ensemble), then
    observed latents z_o given G, then missing ones given both:

        Var f = Var E[f | G]  +  E Var(E[f | G, z_o] | G)  +  E Var(f | G, z_o)
                globals          encoder                      missing

    Attributes:
        total: (N,) variance of the prediction over its draws.
        missing, encoder, globals: (N,) each; they add up to `total`. The last two are NaN where both may be
            there and each mixture has a single draw.
        reduction: (N, M) share of that variance expected to go when the latent z_m of a missing modality becomes known,
            (E Var(f | G, z_o) − E Var(f | G, z_o, z_m)) / Var f; NaN where the modality is observed. Shares of several
            modalities need not add up: two may tell the same, or each only together with the other.
    """

    total: Vector
    missing: Vector
    encoder: Vector
    globals: Vector
    reduction: Vector

    def in_units(self, scaling: Standard | None) -> Self:
        """Of standardised labels, in their units; None: as it is."""
        if scaling is None:
            return self
        square = scaling.scale**2
        return replace(
            self, total=self.total * square, missing=self.missing * square, encoder=self.encoder * square, globals=self.globals * square
        )

    def pays_most(self) -> NDArray[np.int64]:
        """(N,) the missing modality with the largest expected reduction; −1 where none has any."""
        filled = np.nan_to_num(self.reduction, nan=0.0)
        return np.where(filled.max(1, initial=0.0) > 0, filled.argmax(1), -1)


class VarianceSplit:
    """Splits the variance of a prediction, batch by batch: `add` takes the draws it is made of.

    Pick-freeze (Sobol' 2001; Saltelli et al. 2010): every draw is completed a second time with the same global sites and
    observed latents and new noise for the missing ones. Half the mean square difference of the two predictions estimates
    E Var(f | G, z_o) without bias; for E Var(f | G, z_o, z_m) the second completion keeps z_m too. The rest is a nested
    analysis of variance of the pairs' means, each level freed of what the levels below add to it. Estimates below 0 are set
    to 0; a level that a row does not have (nothing missing, encoders without noise, one mixture) is 0 exactly; then the
    levels are scaled to add up to the variance over draws. A level's relative error is about √(2 / draws), much the
    same in all rows, since rows share their noise: a patient's numbers depend on nobody else's. Where draws are weighted, the
    variance is that of the weighted ones, and how it is shared out is taken from the unweighted.

    The variance is that of the probability of class 1; of several classes, of the predicted one's; of several labels, the
    sum over labels; of a number, that of its mean, without observation noise.

    Args:
        programs, draws, seed: of the prediction. recalibrate: what its draws are mapped by, if anything.
    """

    def __init__(self, programs: Sequence[Program], draws: int, seed: int, recalibrate: Recalibrate | None = None) -> None:
        self._recalibrate = recalibrate or _as_they_are
        first = programs[0]
        M, D = len(first.guide.names), first.structure.dim
        uniform, normal = shared_noise(draws, M, D, seed ^ _SECOND, next(first.parameters()).device)
        self._noise = uniform[:, None], normal[:, 1, None]
        self._none = torch.zeros(0, 4), torch.zeros(0, M)
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, drawn: Draws) -> None:
        """Split the variance of a batch."""
        with torch.no_grad():
            level, reduction = _split(drawn, self._noise, self._recalibrate)
        self._parts.append((level.cpu(), reduction.cpu()))

    def result(self) -> Decomposition:
        """Of all batches added, by whichever process."""
        levels, reductions = (
            torch.cat(part).double().numpy() for part in zip(self._none, *distributed.interleaved(self._parts), strict=True)
        )
        total, missing, encoder, globals_ = levels.T
        return Decomposition(total, missing, encoder, globals_, reductions)


def _as_they_are(parameters: Tensor) -> Tensor:
    return parameters


def _split(drawn: Draws, noise: Noise, recalibrate: Recalibrate) -> tuple[Tensor, Tensor]:
    """Total and levels (B, 4) and reductions (B, M) of a batch."""
    observed = drawn.batch.observed
    missing = ~observed
    # Where m is all that is missing, nothing is left once it is known, and no draws are needed.
    asked = missing & (missing.sum(1, keepdim=True) > 1)
    second = recalibrate(torch.cat([_again(member, observed, noise) for member in drawn.members]))
    likelihood = drawn.members[0].program.model.likelihood
    weights = drawn.log_weights
    columns = likelihood.reported(weighted_mean(drawn.parameters, weights))
    f, g = _of(columns, recalibrate(drawn.parameters)), _of(columns, second)
    # A mixture is asked where something is missing; members of an ensemble differ in everything.
    sizes = [some.stop - some.start for member in drawn.members for some in groups_of(len(member.z), member.mixtures)]
    apart = missing.any(1) & (len(sizes) > 1) | (len(drawn.members) > 1)
    noisy = torch.stack([(member.represented[1] > 0).flatten(1).any(1) for member in drawn.members]).any(0)
    total = weighted_mean((f - weighted_mean(f, weights)).square(), weights).sum(-1)
    levels = total[:, None] * nested(f, g, sizes, noisy, apart)
    unexplained = half_mean_square(f, g)
    share = torch.where(total > 0, levels[:, 0] / total, 0.0)
    reduction = torch.full(missing.shape, torch.nan, dtype=f.dtype, device=f.device)
    for m in range(missing.shape[1]):
        left = torch.zeros_like(total)
        if bool(asked[:, m].any()):
            # All rows, each at its place: which of them are asked must not change the rounding of the others.
            knowing = recalibrate(torch.cat([_again(member, observed, noise, m) for member in drawn.members]))
            left = torch.where(asked[:, m], half_mean_square(f, _of(columns, knowing)), left)
        gone = torch.where(unexplained > 0, 1 - left / unexplained, 0.0).clamp(0, 1)
        reduction[:, m] = torch.where(missing[:, m], gone * share, torch.nan)
    return torch.cat([total[:, None], levels], 1), reduction


def _again(member: Member, observed: Tensor, noise: Noise, m: int | None = None) -> Tensor:
    """Parameters (S, B, P) of the predictions from second completions; with m given, that modality is kept as in the first."""
    z, known = member.z, None
    if m is not None:
        known = observed.clone()
        known[:, m] = True
    guide, model = member.program.guide, member.program.model
    groups = zip(member.mixtures, groups_of(len(z), member.mixtures), strict=True)
    filled = [
        guide.complete(z[some], observed, mixture, (noise[0][some], noise[1][some]), member.represented, known) for mixture, some in groups
    ]
    outputs, _ = model.predictive(torch.cat(filled), observed, member.head)
    return model.likelihood.predictive(outputs)


def _of(columns: Tensor, f: Tensor) -> Tensor:
    """Columns (B, L) of f (S, B, P) -> (S, B, L)."""
    return f.gather(2, columns.expand(len(f), *columns.shape))


def half_mean_square(f: Tensor, g: Tensor) -> Tensor:
    """½ mean (f − g)² over draws, summed over columns: (S, B, L) each -> (B,)."""
    return (f - g).square().mean(0).sum(-1) / 2


def nested(f: Tensor, g: Tensor, sizes: Sequence[int], noisy: Tensor, apart: Tensor) -> Tensor:
    """Nested analysis of variance of pairs of completions.

    Args:
        f, g: (S, B, L) predictions that share global sites and observed latents. sizes: of the groups of draws that share
            global sites, in their order, S in all. noisy, apart: (B,) whether a row's prediction depends on random
            observed latents at all, and on which group it is in.

    Returns:
        (B, 3) shares missing, encoder, globals, which add up to 1; 0 where nothing varies. Members of an ensemble share their
        noise, so that their means differ less by chance than is deducted: by at most encoder / draws.
    """
    S, G = len(f), len(sizes)
    missing = half_mean_square(f, g)
    pairs = (f + g) / 2
    whole = (pairs - pairs.mean(0)).square().sum((0, 2))
    inside = torch.stack([(x - x.mean(0)).square().sum((0, 2)) for x in pairs.split(list(sizes))]).sum(0)
    # Pairs' means vary by the observed latents and by half of what is missing; groups' means by a group's share of that.
    within = torch.where(apart & (S > G), inside / max(S - G, 1), whole / max(S - 1, 1))
    within = torch.where(noisy, within, missing / 2)
    encoder = (within - missing / 2).clamp_min(0)
    between = ((whole - inside) / S - (G - 1) / S * within).clamp_min(0)
    levels = torch.stack([missing, encoder, torch.where(apart, between, 0.0)], -1)
    summed = levels.sum(-1, keepdim=True)
    levels = torch.where(summed > 0, levels / summed, 0.0)
    if 1 < S == G:  # no group has two draws
        levels[:, 1:] = levels[:, 1:].masked_fill(apart[:, None], torch.nan)
    return levels

"""Where the spread of a prediction comes from: missing modalities, encoders' noise, global sites and members of an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.data.scaling import Standard
from cm2pyro.inference.draws import Group, drawn_groups
from cm2pyro.inference.program import Program

Vector = NDArray[np.float64]


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


def decompose(programs: Sequence[Program], dataset: Dataset, draws: int, seed: int, batch_size: int = 256) -> Decomposition:
    """Split the variance of what `predict` gives with the same draws and seed.

    Pick-freeze (Sobol' 2001; Saltelli et al. 2010): every draw is completed a second time with the same global sites and
    observed latents and new noise for the missing ones. Half the mean square difference of the two predictions estimates
    E Var(f | G, z_o) without bias; for E Var(f | G, z_o, z_m) the second completion keeps z_m too. The rest is a nested
    analysis of variance of the pairs' means, each level freed of what the levels below add to it. Estimates below 0 are set
    to 0; a level that a row does not have (nothing missing, encoders without noise, one mixture) is 0 exactly; then the
    levels are scaled to add up to the variance over draws. A level's relative error is about √(2 / draws), much the
    same in all rows, since rows share their noise: a patient's numbers depend on nobody else's.

    The variance is that of the probability of class 1; of several classes, of the predicted one's; of several labels, the
    sum over labels; of a number, that of its mean, without observation noise.

    Args:
        programs: one, or the members of an ensemble. draws: of the latents, per program.
    """
    groups = drawn_groups(programs, draws, seed)
    training = [program.training for program in programs]
    levels, reductions = [torch.zeros(0, 4)], [torch.zeros(0, len(dataset.names))]
    with torch.no_grad():
        for program in programs:
            program.eval()
        for batch in dataset.batches(batch_size):
            level, reduction = _batch(groups, batch.to(groups[0].noise.device))
            levels.append(level.cpu())
            reductions.append(reduction.cpu())
        for program, mode in zip(programs, training, strict=True):
            program.train(mode)
    total, missing, encoder, globals_ = torch.cat(levels).double().numpy().T
    return Decomposition(total, missing, encoder, globals_, torch.cat(reductions).double().numpy())


def _batch(groups: list[Group], batch: Batch) -> tuple[Tensor, Tensor]:
    """Total and levels (B, 4) and reductions (B, M) of a batch."""
    missing = ~batch.observed
    # Where m is all that is missing, nothing is left once it is known, and no draws are needed.
    rows = [(missing[:, m] & (missing.sum(1) > 1)).nonzero()[:, 0] for m in range(missing.shape[1])]
    first: list[Tensor] = []
    second: list[Tensor] = []
    knowing: list[list[Tensor]] = [[] for _ in rows]
    represented = {id(group.program): group.program.guide.represent(batch) for group in {id(g.program): g for g in groups}.values()}
    noisy = torch.stack([(scale > 0).flatten(1).any(1) for _, scale in represented.values()]).any(0)
    for group in groups:
        z = group.draw(represented[id(group.program)], batch.observed)
        first.append(group.expectation(z))
        second.append(group.expectation(group.complete(z, batch.observed, group.second)))
        for m, some in enumerate(rows):
            if len(some):
                seen = batch.observed[some]
                seen[:, m] = True
                knowing[m].append(group.expectation(group.complete(z[:, some], seen, group.second)))
    f, g = torch.cat(first), torch.cat(second)
    columns = groups[0].program.model.likelihood.reported(f.mean(0))
    f, g = _of(columns, f), _of(columns, g)
    # A mixture is asked where something is missing; members of an ensemble differ in everything.
    apart = missing.any(1) & (len(groups) > 1) | (len(represented) > 1)
    levels, total = nested(f, g, [len(group) for group in groups], noisy, apart)
    unexplained = half_square(f, g)
    share = torch.where(total > 0, levels[:, 0] / total, 0.0)
    reduction = torch.full(missing.shape, torch.nan, dtype=f.dtype, device=f.device)
    for m, some in enumerate(rows):
        left = torch.zeros_like(total)
        if len(some):
            left[some] = half_square(f[:, some], _of(columns[some], torch.cat(knowing[m])))
        gone = torch.where(unexplained > 0, 1 - left / unexplained, 0.0).clamp(0, 1)
        reduction[:, m] = torch.where(missing[:, m], gone * share, torch.nan)
    return torch.cat([total[:, None], levels], 1), reduction


def _of(columns: Tensor, f: Tensor) -> Tensor:
    """Columns (B, L) of f (S, B, C) -> (S, B, L)."""
    return f.gather(2, columns.expand(len(f), *columns.shape))


def half_square(f: Tensor, g: Tensor) -> Tensor:
    """½ mean (f − g)² over draws, summed over columns: (S, B, L) each -> (B,)."""
    return (f - g).square().mean(0).sum(-1) / 2


def nested(f: Tensor, g: Tensor, sizes: Sequence[int], noisy: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """Nested analysis of variance of pairs of completions.

    Args:
        f, g: (S, B, L) predictions that share global sites and observed latents. sizes: of the groups of draws that share
            global sites, in their order, S in all. noisy, apart: (B,) whether a row's prediction depends on random
            observed latents at all, and on which group it is in.

    Returns:
        (B, 3) variances missing, encoder, globals, scaled to add up to (B,) the variance of f over draws, summed over columns.
    """
    S, G = len(f), len(sizes)
    total = (f - f.mean(0)).square().mean(0).sum(-1)
    missing = half_square(f, g)
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
    levels = torch.where(summed > 0, levels / summed * total[:, None], 0.0)
    if 1 < S == G:  # no group has two draws
        levels[:, 1:] = levels[:, 1:].masked_fill(apart[:, None], torch.nan)
    return levels, total

"""One number per row for what a modality holds: the score on which the hiding of modalities may depend."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cm2pyro.data.columns import Column, Columns, Sparse

Matrix = NDArray[np.float64]
Rows = NDArray[np.bool_]
_BLOCKS = 8  # a picture is seen as that many means by that many
_TOKENS = 256  # of the most frequent tokens
_CHUNK = 256  # rows held at once in their full size


def content_score(views: Columns, there: Rows, reference: Rows) -> Matrix:
    """The first principal component of the pooled views, mean 0 and variance 1.

    Pooled: real numbers are averaged over all axes but the first and the last (a time series over its bins); pictures are
    8 × 8 block means; tokens are log(1 + count) of the 256 most frequent. The sign is such that the sum of the loadings is
    positive. Loadings, mean, variance and frequencies come from the reference rows that have the modality.

    Args:
        views: of one modality, N rows each. there: (N,) which rows have it. reference: (N,) which rows are learned from.

    Returns:
        (N,), 0 where the modality is missing, and throughout where the reference rows do not differ.
    """
    score = np.zeros(len(there))
    rows, learned = np.flatnonzero(there), reference[there]
    if learned.any():
        # No column is scaled: kinds give theirs in comparable units, and scaling would let rare ones decide.
        pooled = np.concatenate([_pooled(view, rows, learned) for view in views.values()], 1)
        pooled -= pooled[learned].mean(0)
        last = pooled.shape[1] - 1
        _, vectors = eigh(np.cov(pooled[learned].T, bias=True).reshape(last + 1, last + 1), subset_by_index=[last, last])
        # The sum keeps its sign from one half of the data to the other where the largest loading does not: docs/missing.md.
        score[rows] = pooled @ vectors[:, 0] * (1 if vectors.sum() >= 0 else -1)
    return standardised(score, there, reference)


def standardised(score: Matrix, there: Rows, reference: Rows) -> Matrix:
    """(N,) with mean 0 and variance 1 over the reference rows among `there`; 0 elsewhere, and throughout where those do not differ."""
    learned = score[there & reference]
    if not len(learned) or learned.std() <= 1e-9 * np.abs(learned).max():
        return np.zeros_like(score)
    return np.where(there, (score - learned.mean()) / learned.std(), 0.0)


def _pooled(view: Column, rows: NDArray[np.int64], learned: Rows) -> Matrix:
    """(n, F) of these rows alone; learned: (n,) which of them say what is frequent."""
    values = view.values if isinstance(view, Sparse) else view
    # Chunk by chunk: as real numbers in full size, pictures would not fit into memory.
    chunks = (view[chunk] for chunk in torch.from_numpy(rows).split(_CHUNK))
    if values.dtype == torch.uint8:
        return np.concatenate([_blocks(chunk) for chunk in chunks])
    if values.is_floating_point():
        return np.concatenate([_averages(chunk) for chunk in chunks])
    return _counts(torch.cat(list(chunks)).flatten(1).numpy(), learned)


def _averages(x: Tensor) -> Matrix:
    """(n, …, F) -> (n, F)."""
    between = tuple(range(1, x.dim() - 1))
    return np.asarray((x.mean(between) if between else x).double().numpy())


def _blocks(x: Tensor) -> Matrix:
    """(n, …, H, W) -> (n, … · 64)."""
    return np.asarray(adaptive_avg_pool2d(x.float(), _BLOCKS).flatten(1).double().numpy())


def _counts(tokens: NDArray[np.int32], learned: Rows) -> Matrix:
    """(n, L) ids, -1 where there is none -> (n, F <= 256)."""
    seen = tokens[learned]
    total = np.bincount(seen[seen >= 0], minlength=int(tokens.max(initial=0)) + 1)
    frequent = np.argsort(-total, kind="stable")[:_TOKENS]
    column = np.full(len(total), -1)
    column[frequent] = np.arange(len(frequent))
    row, place = np.nonzero(tokens >= 0)
    which = column[tokens[row, place]]
    cells = (row * len(frequent) + which)[which >= 0]
    return np.log1p(np.bincount(cells, minlength=len(tokens) * len(frequent)).reshape(len(tokens), len(frequent)))

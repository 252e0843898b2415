"""Linear algebra that waits for no device and copies nothing that is large."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def identity_like(matrix: Tensor) -> Tensor:
    """(M, M) with the dtype and device of a matrix (..., M, M)."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of (..., M, M); NaN for a matrix that is not positive definite.

    What is not finite is found where a step reads its loss. `torch.linalg.cholesky` raises instead, and for that waits for the device.
    """
    tril, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], tril, torch.full((), torch.nan, dtype=tril.dtype, device=tril.device))


def half_square(s: Tensor) -> Tensor:
    """Half the sum of squares over the last dimension, without a temporary of the size of s."""
    return _HalfSquare.apply(s)


class _HalfSquare(Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        ctx.save_for_backward(s)
        return 0.5 * torch.linalg.vector_norm(s, dim=-1).square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (s,) = ctx.saved_tensors
        return grad[..., None] * s

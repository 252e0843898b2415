"""Linear algebra against its plain form."""

import torch

from cm2pyro.distributions.linalg import cholesky, half_square

DOUBLE = torch.float64


def test_cholesky_is_nan_where_there_is_none() -> None:
    good, bad = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    found = cholesky(torch.stack([good, bad]))
    torch.testing.assert_close(found[0], torch.linalg.cholesky(good))
    assert bool(found[1].isnan().all())


def test_half_square() -> None:
    s = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    torch.testing.assert_close(half_square(s), 0.5 * s.square().sum(-1))
    assert torch.autograd.gradcheck(half_square, (s,))
    assert torch.autograd.gradgradcheck(half_square, (s,))

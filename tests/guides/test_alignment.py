"""Alignment penalties against torch's own divergences."""

import torch
from torch.distributions import Normal, kl_divergence

from cm2pyro.guides.alignment import cosine, kl, penalty


def normals() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 3, 4, dtype=torch.float64), torch.rand(6, 3, 4, dtype=torch.float64) + 0.1


def test_kl_is_the_mean_of_both_directions() -> None:
    loc, scale = normals()
    a, b = Normal(loc[:, 0], scale[:, 0]), Normal(loc[:, 1], scale[:, 1])
    expected = (kl_divergence(a, b) + kl_divergence(b, a)).sum(-1) / 2
    torch.testing.assert_close(kl(loc[:, 0], scale[:, 0], loc[:, 1], scale[:, 1]), expected)


def test_cosine_sees_directions_alone() -> None:
    loc, scale = normals()
    a = loc[:, 0]
    torch.testing.assert_close(cosine(a, scale[:, 0], 3 * a, scale[:, 1]), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(cosine(a, scale[:, 0], -a, scale[:, 1]), torch.full((6,), 2.0, dtype=torch.float64))


def test_the_penalty_counts_pairs_that_are_both_there() -> None:
    loc, scale = normals()
    observed = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 0, 1]]).bool()
    loc.requires_grad_()
    found = penalty(kl, loc, scale, observed)
    expected = 0.0
    for row in range(6):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            if observed[row, a] and observed[row, b]:
                expected += kl(loc[row : row + 1, a], scale[row : row + 1, a], loc[row : row + 1, b], scale[row : row + 1, b]).item()
    assert abs(found.item() - expected / 6) < 1e-9
    found.backward()
    assert loc.grad is not None
    alone = observed & (observed.sum(1, keepdim=True) < 2)
    assert torch.equal(loc.grad[~observed | alone], torch.zeros_like(loc.grad[~observed | alone]))


def test_nobody_has_two_modalities() -> None:
    loc, scale = normals()
    assert penalty(cosine, loc, scale, torch.eye(3).bool().repeat(2, 1)).item() == 0

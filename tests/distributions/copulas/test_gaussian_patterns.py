"""The Gaussian copula's two ways through rows of different patterns give the same."""

import pytest
import torch
from torch.distributions.transforms import CorrCholeskyTransform

from cm2pyro.distributions import special
from cm2pyro.distributions.copulas import gaussian
from cm2pyro.distributions.copulas.gaussian import GaussianCopula

M = 4


def copula(batch: tuple[int, ...]) -> tuple[GaussianCopula, torch.Tensor]:
    """With the unconstrained values behind its factor: only along these do gradients mean the same."""
    torch.manual_seed(0)
    free = torch.randn(*batch, M * (M - 1) // 2, dtype=torch.float64).requires_grad_()
    return GaussianCopula(CorrCholeskyTransform()(free)), free


@pytest.mark.parametrize(
    ("batch", "values", "mask"),
    [((), (7,), (7,)), ((3,), (9, 1, 3), (9, 1, 1)), ((3,), (2, 9, 5, 3), (2, 9, 1, 1)), ((3,), (9, 3), (1, 1)), ((3,), (9, 3), (9, 3))],
)
def test_at_once_and_pattern_by_pattern(batch: tuple, values: tuple, mask: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    c, free = copula(batch)
    observed = torch.rand(*mask, M, generator=torch.Generator().manual_seed(1)) < 0.6
    s = 2 * torch.randn(*values, M, dtype=torch.float64)
    s = torch.where(observed, s, torch.nan).requires_grad_()
    found = []
    for small in (0, 1 << 19):
        monkeypatch.setattr(gaussian, "_SMALL", small)
        log_prob = c.log_prob(s, observed)
        found.append([log_prob, *torch.autograd.grad(log_prob.sum(), [s, free], retain_graph=True)])
    for pattern_by_pattern, at_once in zip(*found, strict=True):
        torch.testing.assert_close(at_once, pattern_by_pattern, rtol=1e-9, atol=1e-9)
    assert bool((found[1][1][~observed.expand(s.shape)] == 0).all())


@pytest.mark.parametrize("elsewhere", [False, True])  # all patterns that there can be, or one a row: no question to the device
@pytest.mark.parametrize(
    ("batch", "values", "mask"),
    [((), (7,), (7,)), ((), (40,), (40,)), ((3,), (9, 3), (9, 1)), ((3,), (2, 9, 3), (9, 1)), ((3,), (9, 3), (9, 3))],
)
def test_draws_at_once_and_pattern_by_pattern(
    batch: tuple, values: tuple, mask: tuple, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same draw for the same noise, with the same derivatives."""
    c, free = copula(batch)
    observed = torch.rand(*mask, M, generator=torch.Generator().manual_seed(1)) < 0.6
    s = (2 * torch.randn(*values, M, dtype=torch.float64)).requires_grad_()
    noise, weight = torch.randn(2, *values, M, dtype=torch.float64)
    found = []
    for small in (0, 1 << 19):
        monkeypatch.setattr(gaussian, "_SMALL", small)
        monkeypatch.setattr(special, "waits", lambda device, small=small: elsewhere and small > 0)
        drawn = c.conditional(s, observed).rsample(noise=noise)
        found.append([drawn, *torch.autograd.grad((weight * drawn).sum(), [s, free], retain_graph=True)])
    for pattern_by_pattern, at_once in zip(*found, strict=True):
        torch.testing.assert_close(at_once, pattern_by_pattern, rtol=1e-9, atol=1e-9)
    there = observed.expand(s.shape)
    assert torch.equal(found[1][0][there], s[there])
    assert bool((found[1][1][~there] == 0).all())


def test_a_nan_where_something_is_observed_is_refused() -> None:
    c, _ = copula(())
    s, observed = torch.zeros(5, M, dtype=torch.float64), torch.ones(5, M, dtype=torch.bool)
    s[2, 1] = torch.nan
    observed[3, 0] = False
    with pytest.raises(ValueError, match="NaN"):
        c.log_prob(s, observed)
    observed[2, 1] = False
    assert bool(torch.isfinite(c.log_prob(s, observed)).all())

"""Every copula's density is one: it integrates to 1, and integrating a coordinate out leaves the density of the others."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cm2pyro.distributions import Copula

DOUBLE = torch.float64
TAUS = [0.05, 0.2, 0.5, 0.7, 0.95]


def log_normal(s: Tensor) -> Tensor:
    """log φ, elementwise."""
    return -0.5 * s.square() - 0.5 * math.log(2 * math.pi)


@pytest.fixture(scope="module")
def plane() -> tuple[Tensor, Tensor]:
    """Nodes (120, 201, 2) and weights of a trapezoid rule along and across the diagonal.

    Across, the nodes crowd like sinh: at tau = 0.95 and |s| = 8 the ridge is three thousandths wide. The rule is exact to
    rounding for densities as smooth as these, and the plane ends where less than 1e-16 is left.
    """
    along, x = torch.linspace(-8.5, 8.5, 120, dtype=DOUBLE), torch.linspace(-9, 9, 201, dtype=DOUBLE)
    v, w = torch.meshgrid(along, 0.005 * torch.sinh(x), indexing="ij")
    weights = 0.005 * torch.cosh(x) * (x[1] - x[0]) * (along[1] - along[0])
    return torch.stack([v + w / 2, v - w / 2], -1), weights.expand(v.shape)


@pytest.mark.parametrize("tau", [*TAUS, 0.989])
def test_pair_density_integrates_to_one(pair_of: Callable[..., Copula], plane: tuple[Tensor, Tensor], tau: float) -> None:
    c, (s, weights) = pair_of(tau), plane
    if c.family.endswith(("_90", "_270")):
        s = s * torch.tensor([1.0, -1.0], dtype=DOUBLE)  # the ridge is the other diagonal
    density = (c.log_prob(s) + log_normal(s).sum(-1)).exp()
    assert float((density * weights).sum()) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize(("family", "tau"), [("gaussian", -0.95), ("student_t", -0.95), ("frank", -0.95), ("frank", -0.05)])
def test_pair_density_of_negative_dependence(copula: Callable[..., Copula], plane: tuple[Tensor, Tensor], family: str, tau: float) -> None:
    s, weights = plane[0] * torch.tensor([1.0, -1.0], dtype=DOUBLE), plane[1]
    density = (copula(family, 2, tau).log_prob(s) + log_normal(s).sum(-1)).exp()
    assert float((density * weights).sum()) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("tau", TAUS)
def test_a_coordinate_integrates_out(larger_of: Callable[..., Copula], tau: float) -> None:
    """∫ c(s_1 … s_M) φ(s_M) ds_M = c(s_1 … s_(M−1)) for M = 3 and 5: with the pair's integral that of any M is 1.

    Fixed rows from the centre to |s| = 3, half of them near the diagonal; steps of 0.002 resolve the ridge.
    """
    c = larger_of(tau)
    M = c.modalities
    generator = torch.Generator().manual_seed(M)
    s = torch.randn(6, M, generator=generator, dtype=DOUBLE)
    s[::2] = s[::2].mean(-1, keepdim=True) * 2 + 0.05 * s[::2]
    axis = torch.linspace(-9, 9, 9001, dtype=DOUBLE)
    rows = torch.cat([s[:, None, :-1].expand(-1, len(axis), -1), axis[None, :, None].expand(len(s), -1, 1)], -1)
    integral = ((c.log_prob(rows) + log_normal(axis)).exp() * (axis[1] - axis[0])).sum(-1)
    rest = torch.arange(M) < M - 1
    torch.testing.assert_close(integral.log(), c.log_prob(s, rest), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tau", TAUS)
def test_three_coordinates_by_importance_sampling(triple_of: Callable[..., Copula], tau: float) -> None:
    """E_q[c φ / q] = 1, q an elliptical t (3 degrees of freedom) with the correlation of a Gaussian copula of nine tenths of tau."""
    c = triple_of(tau)
    n, df = 20_000, 3.0
    generator = torch.Generator().manual_seed(0)
    rho = math.sin(math.pi / 2 * 0.9 * (0 if c.family == "independence" else tau))
    tril = torch.linalg.cholesky(torch.full((3, 3), rho, dtype=DOUBLE) + (1 - rho) * torch.eye(3, dtype=DOUBLE))
    chi2 = torch.randn(n, round(df), generator=generator, dtype=DOUBLE).square().sum(-1, keepdim=True)
    z = torch.randn(n, 3, generator=generator, dtype=DOUBLE) * (df / chi2).sqrt()
    log_q = (
        math.lgamma((df + 3) / 2) - math.lgamma(df / 2) - 1.5 * math.log(df * math.pi) - (df + 3) / 2 * torch.log1p(z.square().sum(-1) / df)
    )
    s = z @ tril.mT
    weights = (c.log_prob(s) + log_normal(s).sum(-1) - log_q + tril.diagonal().log().sum()).exp()
    error = float(weights.std()) / math.sqrt(n)
    assert error < 0.04  # the proposal covers the copula
    assert float(weights.mean()) == pytest.approx(1, abs=5 * error)

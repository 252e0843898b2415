"""What every family must show: shapes, batches, margins, patterns, its place as a learned prior, and its documentation."""

import re
from collections.abc import Callable

import pytest
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions import FAMILIES, Copula, make_copula
from cm2pyro.distributions.copulas import MAX_TAU
from tests.distributions.copulas.conftest import reach

DOUBLE = torch.float64


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def pairwise(tau: Tensor, M: int) -> Tensor:
    """Kendall's tau of every pair, (..., M, M), from either form."""
    if tau.dim() >= 2:
        return tau
    eye = torch.eye(M, dtype=tau.dtype)
    return tau[..., None, None] * (1 - eye) + eye


def test_is_a_distribution(copula_of: Callable[..., Copula]) -> None:
    c = copula_of()
    M = c.modalities
    assert isinstance(c, TorchDistribution)
    assert c.has_rsample
    assert c.support is constraints.real_vector
    assert (c.batch_shape, c.event_shape) == ((), (M,))
    for name, constraint in c.arg_constraints.items():
        assert bool(constraint.check(getattr(c, name)).all()), name
    for shape in ((), (4, 3)):
        s = c.rsample(shape)
        assert s.shape == (*shape, M)
        assert c.log_prob(s).shape == shape
    assert c.sample((2,)).shape == (2, M)
    assert c.log_prob(torch.zeros(0, M, dtype=DOUBLE)).shape == (0,)


def test_dtype_is_kept(small_of: Callable[..., Copula]) -> None:
    for dtype in (torch.float32, DOUBLE):
        c = small_of(0.5, dtype)
        s = c.rsample((4,))
        observed = torch.arange(c.modalities) < c.modalities - 1
        assert s.dtype == c.theta.dtype == c.tau().dtype == c.log_prob(s).dtype == c.log_prob(s, observed).dtype == dtype
        assert c.conditional(s, observed).rsample().dtype == dtype
        F, log_density = c.conditional_margin(s, c.modalities - 1, observed)
        assert F.dtype == log_density.dtype == dtype
        assert {side.dtype for side in c.tail_dependence()} == {dtype}


def test_unobserved_coordinates_change_nothing(copula_of: Callable[..., Copula]) -> None:
    """Neither value nor gradient, be they NaN; with fewer than two coordinates the density is one."""
    c = copula_of(torch.tensor(0.5, dtype=DOUBLE))
    M = c.modalities
    s, observed = scores(40, M).requires_grad_(), torch.rand(40, M, generator=torch.Generator().manual_seed(1)) < 0.5
    value = c.log_prob(s, observed)
    assert bool((value[observed.sum(1) < 2] == 0).all())
    gradient = torch.autograd.grad(value.sum(), s)[0] if value.requires_grad else torch.zeros_like(s)
    assert bool((gradient[~observed] == 0).all())
    blank = torch.where(observed, s.detach(), torch.nan).requires_grad_()
    again = c.log_prob(blank, observed)
    assert torch.equal(again, value)
    if again.requires_grad:
        assert torch.equal(torch.autograd.grad(again.sum(), blank)[0], gradient)
    torch.testing.assert_close(c.log_prob(s, torch.ones(M, dtype=torch.bool)), c.log_prob(s))


def test_nan_in_an_observed_coordinate_is_refused(copula_of: Callable[..., Copula]) -> None:
    c = copula_of()
    s = scores(3, c.modalities)
    s[1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN|support|satisfy"):
        c.log_prob(s)
    with pytest.raises(ValueError, match="NaN"):
        c.log_prob(s, torch.ones(c.modalities, dtype=torch.bool))


def test_margin(copula_of: Callable[..., Copula]) -> None:
    """The copula of some coordinates, in any order, is what masking the others leaves."""
    c = copula_of(0.6)
    M = c.modalities
    s = scores(9, M)
    for kept in ((0, 1), (1, 0), tuple(range(M)), tuple(reversed(range(M))), (M - 1, 0)):
        part = c.margin(kept)
        assert part.event_shape == (len(kept),)
        observed = torch.tensor([m in kept for m in range(M)])
        torch.testing.assert_close(part.log_prob(s[:, list(kept)]), c.log_prob(s, observed))
        torch.testing.assert_close(pairwise(part.tau(), len(kept)), pairwise(c.tau(), M)[list(kept)][:, list(kept)])
        # The law of the last, given the others.
        there = observed & (torch.arange(M) != kept[-1])
        expected = c.conditional_margin(s, kept[-1], there)
        torch.testing.assert_close(
            part.conditional_margin(s[:, list(kept)], len(kept) - 1, torch.arange(len(kept)) < len(kept) - 1), expected
        )


def test_correlations_of_margins(copula: Callable[..., Copula]) -> None:
    """Of a matrix with unlike entries the margin takes the right ones."""
    R = torch.tensor([[1, 0.8, 0.1], [0.8, 1, -0.3], [0.1, -0.3, 1]], dtype=DOUBLE)
    for family in ("gaussian", "student_t"):
        c = make_copula(family, 3, correlation=R)
        torch.testing.assert_close(c.margin((2, 0)).theta, R[[2, 0]][:, [2, 0]])
        torch.testing.assert_close(c.theta, R)


TAUS = torch.tensor([0.05, 0.4, 0.7, 0.95], dtype=DOUBLE)
D = len(TAUS)


def assert_rows_match(batched: Copula, one: Copula, j: int) -> None:
    """Dimension j of a batch of copulas does what `one` does, for masks shared by the dimensions and for masks of their own."""
    M = one.modalities
    s, noise = scores(4, D, M), scores(4, D, M, seed=1)
    varied = torch.rand(4, D, M, generator=torch.Generator().manual_seed(2)) < 0.6
    shared = varied[:, :1].clone()
    shared[0], shared[1] = True, False
    torch.testing.assert_close(batched.log_prob(s)[:, j], one.log_prob(s[:, j]))
    torch.testing.assert_close(batched.rsample((4,), noise=noise)[:, j], one.rsample((4,), noise=noise[:, j]), rtol=0, atol=1e-7)
    for observed in (shared, varied):
        own = observed.expand(4, D, M)[:, j]
        torch.testing.assert_close(batched.log_prob(s, observed)[:, j], one.log_prob(s[:, j], own))
        together = batched.conditional(s, observed).rsample(noise=noise)
        torch.testing.assert_close(together[:, j], one.conditional(s[:, j], own).rsample(noise=noise[:, j]), rtol=0, atol=1e-7)
        given = observed & (torch.arange(M) != 0)
        for both, single in zip(
            batched.conditional_margin(s, 0, given), one.conditional_margin(s[:, j], 0, own & (torch.arange(M) != 0)), strict=True
        ):
            torch.testing.assert_close(both[:, j], single)


def test_batch_of_copulas_one_per_dimension(small_of: Callable[..., Copula]) -> None:
    if small_of().family == "independence":
        pytest.skip("independence has no parameter and no batch")
    batched = small_of(TAUS, df=torch.linspace(2.5, 30, D, dtype=DOUBLE)) if small_of().family == "student_t" else small_of(TAUS)
    assert batched.batch_shape == (D,)
    assert batched.rsample((2,)).shape == (2, D, batched.modalities)
    assert [side.shape for side in batched.tail_dependence()] == [batched.tau().shape] * 2
    j = 2
    one = batched.select(j)
    assert one.batch_shape == ()
    alone = small_of(TAUS[j], df=one.df) if hasattr(one, "df") else small_of(TAUS[j])
    torch.testing.assert_close(one.theta, alone.theta)
    assert_rows_match(batched, alone, j)
    index = torch.tensor([3, 0, 0, 2, 1])
    picked = batched.select(index)
    assert picked.batch_shape == (5,)
    torch.testing.assert_close(picked.tau(), batched.tau()[index])
    torch.testing.assert_close(
        picked.log_prob(scores(4, 1, batched.modalities)), batched.log_prob(scores(4, 1, batched.modalities))[:, index]
    )


def test_expand(pair_of: Callable[..., Copula]) -> None:
    c = pair_of()
    if c.family == "independence":
        assert c.expand(torch.Size([D])).log_prob(scores(6, D, c.modalities)).shape == (6, D)
        return
    batched = c.expand(torch.Size([D]))
    assert (batched.batch_shape, batched.event_shape) == ((D,), c.event_shape)
    assert_rows_match(batched, c, 1)
    # A margin keeps its coordinates: of a rotation it is the second that is reflected.
    turned = c.margin((1, 0))
    torch.testing.assert_close(turned.expand(torch.Size([D])).log_prob(scores(6, 1, 2))[:, 0], turned.log_prob(scores(6, 2)))


@pytest.mark.parametrize("family", ["clayton", "gumbel", "joe"])
def test_reflections(copula: Callable[..., Copula], family: str) -> None:
    """c_90(u, v) = c(1 − u, v), c_270(u, v) = c(u, 1 − v), and survival copulas reflect every coordinate."""
    s = scores(30, 3)
    base = copula(family, 2, 0.6)
    torch.testing.assert_close(copula(f"{family}_90", 2, 0.6).log_prob(s[:, :2]), base.log_prob(s[:, :2] * torch.tensor([-1.0, 1.0])))
    torch.testing.assert_close(copula(f"{family}_270", 2, 0.6).log_prob(s[:, :2]), base.log_prob(s[:, :2] * torch.tensor([1.0, -1.0])))
    torch.testing.assert_close(copula(f"survival_{family}", 3, 0.6).log_prob(s), copula(family, 3, 0.6).log_prob(-s))


def test_as_a_learned_prior(copula_of: Callable[..., Copula]) -> None:
    """Draws of the sites give valid copulas within MAX_TAU, one per dimension; a start near a given tau is that tau."""
    M, cls = copula_of().modalities, type(copula_of())
    torch.manual_seed(0)
    priors = cls.site_priors(M, torch.Size([50]))
    assert cls.family == "independence" or "" in priors
    for prior in priors.values():
        assert prior.batch_shape == ()
        assert prior.support is not None
        assert bool(prior.support.check(prior.sample()).all())
    values = {name: prior.sample().requires_grad_() for name, prior in priors.items()}
    c = cls.from_sites(values, M, like=torch.zeros(1))
    assert bool((pairwise(c.tau(), M) * (1 - torch.eye(M))).abs().le(MAX_TAU + 1e-5).all())
    value = c.log_prob(torch.randn(4, 50, M))
    assert value.shape[0] == 4
    assert torch.isfinite(value).all()
    for gradient in torch.autograd.grad(value.sum(), list(values.values())) if values else ():
        assert torch.isfinite(gradient).all()
    target = reach(cls.family, M) * (0.0 if cls.family == "independence" else -0.4 if cls.family.endswith(("_90", "_270")) else 0.4)
    start = cls.sites_from_tau(pairwise(torch.tensor(target), M))
    assert set(start) == set(priors)
    got = pairwise(cls.from_sites(start, M, like=torch.zeros(1)).tau(), M)[0, 1]
    assert float(got) == pytest.approx(target, abs=1e-4)
    for name, prior in cls.site_priors(M, torch.Size()).items():
        assert start[name].shape == prior.shape()
        assert prior.support is not None
        assert bool(prior.support.check(start[name]).all())


@pytest.mark.parametrize("family", FAMILIES.names())
def test_is_documented(family: str) -> None:
    """The formula's family, the range of its parameter, Kendall's tau, and whose work it is."""
    cls = FAMILIES.get(family)
    assert cls.family == family
    text = cls.__doc__ or ""
    assert "copula" in text or family == "independence"
    if family != "independence":
        assert re.search(r"Kendall's tau|Tail dependence", text)
        assert re.search(r"Range:|rotated by|Survival", text)
    if not family.startswith("survival_") and not family.endswith(("_90", "_270")) and family != "independence":
        assert re.search(r"Source:\s+\w[^()]+\((19|20)\d\d\)", text)
        assert "log c(u) =" in text

"""A mixture of copula families, per row."""

import itertools
import math

import pytest
import torch
from scipy import stats

from cm2pyro.distributions import FamilyMixture, make_copula
from cm2pyro.errors import ConfigError

DOUBLE = torch.float64
NAMES = ("gaussian", "student_t", "clayton", "survival_joe")
WEIGHTS = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=DOUBLE)


def mixture(M: int, tau: float = 0.5, D: int | None = None) -> FamilyMixture:
    value = torch.tensor(tau, dtype=DOUBLE) if D is None else torch.linspace(0.2, 0.7, D, dtype=DOUBLE)
    return FamilyMixture([make_copula(name, M, tau=value) for name in NAMES], WEIGHTS.log())


def scores(*shape: int) -> torch.Tensor:
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


@pytest.mark.parametrize("M", [2, 3])
def test_density_is_the_weighted_sum_also_of_a_subset(M: int) -> None:
    p, s = mixture(M), scores(20, M)
    expected = sum(w * c.log_prob(s).exp() for w, c in zip(WEIGHTS, p.copulas, strict=True)).log()
    torch.testing.assert_close(p.log_prob(s), expected)
    observed = torch.rand(20, M, generator=torch.Generator().manual_seed(1)) < 0.6
    expected = sum(w * c.log_prob(s, observed).exp() for w, c in zip(WEIGHTS, p.copulas, strict=True)).log()
    torch.testing.assert_close(p.log_prob(torch.where(observed, s, torch.nan), observed), expected)


@pytest.mark.slow
def test_draws_have_the_mixtures_law_and_keep_what_is_given() -> None:
    """Joint draws, some hidden and drawn again, through the Rosenblatt transform: uniform and independent."""
    p, n = mixture(3), 3000
    torch.manual_seed(0)
    s = p.rsample((n,))
    observed = torch.rand(n, 3) < 0.5
    again = p.conditional(torch.where(observed, s, torch.nan), observed).rsample()
    assert torch.equal(again[observed], s[observed])
    for drawn in (s, again):
        pit = [p.conditional_margin(drawn, m, torch.arange(3) < m)[0].numpy() for m in range(3)]
        assert all(stats.kstest(x, "uniform").pvalue > 1e-4 for x in pit)
        for a, b in itertools.combinations(range(3), 2):
            # The sd of a sample tau of independent variables is sqrt(2 (2n + 5) / (9 n (n − 1))).
            assert abs(stats.kendalltau(pit[a], pit[b]).statistic) < 5 * math.sqrt(4 / (9 * n))


@pytest.mark.slow
def test_tau_is_that_of_draws() -> None:
    p, n = mixture(3), 4000
    torch.manual_seed(1)
    s = p.rsample((n,)).numpy()
    for a, b in itertools.combinations(range(3), 2):
        assert abs(stats.kendalltau(s[:, a], s[:, b]).statistic - float(p.tau()[a, b])) < 5 * math.sqrt(2 * (1 - 0.25) / n)
    alone = FamilyMixture(
        [make_copula("clayton", 2, tau=0.9, dtype=DOUBLE), make_copula("clayton", 2, tau=0.9, dtype=DOUBLE)], torch.zeros(2)
    )
    assert float(alone.tau()[0, 1]) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.slow
def test_draws_carry_exact_derivatives_to_weights_parameters_and_what_is_given() -> None:
    s, noise, observed = scores(5, 3), scores(5, 3) / 1.5, torch.tensor([True, True, False])

    def draw(logits: torch.Tensor, tau: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        p = FamilyMixture([make_copula(name, 3, tau=tau) for name in NAMES], logits)
        return p.conditional(s, observed).rsample(noise=noise)[:, 2].sum()

    leaves = [WEIGHTS.log().requires_grad_(), torch.tensor(0.4, dtype=DOUBLE, requires_grad=True), s.requires_grad_()]
    got = torch.autograd.grad(draw(*leaves), leaves)
    step = 1e-5
    for i, leaf in enumerate(leaves):
        for j in range(leaf.numel()):
            ends = []
            for sign in (1, -1):
                moved = [x.detach().clone() for x in leaves]
                moved[i].view(-1)[j] += sign * step
                ends.append(draw(*moved))
            torch.testing.assert_close(got[i].reshape(-1)[j], (ends[0] - ends[1]) / (2 * step), atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_one_copula_per_dimension() -> None:
    p, s = mixture(3, D=4), scores(6, 4, 3)
    assert p.batch_shape == (4,)
    assert p.tau().shape == (4, 3, 3)
    noise, observed = scores(6, 4, 3), torch.rand(6, 1, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    together = p.conditional(s, observed).rsample(noise=noise)
    for j in range(4):
        one = p.select(j)
        torch.testing.assert_close(p.log_prob(s, observed)[:, j], one.log_prob(s[:, j], observed[:, 0]))
        torch.testing.assert_close(together[:, j], one.conditional(s[:, j], observed[:, 0]).rsample(noise=noise[:, j]))
    pair = p.margin([0, 2])
    torch.testing.assert_close(pair.log_prob(s[..., [0, 2]]), p.log_prob(s, torch.tensor([True, False, True])))


def test_tail_dependence_is_the_weighted_mean() -> None:
    p = mixture(3)
    lower, upper = p.tail_dependence()
    parts = [c.tail_dependence() for c in p.copulas]
    for side, got in ((0, lower), (1, upper)):
        values = [float(pair[side][0, 1]) if pair[side].dim() else float(pair[side]) for pair in parts]
        assert float(got[0, 1]) == pytest.approx(sum(w * v for w, v in zip(WEIGHTS.tolist(), values, strict=True)), rel=1e-10)
        assert torch.equal(got.diagonal(), torch.ones(3, dtype=DOUBLE))


def test_unequal_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="one size"):
        FamilyMixture([make_copula("gaussian", 2, tau=0.3), make_copula("clayton", 3, tau=0.3)], torch.zeros(2))
    with pytest.raises(ConfigError, match="a weight for each"):
        FamilyMixture([make_copula("gaussian", 2, tau=0.3)], torch.zeros(2))

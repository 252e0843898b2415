"""The amortized guide of one modality, and the treatments of missing ones."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cm2pyro.config import Guide
from cm2pyro.distributions import CopulaMixture, make_copula
from cm2pyro.encoders import MLP, Identity
from cm2pyro.guides.imputation import TREATMENTS
from cm2pyro.guides.local import LocalGuide, RowNorm


def test_row_norm_standardises_the_rows_it_is_given() -> None:
    norm = RowNorm(3)
    z = torch.randn(50, 3) * 4 + 2
    out = norm(z)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    # Scaling the input changes nothing: latents cannot shrink together with their prior.
    torch.testing.assert_close(RowNorm(3)(z * 1e-2), out, atol=5e-3, rtol=0)


def test_row_norm_runs_on_one_row_and_in_evaluation() -> None:
    norm = RowNorm(3)
    z = torch.randn(400, 3) * 4 + 2
    for part in z.split(40):
        norm(part)
    single = norm(z[:1])
    assert torch.isfinite(single).all()
    norm.eval()
    torch.testing.assert_close(norm(z[:1]), single)
    assert float((norm(z).mean(0)).abs().max()) < 0.2
    assert int(norm.steps) == 10


@pytest.mark.parametrize("delta", [False, True])
def test_local_guide(delta: bool) -> None:
    torch.manual_seed(0)
    guide = LocalGuide(MLP({"vector": (5,)}), 3, delta)
    loc, scale = guide({"vector": torch.randn(9, 5)})
    assert loc.shape == scale.shape == (9, 3)
    assert bool((scale == 0).all()) if delta else bool((scale > 1e-3).all())


def test_a_given_latent_is_a_point_whatever_the_guide() -> None:
    x = torch.randn(4, 2)
    loc, scale = LocalGuide(Identity({"vector": (2,)}), 2, delta=False)({"vector": x})
    assert torch.equal(loc, x)
    assert bool((scale == 0).all())


def mixture() -> CopulaMixture:
    locs = torch.tensor([[[-2.0], [2.0]], [[3.0], [-1.0]]], dtype=torch.float64)
    copula = make_copula("gaussian", 2, tau=0.7, dtype=torch.float64)
    return CopulaMixture(torch.tensor([0.3, 0.7]).log(), torch.tensor([[0, 0], [1, 1]]), locs, torch.full_like(locs, 0.8), copula)


@pytest.mark.parametrize("name", TREATMENTS.names())
def test_treatments_leave_what_is_observed(name: str) -> None:
    torch.manual_seed(0)
    p = mixture()
    z = torch.randn(6, 2, 1, dtype=torch.float64)
    observed = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], dtype=torch.bool)
    filled, log_q = TREATMENTS.get(name)(2, 1).double()(p, z, observed, None)
    assert torch.equal(filled[observed], z[observed])
    assert torch.isfinite(filled).all()
    assert bool((log_q[observed] == 0).all())
    # Those that have a density are those that the config knows to have one.
    assert bool((log_q[~observed] != 0).all()) == Guide(missing=name).scores_missing
    if name == "zero":
        assert bool((filled[~observed] == 0).all())
    if name == "mean":
        torch.testing.assert_close(filled[0, 1, 0], torch.tensor(0.3 * 3.0 - 0.7 * 1.0, dtype=torch.float64))


def test_marginal_draws_ignore_the_others_and_have_their_own_density() -> None:
    torch.manual_seed(0)
    n, p = 5000, mixture()
    z = torch.full((n, 2, 1), -2.0, dtype=torch.float64)
    observed = torch.tensor([True, False]).expand(n, 2)
    drawn, log_q = TREATMENTS.get("marginal")(2, 1)(p, z, observed, None)
    torch.testing.assert_close(log_q[:, 1], p.marginal(1).log_prob(drawn[:, 1]))
    cdf = sum(w * stats.norm.cdf(drawn[:, 1, 0].numpy(), m, 0.8) for w, m in ((0.3, 3.0), (0.7, -1.0)))
    assert stats.kstest(cdf, "uniform").pvalue > 1e-3
    # The conditional, given a value of the first component, is another law: it stays near that component's 3.
    conditional, _ = TREATMENTS.get("conditional")(2, 1)(p, z, observed, None)
    assert float(conditional[:, 1].mean()) > 2.5
    assert float(drawn[:, 1].mean()) < 1.0


def test_marginal_draws_of_two_modalities_are_independent() -> None:
    torch.manual_seed(0)
    n = 5000
    drawn, _ = TREATMENTS.get("marginal")(2, 1)(
        mixture(), torch.zeros(n, 2, 1, dtype=torch.float64), torch.zeros(n, 2, dtype=torch.bool), None
    )
    tau = stats.kendalltau(drawn[:, 0, 0].numpy(), drawn[:, 1, 0].numpy()).statistic
    assert abs(tau) < 5 * math.sqrt(4 / (9 * n))  # sd of tau under independence: 2 / (3 sqrt n)
    # Joint draws are not: where the first modality is in its left cluster the second is in its right one.
    joint = mixture().rsample((n,))
    left, right = ((x[:, 0, 0] < 0, x[:, 1, 0] > 1) for x in (joint, drawn))
    assert float((left[0] & left[1]).double().mean()) > 0.25
    assert float((right[0] & right[1]).double().mean()) < 0.15


def test_shared_noise_gives_shared_draws() -> None:
    p = mixture()
    noise = (torch.rand(1, 2, dtype=torch.float64), torch.randn(1, 2, 1, dtype=torch.float64))
    z, observed = torch.zeros(4, 2, 1, dtype=torch.float64), torch.tensor([True, False]).expand(4, 2)
    for name in ("conditional", "marginal"):
        drawn, _ = TREATMENTS.get(name)(2, 1)(p, z, observed, (noise[0].expand(4, 2), noise[1].expand(4, 2, 1)))
        assert np.ptp(drawn[:, 1].numpy()) == 0

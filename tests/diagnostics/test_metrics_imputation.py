"""Energy score and R² of draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import r2_score

from cm2pyro.diagnostics.metrics_imputation import energy_score, explained


def test_in_one_dimension_it_is_the_crps_of_the_normal() -> None:
    torch.manual_seed(0)
    S = 4000
    truth = torch.tensor([[-1.0], [0.0], [2.5]], dtype=torch.float64)
    found = energy_score(torch.randn(S, 3, 1, dtype=torch.float64), truth)
    z = truth[:, 0].numpy()
    crps = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi)
    np.testing.assert_allclose(found.numpy(), crps, atol=5 / math.sqrt(S))


def test_it_is_unbiased_for_few_draws() -> None:
    torch.manual_seed(0)
    n = 20_000
    few, many = (energy_score(torch.randn(S, n, 2), torch.zeros(n, 2)) for S in (2, 8))
    error = math.sqrt(float(few.var() + many.var()) / n)
    assert abs(float(few.mean() - many.mean())) < 5 * error
    # With the pairs of a draw and itself counted, two draws would score higher by half the mean distance over 2.
    assert math.sqrt(math.pi) / 4 > 20 * error


def test_the_truths_own_law_scores_best() -> None:
    torch.manual_seed(0)
    truth = torch.randn(4000, 2) * 2 + 1
    scores = {
        (loc, scale): float(energy_score(torch.randn(50, 4000, 2) * scale + loc, truth).mean())
        for loc in (0.0, 1.0, 2.0)
        for scale in (1.0, 2.0, 4.0)
    }
    assert min(scores, key=scores.__getitem__) == (1.0, 2.0)


def test_a_point_forecast_scores_its_distance() -> None:
    draws, truth = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 2)
    assert energy_score(draws, truth).tolist() == [5.0]
    assert energy_score(draws.expand(6, 1, 2), truth).tolist() == [5.0]


def test_explained_variance_is_that_of_scikit_learn() -> None:
    torch.manual_seed(0)
    truth = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 5.0])
    forecast = truth + 0.7 * torch.randn(50, 3, dtype=torch.float64)
    whole = r2_score(truth, forecast, multioutput="variance_weighted")
    assert explained(forecast, truth) == pytest.approx(whole)

"""Likelihoods of several labels and of numbers, against torch's own densities and SciPy's quantiles."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from cm2pyro.models import LIKELIHOODS
from cm2pyro.models.likelihoods import Multilabel, Regression

DOUBLE = torch.float64


def test_several_labels_are_independent_binary_ones() -> None:
    torch.manual_seed(0)
    several, one = Multilabel(3), LIKELIHOODS.get("binary")(2)
    outputs = torch.randn(5, 7, 3)
    labels = torch.randint(0, 2, (7, 3))
    each = torch.stack([one.distribution(outputs[..., j : j + 1]).log_prob(labels[:, j].float()) for j in range(3)], -1)
    density = several.distribution(outputs)
    assert density.batch_shape == (5, 7)
    torch.testing.assert_close(density.log_prob(several.labels(labels, torch.float32)), each.sum(-1))
    p = several.probabilities(outputs)
    assert p.shape == (5, 7, 3)
    for j in range(3):
        # Vectorised sigmoids of strided and packed numbers differ in the last bit.
        torch.testing.assert_close(several.summary(outputs)[..., j], one.summary(outputs[..., j : j + 1])[..., 1], rtol=0, atol=2e-7)
        expected = one.log_score(outputs[..., j : j + 1], labels[:, j])
        torch.testing.assert_close(several.log_score(outputs, labels)[:, j], expected, rtol=1e-6, atol=1e-6)


def test_an_empty_label_drops_out_alone() -> None:
    torch.manual_seed(1)
    several = Multilabel(3)
    outputs = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([[1, -1, 0], [-1, -1, -1], [0, 0, 1], [-1, 1, -1]])
    known = several.known(labels)
    log_prob = several.distribution(outputs, known).log_prob(several.labels(labels, torch.float32))
    each = torch.distributions.Bernoulli(logits=outputs).log_prob(labels.clamp_min(0).float())
    torch.testing.assert_close(log_prob, torch.where(labels >= 0, each, torch.zeros(())).sum(1))
    assert log_prob.shape == (4,)
    assert log_prob[1] == 0
    log_prob.sum().backward()
    assert outputs.grad is not None
    assert ((outputs.grad != 0) == (labels >= 0)).all()


def test_completions_of_several_labels_weigh_whole_rows() -> None:
    """p(y) = Σ_t r_t Π_l p(y_l | z_t): labels of a row share the component."""
    torch.manual_seed(2)
    several = Multilabel(3)
    outputs, log_weights = torch.randn(2, 4, 3, dtype=DOUBLE), torch.randn(2, 4, dtype=DOUBLE).log_softmax(0)
    labels = torch.tensor([[1, -1, 0], [-1, -1, -1], [0, 0, 1], [-1, 1, -1]])
    mixed = several.mixture(outputs, log_weights, several.known(labels))
    assert mixed.batch_shape == (4,)
    p = outputs.sigmoid()
    per_label = torch.where(labels == 1, p, torch.where(labels == 0, 1 - p, torch.ones((), dtype=DOUBLE)))
    expected = (log_weights.exp() * per_label.prod(-1)).sum(0)
    torch.testing.assert_close(mixed.log_prob(several.labels(labels, DOUBLE)).exp(), expected)


def test_a_number_is_normal_with_a_learned_scale_above_its_floor() -> None:
    number = Regression(0)
    assert (number.outputs, number.columns) == (1, 1)
    assert number.scale.item() == pytest.approx(1, abs=1e-6)
    outputs, labels = torch.randn(3, 6, 1), torch.randn(6)
    density = number.distribution(outputs)
    assert density.batch_shape == (3, 6)
    torch.testing.assert_close(density.log_prob(labels), torch.distributions.Normal(outputs[..., 0], 1.0).log_prob(labels))
    with torch.no_grad():
        number.raw_scale.fill_(-100.0)
    assert number.scale.item() == pytest.approx(0.01)
    assert torch.isfinite(number.distribution(outputs).log_prob(labels)).all()


def test_completions_of_a_number_and_their_gradient() -> None:
    torch.manual_seed(3)
    number = Regression(0).double()
    outputs, log_weights, labels = torch.randn(2, 5, 1, dtype=DOUBLE), torch.randn(2, 5, dtype=DOUBLE).log_softmax(0), torch.randn(5)

    def value() -> torch.Tensor:
        return number.mixture(outputs, log_weights).log_prob(number.labels(labels, DOUBLE)).sum()

    each = norm(outputs[..., 0].numpy(), number.scale.item()).pdf(labels.numpy())
    assert value().item() == pytest.approx(np.log((log_weights.exp().numpy() * each).sum(0)).sum())
    value().backward()
    gradient, step = number.raw_scale.grad.item(), 1e-5
    with torch.no_grad():
        number.raw_scale.add_(step)
        above = value()
        number.raw_scale.sub_(2 * step)
        assert gradient == pytest.approx((above - value()).item() / (2 * step), rel=1e-6)


def test_the_prediction_of_a_number_is_a_mixture_of_normals_over_draws() -> None:
    torch.manual_seed(4)
    number = Regression(0)
    with torch.no_grad():
        number.raw_scale.fill_(-1.0)
    scale = number.scale.double().item()
    outputs = torch.cat([torch.randn(37, 6, 1), torch.full((37, 2, 1), 0.3), 30 * torch.randn(37, 2, 1)], 1)
    mean, sd, low, high = number.summary(outputs)[..., 0].detach().numpy()
    locs = outputs[..., 0].double().numpy()
    np.testing.assert_allclose(mean, locs.mean(0))
    np.testing.assert_allclose(sd, np.sqrt((scale**2 + locs**2).mean(0) - locs.mean(0) ** 2))
    for row in range(locs.shape[1]):
        for q, found in ((0.05, low), (0.95, high)):
            expected = brentq(lambda x, r=row, q=q: norm(locs[:, r], scale).cdf(x).mean() - q, -1e3, 1e3, xtol=1e-12)
            assert found[row] == pytest.approx(expected, abs=1e-8)
    labels = torch.randn(10)
    expected = np.log(norm(locs, scale).pdf(labels.numpy()).mean(0))
    found_score = number.log_score(outputs, labels).detach().numpy()
    # Far from every draw the density underflows, its logarithm does not.
    assert np.isfinite(found_score).all()
    near = np.isfinite(expected)
    np.testing.assert_allclose(found_score[near], expected[near], rtol=1e-6)


def test_sure_and_wrong_costs_a_bounded_amount() -> None:
    outputs = torch.full((3, 1, 1), 200.0)
    for likelihood, label in ((LIKELIHOODS.get("binary")(2), torch.tensor([0])), (Multilabel(1), torch.tensor([[0]]))):
        assert likelihood.log_score(outputs, label).item() == pytest.approx(math.log(1e-7))

"""Likelihoods of classes, of several labels and of numbers, against torch's own densities and SciPy's quantiles."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from cm2pyro.models import LIKELIHOODS
from cm2pyro.models.likelihoods import Multilabel, Regression, weighted_quantile

DOUBLE = torch.float64


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 4)])
def test_probabilities_and_completions_of_classes(task: str, classes: int) -> None:
    likelihood = LIKELIHOODS.get(task)(classes)
    torch.manual_seed(0)
    outputs = torch.randn(3, 6, likelihood.outputs)
    probabilities = likelihood.probabilities(outputs)
    assert probabilities.shape == (3, 6, classes)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 6))
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    value = likelihood.labels(labels, outputs.dtype)
    picked = probabilities[..., torch.arange(6), labels]
    torch.testing.assert_close(likelihood.distribution(outputs).log_prob(value).exp(), picked)
    # Completions: the likelihood of the mean probability.
    log_weights = torch.randn(3, 6).log_softmax(0)
    mixed = likelihood.mixture(outputs, log_weights)
    assert mixed.batch_shape == (6,)
    torch.testing.assert_close(mixed.log_prob(value).exp(), (log_weights.exp() * picked).sum(0))


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
        torch.testing.assert_close(
            several.summary(several.predictive(outputs))[..., j],
            one.summary(one.predictive(outputs[..., j : j + 1]))[..., 1],
            rtol=0,
            atol=2e-7,
        )
        expected = one.log_score(one.predictive(outputs[..., j : j + 1]), labels[:, j])
        torch.testing.assert_close(several.log_score(several.predictive(outputs), labels)[:, j], expected, rtol=1e-6, atol=1e-6)


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
    mean, sd, low, high = number.summary(number.predictive(outputs))[..., 0].detach().numpy()
    locs = outputs[..., 0].double().numpy()
    np.testing.assert_allclose(mean, locs.mean(0))
    np.testing.assert_allclose(sd, np.sqrt((scale**2 + locs**2).mean(0) - locs.mean(0) ** 2))
    for row in range(locs.shape[1]):
        for q, found in ((0.05, low), (0.95, high)):
            expected = brentq(lambda x, r=row, q=q: norm(locs[:, r], scale).cdf(x).mean() - q, -1e3, 1e3, xtol=1e-12)
            assert found[row] == pytest.approx(expected, abs=1e-8)
    labels = torch.randn(10)
    expected = np.log(norm(locs, scale).pdf(labels.numpy()).mean(0))
    found_score = number.log_score(number.predictive(outputs), labels).detach().numpy()
    # Far from every draw the density underflows, its logarithm does not.
    assert np.isfinite(found_score).all()
    near = np.isfinite(expected)
    np.testing.assert_allclose(found_score[near], expected[near], rtol=1e-6)


def test_sure_and_wrong_costs_a_bounded_amount() -> None:
    outputs = torch.full((3, 1, 1), 200.0)
    for likelihood, label in ((LIKELIHOODS.get("binary")(2), torch.tensor([0])), (Multilabel(1), torch.tensor([[0]]))):
        assert likelihood.log_score(likelihood.predictive(outputs), label).item() == pytest.approx(math.log(1e-7))


def test_draws_with_weights_stand_for_repeated_draws() -> None:
    """Weights 3/6, 2/6, 1/6 give the mean, the spread and the score of six draws, three of them alike, two of them alike."""
    torch.manual_seed(5)
    repeats = torch.tensor([3, 2, 1])
    log_weights = (repeats / 6).double().log()[:, None].expand(3, 4)
    for task, classes, labels in (
        ("binary", 2, torch.tensor([0, 1, 1, 0])),
        ("multilabel", 2, torch.randint(0, 2, (4, 2))),
        ("regression", 0, torch.randn(4)),
    ):
        likelihood = LIKELIHOODS.get(task)(classes)
        few = likelihood.predictive(torch.randn(3, 4, likelihood.outputs)).detach()
        many = few.repeat_interleave(repeats, 0)
        found, expected = likelihood.summary(few, log_weights), likelihood.summary(many)
        torch.testing.assert_close(found[:2], expected[:2])
        even = torch.full((6, 4), -math.log(6), dtype=DOUBLE)
        torch.testing.assert_close(found, likelihood.summary(many, even))
        torch.testing.assert_close(likelihood.log_score(few, labels, log_weights), likelihood.log_score(many, labels))


def test_weighted_quantiles() -> None:
    torch.manual_seed(6)
    values = torch.randn(37, 5, 2, dtype=DOUBLE)
    even = torch.full((37, 5), -math.log(37), dtype=DOUBLE)
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_array_equal(weighted_quantile(values, even, q), np.quantile(values, q, axis=0, method="inverted_cdf"))
    # Many draws from a proposal, reweighted to the target: normal quantiles, with a tolerance of four standard errors.
    n = 200_000
    z = 1.5 * torch.randn(n, 1, 1, dtype=DOUBLE)
    log_weights = (torch.distributions.Normal(0.5, 1.0).log_prob(z) - torch.distributions.Normal(0.0, 1.5).log_prob(z))[..., 0].log_softmax(
        0
    )
    effective = 1 / log_weights.exp().square().sum().item()
    for q in (0.05, 0.95):
        target = norm(0.5, 1)
        error = math.sqrt(q * (1 - q) / effective) / target.pdf(target.ppf(q))
        assert weighted_quantile(z, log_weights, q).item() == pytest.approx(target.ppf(q), abs=4 * error)
    # A single draw, and all weight on one.
    assert weighted_quantile(values[:1], even[:1], 0.05).equal(values[0])
    sure = torch.full((37, 5), -torch.inf, dtype=DOUBLE)
    sure[11] = 0.0
    for q in (0.05, 0.5, 0.95):
        assert weighted_quantile(values, sure, q).equal(values[11])

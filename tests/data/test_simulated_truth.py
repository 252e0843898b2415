"""The population behind the simulated data: what truth.json says is what the draws do.

Tolerances are four standard errors (five where many numbers are compared), for a fixed seed.
"""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score

from cm2pyro.data.simulated_truth import MAR_SLOPE, MNAR_SLOPES, TRUTH_DRAWS, Population, SimulationSettings, auroc, population
from cm2pyro.data.simulation import Sample, describe, draw
from tests.data.logistic import logistic

N = 20_000


@cache
def drawn(mechanism: str = "mcar", classes: int = 2) -> tuple[Population, Sample]:
    settings = SimulationSettings(samples=N, mechanism=mechanism, classes=classes, seed=3)
    truth = population(settings)
    return truth, draw(settings, truth)


# --- latents -------------------------------------------------------------------------------------------------------


def test_latents_follow_the_mixture_that_truth_json_describes() -> None:
    truth, sample = drawn()
    prior = truth.prior
    # Centres 4 sd apart in six dimensions: the component is known with certainty for practical purposes.
    t = prior.responsibilities(torch.tensor(sample.latents)).argmax(-1).numpy()
    weights = prior.log_weights.exp().numpy()
    assert np.abs(np.bincount(t) / N - weights).max() < 4 * np.sqrt(0.25 / N)
    for k in range(3):
        z = sample.latents[t == k]  # shared coupling: component k in every modality
        locs, scales = prior.locs[:, k].numpy(), prior.scales[:, k].numpy()
        assert (np.abs(z.mean(0) - locs) < 5 * scales / np.sqrt(len(z))).all()
        assert (np.abs(z.std(0) - scales) < 5 * scales / np.sqrt(2 * len(z))).all()
    assert np.abs(truth.standardised(sample.latents).mean(0)).max() < 4 / np.sqrt(N)
    assert np.abs(truth.standardised(sample.latents).std(0) - 1).max() < 4 / np.sqrt(N)


def test_kendalls_tau_within_components_is_the_one_asked_for() -> None:
    truth, sample = drawn()
    t = truth.prior.responsibilities(torch.tensor(sample.latents)).argmax(-1).numpy()
    for k in range(3):
        z = sample.latents[t == k]
        error = 5 * np.sqrt(2 * (1 - 0.5**2) / len(z))  # Var(tau) <= 2 (1 - tau²) / n
        for a, b in ((0, 1), (0, 2), (1, 2)):
            for d in range(2):
                assert kendalltau(z[:, a, d], z[:, b, d]).statistic == pytest.approx(0.5, abs=error)
            assert kendalltau(z[:, a, 0], z[:, b, 1]).statistic == pytest.approx(0, abs=5 * np.sqrt(2 / len(z)))


@pytest.mark.parametrize("separation", [3.0, 6.0])
def test_centres_are_as_far_apart_as_asked_and_ordered_differently(separation: float) -> None:
    prior = population(SimulationSettings(separation=separation)).prior
    locs, scales = prior.locs.numpy(), prior.scales.numpy()
    order = np.argsort(locs, axis=1)
    ordered, width = np.take_along_axis(locs, order, 1), np.take_along_axis(scales, order, 1)
    assert np.diff(ordered, axis=1) / np.maximum(width[:, 1:], width[:, :-1]) == pytest.approx(np.full((3, 2, 2), separation))
    assert len({tuple(order[m, :, 0]) for m in range(3)}) == 3
    assert len(np.unique(scales)) > 1


@pytest.mark.parametrize(
    "options",
    [{"family": "independence", "tau": 0.0}, {"tau": 0.9}, {"tau": -0.2}, {"components": 1}, {"components": 5}, {"dim": 1}, {"dim": 5}],
    ids=str,
)
def test_every_population_has_a_learnable_outcome(options: dict[str, float]) -> None:
    settings = SimulationSettings(samples=N, seed=3, **options)  # type: ignore[arg-type]
    sample = draw(settings, population(settings))
    assert sample.latents.shape == (N, 3, settings.dim)
    assert 0.88 < auroc(sample.probability, sample.probability) < 0.92
    assert sample.label.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 * (1 / N + 1 / TRUTH_DRAWS)))


# --- outcome -------------------------------------------------------------------------------------------------------


def test_the_outcome_depends_on_every_modality_as_truth_json_says() -> None:
    truth, sample = drawn()
    a = truth.standardised(sample.latents)
    X = np.column_stack([a.reshape(N, 6), a[:, 0, 0] * a[:, 1, 0]])
    estimate, error = logistic(X, sample.label)
    expected = np.concatenate([truth.intercept, truth.linear[0].ravel(), truth.product])
    assert (np.abs(estimate - expected) < 4 * error).all()
    assert (np.abs(estimate[1:]) > 4 * error[1:]).all(), "a latent without a partial effect"


def test_the_bayes_auroc_is_that_of_the_true_probabilities() -> None:
    _, sample = drawn()
    described = describe(SimulationSettings(samples=N, seed=3), *drawn())
    test = sample.split == "test"
    assert described["bayes_auroc"] == pytest.approx(roc_auc_score(sample.label[test], sample.probability[test, 1]), abs=1e-9)
    assert 0.88 < described["bayes_auroc"] < 0.92
    assert described["bayes_auroc_expected"] == pytest.approx(described["bayes_auroc"], abs=4 * np.sqrt(0.25 / (0.3 * test.sum())))
    assert described["prevalence"] == pytest.approx(sample.probability[:, 1].mean(), abs=4 * np.sqrt(0.21 / N))


@pytest.mark.slow
def test_more_classes() -> None:
    truth, sample = drawn(classes=4)
    assert truth.linear.shape == (3, 3, 2)
    assert sample.probability.sum(1) == pytest.approx(np.ones(N))
    assert np.bincount(sample.label) / N == pytest.approx(np.full(4, 0.25), abs=5 * np.sqrt(0.1875 * (1 / N + 1 / TRUTH_DRAWS)))
    labelled = np.eye(4)[sample.label]
    expected = roc_auc_score(sample.label, sample.probability, multi_class="ovr", average="macro")
    assert auroc(sample.probability, labelled) == pytest.approx(expected, abs=1e-9)
    assert 0.88 < expected < 0.92


def test_the_auroc_is_undefined_without_both_classes() -> None:
    score = np.array([[0.4, 0.6], [0.2, 0.8]])
    assert np.isnan(auroc(score, np.array([[0.0, 1.0], [0.0, 1.0]])))


# --- missingness ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["mcar", "mar", "mnar"])
def test_the_missing_rate_is_the_one_asked_for(mechanism: str) -> None:
    _, sample = drawn(mechanism)
    rate = 1 - sample.observed.mean(0)
    expected = np.array([0.0 if mechanism == "mar" else 0.3, 0.3, 0.3])
    # The second term is the error of the calibration of the intercepts.
    assert (np.abs(rate - expected) <= 4 * np.sqrt(expected * (1 - expected) * (1 / N + 1 / TRUTH_DRAWS))).all()


def causes_of_missingness(mechanism: str, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and their errors of log odds(missing m) on the first latents of the three modalities and the outcome."""
    truth, sample = drawn(mechanism)
    X = np.column_stack([truth.standardised(sample.latents)[:, :, 0], sample.label])
    slopes, error = logistic(X, ~sample.observed[:, m])
    return slopes[1:], error[1:]


@pytest.mark.parametrize("m", [0, 1, 2])
def test_mcar_depends_on_nothing(m: int) -> None:
    slopes, error = causes_of_missingness("mcar", m)
    assert (np.abs(slopes) < 4 * error).all()


@pytest.mark.parametrize("m", [1, 2])
def test_mar_depends_on_the_series_and_on_nothing_else(m: int) -> None:
    slopes, error = causes_of_missingness("mar", m)
    assert (np.abs(slopes - [MAR_SLOPE, 0, 0, 0]) < 4 * error).all()
    assert slopes[0] > 10 * error[0]


@pytest.mark.parametrize("m", [0, 1, 2])
def test_mnar_depends_on_the_own_latent_and_the_outcome(m: int) -> None:
    slopes, error = causes_of_missingness("mnar", m)
    expected = np.zeros(4)
    expected[[m, 3]] = MNAR_SLOPES
    assert (np.abs(slopes - expected) < 4 * error).all()
    assert (slopes[[m, 3]] > 10 * error[[m, 3]]).all()


@pytest.mark.parametrize("mechanism", ["mcar", "mar", "mnar"])
def test_nothing_is_missing_at_rate_zero(mechanism: str) -> None:
    settings = SimulationSettings(samples=500, missing=0, mechanism=mechanism)
    assert draw(settings, population(settings)).observed.all()

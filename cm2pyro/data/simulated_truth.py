"""The population behind a simulated data set: settings, latents, outcome and missingness, with everything known."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cm2pyro.errors import ConfigError
from cm2pyro.registry import nearest

if TYPE_CHECKING:
    from cm2pyro.distributions import CopulaMixture

MODALITIES = ("series", "image", "note")
MECHANISMS = ("mcar", "mar", "mnar")
TARGET_AUROC = 0.9  # of the true probabilities, over the population
TRUTH_SEED = 20260  # of the draws that calibrate the population; never that of a data set
TRUTH_DRAWS = 20_000
MAR_SLOPE = 1.5  # log odds that image or note is missing, per sd of the first latent of the series
MNAR_SLOPES = (1.0, 1.0)  # per sd of the modality's own first latent; for an outcome other than class 0


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    Args:
        samples: N >= 10. dim: latent width D. components: K = T, tied across modalities. classes: of the outcome.
        family, tau: copula family and Kendall's tau of every pair of modalities inside a component.
        missing: mean probability that a modality is missing, [0, 1); under `mar` that of image and note.
        mechanism: mcar | mar | mnar.
        seed: of the draws, not of the population.
        separation: distance of adjacent centres, in units of the larger of their sds, in every dimension.
        prevalence: of the positive class where there are two; with more, classes are equally frequent.
        df: degrees of freedom of family student_t.

    Raises:
        ConfigError: a value out of its range.
    """

    samples: int = 2000
    family: str = "gaussian"
    tau: float = 0.5
    missing: float = 0.3
    mechanism: str = "mcar"
    seed: int = 0
    dim: int = 2
    components: int = 3
    separation: float = 4.0
    prevalence: float = 0.3
    classes: int = 2
    df: float = 4.0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float, str]] = {
            "samples": (10, math.inf, "fewer cannot be split"),
            "tau": (-0.99, 0.99, "ask for weaker dependence"),
            "missing": (0, math.nextafter(1, 0), "0 is complete data"),
            "seed": (0, 2**63 - 1, "pass a number that is not negative"),
            "dim": (1, 1024, "2 is what the data can show"),
            "components": (1, 64, "3 is the default"),
            "separation": (3, 100, "closer centres cannot be told apart; 4 is the default"),
            "prevalence": (0.01, 0.99, "0.3 is the default"),
            "classes": (2, 10, "2 is a binary outcome"),
            "df": (2.05, 1000, "4 is the default"),
        }
        for name, (low, high, remedy) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high or math.isinf(value):  # also refuses NaN
                expected = f"{low} or more" if math.isinf(high) else "0 <= missing < 1" if name == "missing" else f"{low} to {high}"
                raise ConfigError(f"{name}: found {value}, expected {expected}; {remedy}")
        if self.mechanism not in MECHANISMS:
            raise ConfigError(f"mechanism: found '{self.mechanism}'; {nearest(self.mechanism, MECHANISMS)}")


@dataclass(frozen=True)
class Population:
    """The truth behind every data set with these settings.

        t_i       ~ Categorical(weights)
        z_i       ~ copula with normal margins locs, scales of component t_i          (M, D)
        a_i       = (z_i − mean) / sd                                                 standardised over the population
        logit_ic  = intercept_c + Σ_md linear_cmd a_imd + product_c a_i,series,0 a_i,image,0;  class 0: logit 0
        y_i       ~ Categorical(softmax(logit_i))
        missing_im ~ Bernoulli(`missing_probability`)

    Shapes: mean, sd (M, D); intercept, product (C − 1,); linear (C − 1, M, D). `missingness` holds per modality either
    a constant `probability`, or an `intercept` with slopes of log odds on standardised latents and on `outcome`
    (1 for every class but 0).
    """

    prior: "CopulaMixture"
    mean: np.ndarray
    sd: np.ndarray
    intercept: np.ndarray
    linear: np.ndarray
    product: np.ndarray
    missingness: dict[str, dict[str, float]] = field(default_factory=dict)

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        """(n, M, D), reproducible; torch's global random state stays as it was."""
        import torch

        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also reseed the accelerators.
            torch.default_generator.manual_seed(seed)
            # Rounded, so that a cell of the manifest is short and equals the truth exactly.
            return np.round(self.prior.rsample((n,)).detach().double().numpy(), 8)

    def standardised(self, z: np.ndarray) -> np.ndarray:
        """(N, M, D) with mean 0 and variance 1 over the population."""
        return (z - self.mean) / self.sd

    def outcome_scores(self, a: np.ndarray) -> np.ndarray:
        """(N, C − 1) logits without their intercepts; a (N, M, D) standardised."""
        return np.einsum("nmd,cmd->nc", a, self.linear) + np.outer(a[:, 0, 0] * a[:, 1, 0], self.product)

    def probabilities(self, z: np.ndarray) -> np.ndarray:
        """(N, C) true outcome probabilities given all latents z (N, M, D)."""
        return softmax(self.outcome_scores(self.standardised(z)) + self.intercept)

    def missing_probability(self, z: np.ndarray, label: np.ndarray) -> np.ndarray:
        """(N, M) probability that each modality is missing; label (N,) class numbers."""
        a = self.standardised(z)
        columns = {"outcome": (label > 0).astype(float), **{f"latent_{name}_0": a[:, m, 0] for m, name in enumerate(MODALITIES)}}
        probability = np.empty(a.shape[:2])
        for m, name in enumerate(MODALITIES):
            rule = self.missingness[name]
            if "probability" in rule:
                probability[:, m] = rule["probability"]
            else:
                log_odds = rule["intercept"] + sum(rule[key] * column for key, column in columns.items() if key in rule)
                probability[:, m] = 1 / (1 + np.exp(-log_odds))
        return probability


def population(settings: SimulationSettings) -> Population:
    """The truth for these settings; the seed, the number of samples and torch's random state do not matter.

    Coefficients of the outcome have a fixed shape and are scaled until the true probabilities have an AUROC of
    `TARGET_AUROC`; intercepts are set for the prevalence and the missing rate. All by `TRUTH_DRAWS` draws, to four decimals.

    Raises:
        ConfigError: the copula family is unknown or cannot have this tau among three modalities.
    """
    import torch
    from scipy.optimize import brentq

    from cm2pyro.distributions import CopulaMixture, make_copula

    M, K, D, C = len(MODALITIES), settings.components, settings.dim, settings.classes
    df = settings.df if settings.family == "student_t" else None
    copula = make_copula(settings.family, modalities=M, tau=torch.tensor(settings.tau, dtype=torch.float64), df=df)
    weights = 1 / (np.arange(K) + 1.5)
    weights /= weights.sum()
    locs, scales = _margins(M, K, D, settings.separation)
    assignment = torch.arange(K)[:, None].expand(K, M).contiguous()
    prior = CopulaMixture(torch.from_numpy(np.log(weights)), assignment, torch.from_numpy(locs), torch.from_numpy(scales), copula)
    mean = np.einsum("k,mkd->md", weights, locs)
    sd = np.sqrt(np.einsum("k,mkd->md", weights, scales**2 + (locs - mean[:, None]) ** 2))

    rng = np.random.default_rng(TRUTH_SEED)
    linear = np.empty((C - 1, M, D))
    linear[0] = np.outer([1.0, 1.2, 0.9], 1 / (1 + 0.5 * np.arange(D)))
    linear[1:] = rng.standard_normal((C - 2, M, D))
    shape = Population(prior, mean, sd, np.zeros(C - 1), linear, np.full(C - 1, 0.4))

    z = shape.draw_latents(TRUTH_DRAWS, TRUTH_SEED)
    scores = shape.outcome_scores(shape.standardised(z))
    shares = np.array([1 - settings.prevalence, settings.prevalence]) if C == 2 else np.full(C, 1 / C)

    start = np.zeros(C - 1)

    def excess(scale: float) -> float:
        start[:] = _intercepts(scale * scores, shares, start)  # the next scale is near, and so is its solution
        p = softmax(scale * scores + start)
        return auroc(p, p) - TARGET_AUROC

    scale = brentq(excess, 0.05, 50, xtol=1e-4)
    linear, product = np.round(scale * linear, 4), np.round(scale * shape.product, 4)
    truth = Population(prior, mean, sd, np.zeros(C - 1), linear, product)
    intercept = np.round(_intercepts(truth.outcome_scores(truth.standardised(z)), shares), 4)
    truth = Population(prior, mean, sd, intercept, linear, product)
    label = choose(truth.probabilities(z), rng)
    return Population(prior, mean, sd, intercept, linear, product, _missingness(settings, truth.standardised(z), label))


def _margins(M: int, K: int, D: int, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and scales (M, K, D) of the components: unequal scales, and another order of the centres in each modality.

    The order shifts by one from modality to modality and turns round from dimension to dimension, so that the clusters
    of one modality do not give away the sum over all: what the modalities share inside a cluster matters too.
    """
    m, k, d = np.ogrid[:M, :K, :D]
    position = (k + m) % K
    position = np.where(d % 2 == 1, K - 1 - position, position)
    scales = np.round(0.8 + 0.2 * ((k + m + d) % 3), 1)
    order = np.argsort(position, axis=1)
    ordered = np.take_along_axis(scales, order, axis=1)
    gaps = separation * np.maximum(ordered[:, 1:], ordered[:, :-1])
    centres = np.concatenate([np.zeros((M, 1, D)), np.cumsum(gaps, axis=1)], axis=1)
    centres -= centres.mean(axis=1, keepdims=True)
    return np.take_along_axis(centres, position, axis=1), scales


def _missingness(settings: SimulationSettings, a: np.ndarray, label: np.ndarray) -> dict[str, dict[str, float]]:
    """The rule of each modality, with its intercept set so that the mean over draws a (N, M, D), label (N,) is the rate.

    mcar: P(missing_m) = rate, for every m
    mar:  logit P(missing_m) = intercept + slope a_series,0 for image and note; the series is always there
    mnar: logit P(missing_m) = intercept_m + slope a_m,0 + slope 1{y > 0}, for every m
    """
    rate = settings.missing
    if settings.mechanism == "mcar" or rate == 0:
        return {name: {"probability": float(rate)} for name in MODALITIES}
    rules: dict[str, dict[str, float]] = {}
    for m, name in enumerate(MODALITIES):
        if settings.mechanism == "mnar":
            own, outcome = MNAR_SLOPES
            log_odds = own * a[:, m, 0] + outcome * (label > 0)
            rules[name] = {f"latent_{name}_0": own, "outcome": outcome}
        elif name == "series":
            rules[name] = {"probability": 0.0}
            continue
        else:
            log_odds = MAR_SLOPE * a[:, 0, 0]
            rules[name] = {"latent_series_0": MAR_SLOPE}
        binary = np.stack([np.zeros_like(log_odds), log_odds], axis=1)
        rules[name]["intercept"] = round(float(_intercepts(binary[:, 1:], np.array([1 - rate, rate]))[0]), 4)
    return rules


def _intercepts(scores: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Intercepts (C − 1,) that give the classes these mean probabilities (C,): the minimum of a convex function.

    d/db of mean(logsumexp(scores + b)) − shares · b is mean probability − share.
    """
    from scipy.optimize import minimize

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.concatenate([np.zeros((len(scores), 1)), scores + b], axis=1)
        top = logits.max(axis=1, keepdims=True)
        total = np.exp(logits - top).sum(axis=1, keepdims=True)
        p = np.exp(logits - top) / total
        return float((np.log(total) + top).mean() - shares[1:] @ b), p[:, 1:].mean(axis=0) - shares[1:]

    start = np.zeros(scores.shape[1]) if start is None else start
    return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6}).x


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C − 1) logits against class 0 -> (N, C) probabilities."""
    logits = np.concatenate([np.zeros((len(logits), 1)), logits], axis=1)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def choose(probability: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) class numbers drawn from (N, C) probabilities."""
    return (rng.random((len(probability), 1)) > probability.cumsum(axis=1)[:, :-1]).sum(axis=1)


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """P(score_i > score_j | i positive, j negative), macro-averaged over classes against the rest where there are more than two.

    Args:
        score: (N, C) class probabilities.
        positive: (N, C) the classes that are true, 0 or 1; or their probabilities, for the expectation over labels.

    Returns:
        NaN where a class has no positive or no negative row.
    """
    values = []
    for c in range(1 if score.shape[1] == 2 else 0, score.shape[1]):
        weight = positive[np.argsort(score[:, c], kind="stable"), c]
        below = np.cumsum(1 - weight) - (1 - weight)
        # A row is not compared with itself.
        pairs = weight.sum() * (1 - weight).sum() - (weight * (1 - weight)).sum()
        values.append(float(weight @ below / pairs) if pairs > 0 else math.nan)
    return float(np.mean(values))

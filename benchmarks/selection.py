"""The selection model on data whose mechanism is known: bias of the outcome probability, against the ignorable model.

    python benchmarks/selection.py [--seeds 5] [--samples 1500] [--mechanisms own,outcome,...]

Given latents of three modalities (the population of `cm2pyro simulate`, D = 2, K = 1, Gaussian copula, tau 0.3) with an outcome that is
logistic and linear in them. About a third of each modality is missing, by a mechanism of the list below. Each seed draws training
and test rows, and each model is fitted once. The truth of a test row is p(y = 1 | z_observed, r), from 500 draws of the missing
latents under the true population, weighted by the true p(r | z, y).

"ignorable, 20 draws" is the ignorable model trained with as many completions (`guide.completions`) as the selection model: what
they alone are worth.

Printed per mechanism and model, mean and sd over seeds: the mean of p̂ − p over incomplete test rows; the mean over rows of the
absolute bias of their missingness pattern; root mean squared p̂ − p over incomplete rows; the mean absolute error of the outcome's six
coefficients, per sd of a latent; AUROC over all test rows.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp
from sklearn.metrics import roc_auc_score

from cm2pyro.api import CM2
from cm2pyro.data.simulation import Population, SimulationSettings, population

NAMES = ("series", "image", "note")
TAU = 0.3  # between modalities: enough that they tell of each other, too little to tell all
RATE = 0.35  # of every modality, missing
TRUTH_DRAWS = 500
TEST_ROWS = 1000
VAL_ROWS = 20  # unlabelled: no early stopping, so that what is compared is where the two likelihoods have their maximum
Score = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # standardised latents (n, M, D), outcome (n,) -> (n, M) log odds of missing, unshifted

# Sections of the config, over those that all share.
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "ignorable": {},
    "ignorable, 20 draws": {"guide": {"completions": 20}},
    "selection": {"missingness": {"model": "selection"}},
    "selection, outcome": {"missingness": {"model": "selection", "outcome": True}},
}
_THREE, _ALL = tuple(MODELS)[:3], tuple(MODELS)
# Log odds of missing, unshifted, and the models fitted. "selection" assumes what is true in "own"; it is wrong in "outcome", "quadratic".
MECHANISMS: dict[str, tuple[str, Score, tuple[str, ...]]] = {
    "own": ("2 per sd of the modality's own first latent", lambda a, y: 2 * a[..., 0], _THREE),
    "outcome": ("1 per sd of own first latent, 1 for the outcome (simulate's mnar)", lambda a, y: a[..., 0] + y[:, None], _ALL),
    "quadratic": ("1.5 per squared sd of own first latent", lambda a, y: 1.5 * a[..., 0] ** 2, _THREE),
    "mcar": ("nothing", lambda a, y: np.zeros(a.shape[:2]), _THREE),
    "mar": ("image and note: 1.5 per sd of the series' first latent; the series is there", lambda a, y: _mar(a), _THREE),
}


def _mar(a: np.ndarray) -> np.ndarray:
    score = 1.5 * np.repeat(a[:, :1, 0], 3, 1)
    score[:, 0] = -np.inf
    return score


class World:
    """The population with one mechanism; intercepts set for the rate."""

    def __init__(self, mechanism: str) -> None:
        truth = population(SimulationSettings(components=1, tau=TAU))
        self.truth: Population = replace(truth, product=np.zeros_like(truth.product))
        self.score = MECHANISMS[mechanism][1]
        z = self.truth.draw_latents(20_000, 1)
        y = self._outcome(z, np.random.default_rng(1))
        score = self.score(self.truth.standardised(z), y)
        self.intercept = np.array([self._intercept(column) for column in score.T])

    @staticmethod
    def _intercept(score: np.ndarray) -> float:
        return 0.0 if np.isneginf(score).all() else brentq(lambda b: expit(score + b).mean() - RATE, -30, 30)

    def _outcome(self, z: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return (random.random(len(z)) < self.truth.probabilities(z)[:, 1]).astype(int)

    def log_missing(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, M) log odds of missing."""
        return self.score(self.truth.standardised(z), y) + self.intercept

    def draw(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latents (n, M, D), outcome (n,), observed (n, M)."""
        random = np.random.default_rng([seed, 7])
        z = self.truth.draw_latents(n, seed)
        y = self._outcome(z, random)
        return z, y, random.random(z.shape[:2]) >= expit(self.log_missing(z, y))

    def posterior(self, z: np.ndarray, observed: np.ndarray, seed: int) -> np.ndarray:
        """p(y = 1 | z_observed, r), (n,)."""
        generator = torch.Generator().manual_seed(seed)
        p = [self._posterior(z[i : i + 200], observed[i : i + 200], generator) for i in range(0, len(z), 200)]
        return np.concatenate(p)

    def _posterior(self, z: np.ndarray, observed: np.ndarray, generator: torch.Generator) -> np.ndarray:
        shape = (TRUTH_DRAWS, len(z))
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        normal = torch.randn(*shape, *z.shape[1:], generator=generator, dtype=torch.float64)
        given, seen = torch.from_numpy(z).expand(*shape, *z.shape[1:]), torch.from_numpy(observed).expand(*shape, len(NAMES))
        drawn = self.truth.prior.conditional(given, seen, (uniform, normal)).numpy().reshape(-1, *z.shape[1:])
        log_p = np.log(self.truth.probabilities(drawn)).reshape(*shape, 2)
        signs = np.where(observed, -1.0, 1.0)
        joint = []
        for c in range(2):
            odds = self.log_missing(drawn, np.full(len(drawn), c)).reshape(*shape, len(NAMES))
            joint.append(logsumexp(log_p[..., c] + log_expit(signs * odds).sum(-1), axis=0))
        return np.exp(joint[1] - np.logaddexp(*joint))


def frame(z: np.ndarray, y: np.ndarray, observed: np.ndarray, split: list[str]) -> pd.DataFrame:
    """A manifest of the observed latents."""
    n = len(z)
    columns: dict[str, Any] = {"sample_id": [f"s{i}" for i in range(n)], "subject_id": [f"p{i}" for i in range(n)], "split": split}
    columns["label"] = y.astype(str)
    for m, name in enumerate(NAMES):
        columns[name] = [str(v) if seen else "" for v, seen in zip(z[:, m].tolist(), observed[:, m], strict=True)]
    return pd.DataFrame(columns)


def config(model: dict[str, dict[str, Any]], seed: int, epochs: int) -> dict[str, Any]:
    return {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in NAMES},
        "latent": {"dim": 2},
        "prior": {"components": 1, "scale_floor": 0.02, "copula": {"family": "gaussian"}},
        "guide": {"local": "delta"} | model.get("guide", {}),
        "fusion": {"kind": "mlp", "layers": 0},
        "missingness": model.get("missingness", {}),
        "fit": {
            "epochs": epochs, "patience": epochs, "batch_size": 750, "lr": 0.08, "global_lr": 0.03, "schedule": "cosine",
            "ema": 0.8, "beta": 1.0, "restarts": 1, "seed": seed,
        },
    }  # fmt: skip


def coefficients(model: CM2) -> np.ndarray:
    """The head's slopes on the latents as they were given, (M D,)."""
    weight = model.program.model.head.weight.detach().double().numpy()[0]
    return weight / np.concatenate([model.preparation.kinds[name].scaling.scale for name in NAMES])


def measure(world: World, models: tuple[str, ...], seed: int, samples: int, epochs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Every model fitted to the same rows, and measured on the same others."""
    n = samples + VAL_ROWS
    z, y, observed = world.draw(n + TEST_ROWS, seed)
    train = frame(z[:n], y[:n], observed[:n], ["train"] * samples + ["val"] * VAL_ROWS)
    train.loc[samples:, "label"] = ""
    z, y, observed = z[n:], y[n:], observed[n:]
    test, exact = frame(z, y, observed, ["test"] * TEST_ROWS), world.posterior(z, observed, seed)
    for name in models:
        model = CM2.from_config(config(MODELS[name], seed, epochs)).fit(train)
        predicted = model.predict(test, draws=200)["probability"].to_numpy()
        yield name, compare(world, model, y, observed, predicted, exact)


def compare(world: World, model: CM2, y: np.ndarray, observed: np.ndarray, predicted: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """What is printed, of one fit."""
    error = predicted - exact
    incomplete = ~observed.all(1)
    bias = np.empty(len(y))
    patterns = observed @ (1 << np.arange(len(NAMES)))
    for pattern in np.unique(patterns):
        bias[patterns == pattern] = error[patterns == pattern].mean()
    true = world.truth.linear[0].ravel() / world.truth.sd.ravel()
    return {
        "bias": error[incomplete].mean(),
        "by pattern": np.abs(bias[incomplete]).mean(),
        "rmse": np.sqrt((error[incomplete] ** 2).mean()),
        "coefficients": np.abs((coefficients(model) - true) * world.truth.sd.ravel()).mean(),
        "AUROC": roc_auc_score(y, predicted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--mechanisms", default=",".join(MECHANISMS))
    parser.add_argument("--models", default=";".join(MODELS), help="of those fitted to a mechanism")
    parser.add_argument("--verbose", action="store_true", help="every fit as it ends")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for mechanism in arguments.mechanisms.split(","):
        said, _, fitted = MECHANISMS[mechanism]
        models = tuple(name for name in fitted if name in arguments.models.split(";"))
        world = World(mechanism)
        print(f"\n{mechanism}: log odds of missing: {said}", flush=True)
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in range(arguments.seeds):
            for name, values in measure(world, models, 100 + seed, arguments.samples, arguments.epochs):
                found[name].append(values)
                if arguments.verbose:
                    print(f"    seed {seed} {name:20}", {key: round(float(value), 4) for key, value in values.items()}, flush=True)
        for name, rows in found.items():
            columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            shown = "  ".join(f"{key} {values.mean():.4f} ± {values.std(ddof=1):.4f}" for key, values in columns.items())
            print(f"  {name:20} {shown}", flush=True)


if __name__ == "__main__":
    main()

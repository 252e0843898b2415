"""Two steps on given latents: the copula mixture by maximum a posteriori, then the outcome head on its completions.

The latents stand still, so the mixture does not depend on labels: one mixture serves every draw of labels, and what differs
between two rows of a table is the family (and K) alone. The head is the package's perceptron fusion and a linear layer, its
likelihood log Σ_t p(t | z_observed) p(y | z_t), the discrete component summed out as in a fit (docs/method.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (makes the next import possible)
from sklearn.impute import IterativeImputer
from sklearn.linear_model import BayesianRidge, LogisticRegression
from torch import Tensor, nn

from cm2pyro.config import Priors
from cm2pyro.diagnostics.metrics import Ranking
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.start import start_values
from cm2pyro.models.fusion import MLPFusion
from cm2pyro.models.priors import site_priors

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_FLOOR = 0.05  # sd; latents have sd 1
_TRAIN_DRAWS, _TEST_DRAWS = 4, 16  # per component
_COPIES = 4  # of each labelled row, with modalities hidden at random: modality dropout, the same for every method


@dataclass
class Run:
    """Test predictions of every method for one draw of labels.

    Attributes:
        group: test rows are those of this fold or data set. seed: of the draw. y: (n,) labels. p: method -> (n,).
    """

    group: int
    seed: int
    y: NDArray[np.int64]
    p: dict[str, Array] = field(default_factory=dict)


def fit_mixture(z: Array, observed: Mask, family: str, components: int, seed: int = 0, steps: int = 60) -> CopulaMixture:
    """The mixture at its maximum a posteriori, with the package's default priors: z (N, M, D), observed (N, M)."""
    structure = MixtureStructure(z.shape[1], z.shape[2], components, family=family, scale_floor=_FLOOR)
    latents, mask = torch.from_numpy(np.where(observed[..., None], z, 0.0)), torch.from_numpy(observed)
    priors = site_priors(structure, Priors())
    start = {name: value.double() for name, value in start_values(structure, latents.float(), mask, 3, seed).items()}
    values, _ = maximise(structure, priors, start, list(priors), latents, mask, steps=steps, seed=seed)
    return structure.build(values)


def complete(mixture: CopulaMixture, z: Array, observed: Mask, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """(T S, n, M, D) completions and (T S, n) their log weights; every row uses the same noise."""
    normal = torch.randn((draws, 1, *z.shape[1:]), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    latents = torch.from_numpy(np.where(observed[..., None], z, 0.0)).expand(draws, *z.shape)
    mask = torch.from_numpy(observed).expand(draws, *observed.shape)
    with torch.no_grad():
        filled, log_r = mixture.completions(latents, mask, normal.expand_as(latents))
    return filled.flatten(0, 1), log_r.flatten(0, 1) - float(np.log(draws))


class Head(nn.Module):
    """The outcome's log odds: z (..., M, D) -> (...)."""

    def __init__(self, modalities: int, dim: int, layers: int) -> None:
        super().__init__()
        self.fusion = MLPFusion(modalities, dim, hidden=16, layers=layers)
        self.out = nn.Linear(self.fusion.width, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.fusion(z))[..., 0]


def fit_head(filled: Tensor, log_weights: Tensor, y: NDArray[np.int64], share: float, l2: float, layers: int, seed: int) -> Head:
    """Maximise share Σ_i log Σ_l w_il p(y_i | z_il) − ½ l2 |weights|² by L-BFGS; biases are free."""
    torch.manual_seed(seed)
    head = Head(*filled.shape[-2:], layers).double()
    sign = torch.from_numpy(np.where(y > 0, 1.0, -1.0))
    matrices = [p for p in head.parameters() if p.dim() > 1]
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        fit = torch.logsumexp(log_weights + nn.functional.logsigmoid(sign * head(filled)), 0).sum()
        loss = 0.5 * l2 * torch.stack([(w**2).sum() for w in matrices]).sum() - share * fit
        loss.backward()
        return loss

    optimiser.step(closure)
    return head


def predict(head: Head, filled: Tensor, log_weights: Tensor) -> Array:
    with torch.no_grad():
        return (log_weights.exp() * torch.sigmoid(head(filled))).sum(0).numpy()


def with_dropout(z: Array, observed: Mask, y: NDArray[np.int64], seed: int, rate: float = 0.3) -> tuple[Array, Mask, NDArray[np.int64]]:
    """The rows as they are and `_COPIES` times with modalities hidden; a row that would lose everything keeps what it has."""
    rng = np.random.default_rng(seed)
    masks = [observed]
    for _ in range(_COPIES):
        kept = observed & (rng.random(observed.shape) >= rate)
        masks.append(np.where(kept.any(1, keepdims=True), kept, observed))
    return np.tile(z, (_COPIES + 1, 1, 1)), np.concatenate(masks), np.tile(y, _COPIES + 1)


def ours(mixture: CopulaMixture, rows: tuple[Array, Mask, NDArray[np.int64]], l2: float, layers: int, seed: int) -> Callable[..., Array]:
    """The head on completions of `with_dropout` rows; returns completions of test rows -> probabilities."""
    z, observed, y = rows
    head = fit_head(*complete(mixture, z, observed, _TRAIN_DRAWS, seed), y, 1 / (_COPIES + 1), l2, layers, seed)
    return lambda filled, log_weights: predict(head, filled, log_weights)


def side_by_side(z: Array, observed: Mask) -> Array:
    """(n, M D + M): latents with zeros where missing, and the indicators."""
    return np.concatenate([np.where(observed[..., None], z, 0.0).reshape(len(z), -1), observed.astype(float)], 1)


def zero_filled(rows: tuple[Array, Mask, NDArray[np.int64]], l2: float) -> Callable[[Array, Mask], Array]:
    """Logistic regression on zero-filled latents and indicators, fitted to the same rows with the same penalty."""
    z, observed, y = rows
    model = LogisticRegression(C=1 / l2, max_iter=3000).fit(side_by_side(z, observed), y, np.full(len(y), 1 / (_COPIES + 1)))
    return lambda z, observed: model.predict_proba(side_by_side(z, observed))[:, 1]


def fit_imputer(z: Array, observed: Mask) -> IterativeImputer:
    """Chained Bayesian ridge regressions over all latents, on the unlabelled rows as well."""
    return IterativeImputer(BayesianRidge(), max_iter=10, tol=1e-2, random_state=0).fit(_blank(z, observed))


def ridge_filled(imputer: IterativeImputer, rows: tuple[Array, Mask, NDArray[np.int64]], l2: float) -> Callable[[Array, Mask], Array]:
    """Logistic regression on latents that `fit_imputer` filled."""
    z, observed, y = rows
    model = LogisticRegression(C=1 / l2, max_iter=3000)
    model.fit(imputer.transform(_blank(z, observed)), y, np.full(len(y), 1 / (_COPIES + 1)))
    return lambda z, observed: model.predict_proba(imputer.transform(_blank(z, observed)))[:, 1]


def _blank(z: Array, observed: Mask) -> Array:
    return np.where(observed[..., None], z, np.nan).reshape(len(z), -1)


def log_loss(y: NDArray[np.int64], p: Array) -> Array:
    """(n,) −log p(y)."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.where(y > 0, np.log(p), np.log1p(-p))


@dataclass(frozen=True)
class Difference:
    """A paired difference of means: `over_subjects` and `over_seeds` are 95% intervals."""

    value: float
    over_subjects: tuple[float, float]
    over_seeds: tuple[float, float]


def compared(runs: list[Run], bootstrap: int) -> dict[str, tuple[tuple[float, float], tuple[Difference, Difference] | None]]:
    """Per method its log-loss and AUROC, averaged over runs, and the first method minus it in both (None for the first itself).

    Intervals over subjects: percentile bootstrap, test rows resampled within their group, the same resample for every run that
    is tested on it. Over seeds: Student's t of the seeds' mean differences.
    """
    rng = np.random.default_rng(0)
    sizes = {r.group: len(r.y) for r in runs}
    weights = {g: np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=bootstrap)]) for g, n in sorted(sizes.items())}
    measured = {name: np.array([_measured(r, name, weights[r.group]) for r in runs]) for name in runs[0].p}  # (runs, 2, 1 + bootstrap)
    seeds = np.array([r.seed for r in runs])
    reference = next(iter(measured.values()))
    found = {}
    for name, values in measured.items():
        both = (_difference(reference[:, 0] - values[:, 0], seeds), _difference(reference[:, 1] - values[:, 1], seeds))
        found[name] = ((float(values[:, 0, 0].mean()), float(values[:, 1, 0].mean())), None if values is reference else both)
    return found


def _measured(run: Run, method: str, weights: Array) -> tuple[Array, Array]:
    """Log-loss and AUROC, (B,) each, under row weights (B, n)."""
    losses = weights @ log_loss(run.y, run.p[method]) / weights.sum(1)
    return losses, Ranking.of(run.y > 0, run.p[method]).metrics(weights)[0]


def _difference(differences: Array, seeds: NDArray[np.int64]) -> Difference:
    """differences (runs, 1 + bootstrap), the first column without resampling."""
    by_seed = np.array([differences[seeds == s, 0].mean() for s in np.unique(seeds)])
    half = float(t.ppf(0.975, len(by_seed) - 1) * by_seed.std(ddof=1) / np.sqrt(len(by_seed)))
    low, high = np.nanpercentile(differences[:, 1:].mean(0), [2.5, 97.5])
    centre = float(by_seed.mean())
    return Difference(float(differences[:, 0].mean()), (float(low), float(high)), (centre - half, centre + half))

"""The search for the best maximum of one family and number of components."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from cm2pyro import sites
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.ascent import ascend
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.inference.leave_out import MOST_PARAMETERS
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.start import start_margins

Values = dict[str, Tensor]
MARGINS = (sites.WEIGHTS, sites.LOCS, sites.SCALES)
_SAME = 0.5  # components that differ by less, in scales, are the same start
_FEW, _MANY = 40, 200  # steps from every start, and from where the best have come
_SOME = 1000  # rows for the few steps
_WITHIN, _EQUAL = 5.0, 0.01  # nats behind the best in which another end is followed; in which it is the same


class Search:
    """The best maximum of one family and K so far.

    Attributes:
        values, objective: there, log likelihood + log prior. optima: objectives of all that were reached. seconds: spent so far.
    """

    def __init__(self, structure: MixtureStructure, priors: dict[str, TorchDistribution], z: Tensor, observed: Tensor, seed: int) -> None:
        self.structure, self.priors = structure, priors
        self.z, self.observed, self.seed = z, observed, seed
        self.values: Values = {}
        self.objective = -torch.inf
        self.optima: list[float] = []
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what the block takes among `seconds`."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def climb(self, starts: Sequence[Values]) -> None:
        """A few steps from every start, on some of the rows; then on from the best, and from the second where it is close behind."""
        reached = sorted((self._maximise(start, _FEW, slice(_SOME)) for start in starts), key=lambda end: -end[0])
        share = min(1.0, _SOME / len(self.z))
        for i, (objective, values) in enumerate(reached[:2]):
            behind = (reached[0][0] - objective) / share
            if i == 0 or _EQUAL / share < behind < _WITHIN / share:
                self._keep(*self._ascend(values))

    def visit(self, start: Values) -> None:
        """A few steps from where another search has ended, and on if they come near the maximum that is known."""
        objective, values = self._maximise(start, _FEW)
        if objective > self.objective - _WITHIN:
            self._keep(*self._ascend(values))

    def _keep(self, objective: float, values: Values) -> None:
        self.optima.append(objective)
        if objective > self.objective:
            self.values, self.objective = values, objective

    def _maximise(self, start: Values, steps: int, rows: slice = slice(None)) -> tuple[float, Values]:
        z, observed = self.z[rows], self.observed[rows]
        values, likelihood = maximise(self.structure, self.priors, start, list(start), z, observed, steps=steps, seed=self.seed)
        return likelihood + self.log_prior(values), values

    def _ascend(self, start: Values) -> tuple[float, Values]:
        free = FreeSites(self.structure, self.priors, start)
        if len(free.vector) > MOST_PARAMETERS:
            return self._maximise(start, _MANY)
        end = ascend(free, free.vector, self.z, self.observed)
        with torch.no_grad():
            return float(free.objective(end.x, self.z, self.observed)), free.values(end.x)

    def log_prior(self, values: Values) -> float:
        """Of the sites' values."""
        return sum(float(self.priors[name].log_prob(value).sum()) for name, value in values.items())

    @property
    def likelihood(self) -> float:
        """Log likelihood at `values`."""
        return self.objective - self.log_prior(self.values)


def starts(structure: MixtureStructure, z: Tensor, observed: Tensor, restarts: int, seed: int) -> list[tuple[Values, Tensor]]:
    """Margins and residual tau of every different mixture start."""
    kept: list[tuple[Values, Tensor]] = []
    for i in range(restarts):
        # One restart may be drawn to a bad place that the best of several never shows; a copula can make it the better one.
        values, tau = start_margins(structure, z, observed, 1, seed + i)
        if not any(alike(values, other) for other, _ in kept):
            kept.append((values, tau))
    return kept


def alike(a: Values, b: Values) -> bool:
    """Whether two mixtures have the same components, in whatever order."""

    def ordered(values: Values) -> Tensor:
        order = values[sites.LOCS][0, :, 0].argsort()
        return torch.stack([values[sites.LOCS][:, order], values[sites.SCALES][:, order]])

    one, other = ordered(a), ordered(b)
    return bool(((one - other).abs() <= _SAME * torch.minimum(one[1], other[1])).all())


def split(structure: MixtureStructure, values: Values) -> Values:
    """A start with more components: the heaviest of each modality doubled, the two half a scale to either side."""
    M, K = structure.modalities, values[sites.LOCS].shape[1]
    more = structure.components
    if structure.coupling == "full":
        table = values[sites.WEIGHTS].reshape([K] * M)
        heaviest = [int(table.sum([i for i in range(M) if i != m]).argmax()) for m in range(M)]
    else:
        heaviest = [int(values[sites.WEIGHTS].argmax())] * M
    pick = torch.stack([torch.cat([torch.arange(K), torch.full((more - K,), h)]) for h in heaviest])  # (M, K')
    rows = torch.arange(M)[:, None]
    locs, scales = values[sites.LOCS][rows, pick].clone(), values[sites.SCALES][rows, pick]
    side = torch.linspace(-0.5, 0.5, more - K + 1, dtype=locs.dtype)
    for m, h in enumerate(heaviest):
        members = torch.cat([torch.tensor([h]), torch.arange(K, more)])
        locs[m, members] += side[:, None] * scales[m, members]
    share = torch.stack([1 / torch.bincount(row, minlength=K)[row] for row in pick])  # (M, K')
    if structure.coupling == "full":
        picked = pick[torch.arange(M), structure.assignment]  # (T', M)
        weights = table[tuple(picked.unbind(1))] * share[torch.arange(M), structure.assignment].prod(1)
    else:
        weights = values[sites.WEIGHTS][pick[0]] * share[0]
    return values | {sites.LOCS: locs, sites.SCALES: scales, sites.WEIGHTS: weights / weights.sum()}


def mixed(structure: MixtureStructure, searches: dict[str, Search]) -> Values:
    """A start of the mixture of families: margins of the best, every family's own parameters, half of the weight to the best."""
    best = max(searches, key=lambda name: searches[name].objective)
    start = {site: searches[best].values[site] for site in MARGINS}
    for name, search in searches.items():
        for site, value in search.values.items():
            if site not in MARGINS:
                start[sites.copula(name, site.removeprefix(sites.COPULA).removeprefix("_"))] = value
    share = torch.tensor([0.5 if name == best else 0.5 / (len(searches) - 1) for name in structure.families], dtype=torch.float64)
    return start | {sites.copula("weights"): share}

"""Copula families and numbers of components, each fitted to the same latents and judged out of sample."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Priors
from cm2pyro.distributions.copulas import FAMILIES
from cm2pyro.distributions.copulas.learned import MIXTURE
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference.leave_out import LeftOut, Sites, leave_out
from cm2pyro.inference.maximise import maximise
from cm2pyro.inference.start import start_margins
from cm2pyro.models.priors import site_priors
from cm2pyro.registry import nearest

Values = dict[str, Tensor]
_MOST_ROWS = 20_000  # more would not change a choice by what matters
_LEAST_SUBJECTS = 20
_SAME = 0.5  # components that differ by less, in scales, are the same start
_ANOTHER = 1.0  # nats between objectives from which two starts have ended in different optima
_FEW, _MANY = 40, 200  # steps from every start, and from where the best have come
_SOME = 1000  # rows for the few steps
_WITHIN, _EQUAL = 5.0, 0.01  # nats behind the best in which another end is followed; in which it is the same
_MARGINS = (sites.WEIGHTS, sites.LOCS, sites.SCALES)


@dataclass(frozen=True)
class Candidate:
    """One family with one number of components, at the best maximum found.

    Attributes:
        family: a name, or `mixture` of `families`. components: K. parameters: free ones; of these `copula_parameters` in the copula.
        fit: out-of-sample fit and values. optima: objectives at which the starts ended, best first.
    """

    structure: MixtureStructure
    parameters: int
    copula_parameters: int
    fit: LeftOut
    optima: tuple[float, ...]

    @property
    def family(self) -> str:
        return self.structure.family

    @property
    def components(self) -> int:
        return self.structure.components

    @property
    def simplicity(self) -> tuple[int, int, int]:
        """What a tie is settled by, smaller first: K, a mixture of families or not, parameters of the copula."""
        return self.components, int(self.family == MIXTURE), self.copula_parameters

    @property
    def local_optima(self) -> int:
        """Optima that lie more than a nat below the best and below each other."""
        kept = [self.optima[0]]
        for value in self.optima[1:]:
            if kept[-1] - value > _ANOTHER:
                kept.append(value)
        return len(kept) - 1


def candidate_structures(
    structure: MixtureStructure, families: Sequence[str], components: Sequence[int]
) -> dict[tuple[str, int], MixtureStructure]:
    """(family, K) -> structure.

    Raises:
        ConfigError: nothing to choose from, an unknown family, one that cannot tie M modalities, too many components.
    """
    for name in families:
        if name != MIXTURE and name not in FAMILIES.names():
            raise ConfigError(f"--families: unknown copula family '{name}'; {nearest(name, [*FAMILIES.names(), MIXTURE])}")
    if len(set(families)) < len(families):
        raise ConfigError(f"--families: found {', '.join(families)}, expected different ones; name each once")
    if MIXTURE in families and len(families) < 3:
        raise ConfigError(
            f"--families: {MIXTURE} is of the other families named, found {len(families) - 1}, expected two or more; add some"
        )
    if len(set(components)) < len(components) or any(K < 1 for K in components):
        raise ConfigError(
            f"--components: found {','.join(map(str, components))}, expected different numbers from 1 on; for example 1,2,3,4"
        )
    if len(families) * len(components) < 2:
        raise ConfigError(
            f"--families, --components: {len(families)} families and {len(components)} numbers leave nothing to choose; name two or more"
        )
    single = tuple(name for name in families if name != MIXTURE)
    if structure.modalities < 2 and len(families) > 1:
        raise ConfigError("--families: the config has one modality, and a copula ties two or more; name one family and choose K alone")
    return {
        (name, K): dataclasses.replace(structure, components=K, family=name, families=single if name == MIXTURE else ())
        for K in components
        for name in families
    }


def without_copula(priors: Priors) -> Priors:
    """Priors of the sites that every family has; the copula's own are its defaults."""
    return Priors(weights=priors.weights, locs=priors.locs, scales=priors.scales, head=priors.head, head_bias=priors.head_bias)


def select(
    structure: MixtureStructure,
    z: Tensor,
    observed: Tensor,
    families: Sequence[str],
    components: Sequence[int] = (1, 2, 3, 4),
    subjects: Tensor | None = None,
    priors: Priors | None = None,
    restarts: int = 3,
    seed: int = 0,
    folds: int = 10,
    report: Callable[[Candidate, float], None] | None = None,
) -> list[Candidate]:
    """Fit all global sites for every family and K to the same latents, and score each fit on subjects that it has not seen.

    Each is maximised a posteriori from every different one of `restarts` mixture starts, then from the locations at which the best
    family of the same K has ended, if they are others, and from its own fit with one component fewer, if that has the greater
    likelihood; the best maximum is kept. `mixture` starts from the best of its families.

    Args:
        structure: modalities, dimensions, coupling and floor; its family and number of components are not used.
        z: (N, M, D) latents of one fit. observed: (N, M) bool; what is missing is integrated out, rows without anything are dropped.
        families: names; `mixture` is of the others named. components: values of K. subjects: (N,) codes; by default each row its own.
        priors: of weights, locations and scales; the copula has its family's own. folds, seed: see `leave_out`.
        report: called with every candidate and the seconds that it took.

    Raises:
        ConfigError: nothing to choose from, an unknown family, one that cannot tie M modalities. DataError: fewer than 20 subjects.
    """
    made = candidate_structures(structure, families, components)
    z, observed, subjects = _rows(z, observed, subjects, seed)
    priors = without_copula(priors or Priors())
    single = [name for name in families if name != MIXTURE]
    searches: dict[tuple[str, int], _Search] = {}
    found = []
    for K in sorted(components):
        margins = _starts(made[single[0], K], z, observed, restarts, seed)
        fewer = max((k for k in components if k < K), default=None)
        for name in single:
            started = time.perf_counter()
            search = searches[name, K] = _Search(made[name, K], priors, z, observed, seed)
            search.climb([values | search.structure.copula.start(tau) for values, tau in margins])
            if fewer is not None and search.likelihood < searches[name, fewer].likelihood:
                search.visit(_split(search.structure, searches[name, fewer].values))
            search.seconds += time.perf_counter() - started
        best = max((searches[name, K] for name in single), key=lambda search: search.objective)
        for name in single:
            search, started = searches[name, K], time.perf_counter()
            if not _alike(search.values, best.values):
                search.visit(search.values | {site: best.values[site] for site in _MARGINS})
            search.seconds += time.perf_counter() - started
        if MIXTURE in families:
            started = time.perf_counter()
            search = searches[MIXTURE, K] = _Search(made[MIXTURE, K], priors, z, observed, seed)
            search.climb([_mixed(search.structure, {name: searches[name, K] for name in single})])
            search.seconds = time.perf_counter() - started
        for name in families:
            search, started = searches[name, K], time.perf_counter()
            fit = leave_out(search.structure, search.priors, search.values, z, observed, subjects, folds, seed)
            copula = Sites(search.structure, search.priors, {s: v for s, v in fit.values.items() if s not in _MARGINS} or fit.values)
            tied = len(copula.vector) if len(copula.shapes) < len(fit.values) else 0
            parameters = len(Sites(search.structure, search.priors, fit.values).vector)
            # Where the search stopped a little early, the jackknife has gone on.
            optima = tuple(sorted([fit.objective, *sorted(search.optima)[:-1]], reverse=True))
            found.append(Candidate(search.structure, parameters, tied, fit, optima))
            if report is not None:
                report(found[-1], search.seconds + time.perf_counter() - started)
    return found


class _Search:
    """The best maximum of one family and K so far."""

    def __init__(self, structure: MixtureStructure, priors: Priors, z: Tensor, observed: Tensor, seed: int) -> None:
        self.structure, self.priors = structure, site_priors(structure, priors)
        self.z, self.observed, self.seed = z, observed, seed
        self.values: Values = {}
        self.objective = -torch.inf
        self.optima: list[float] = []
        self.seconds = 0.0

    def climb(self, starts: Sequence[Values]) -> None:
        """A few steps from every start, on some of the rows; then on from the best, and from the second where it is close behind."""
        reached = sorted((self._maximise(start, _FEW, slice(_SOME)) for start in starts), key=lambda end: -end[0])
        share = min(1.0, _SOME / len(self.z))
        for i, (objective, values) in enumerate(reached[:2]):
            behind = (reached[0][0] - objective) / share
            if i == 0 or _EQUAL / share < behind < _WITHIN / share:
                self._keep(*self._maximise(values, _MANY))

    def visit(self, start: Values) -> None:
        """A few steps from where another search has ended, and on if they come near the maximum that is known."""
        objective, values = self._maximise(start, _FEW)
        if objective > self.objective - _WITHIN:
            self._keep(*self._maximise(values, _MANY))

    def _keep(self, objective: float, values: Values) -> None:
        self.optima.append(objective)
        if objective > self.objective:
            self.values, self.objective = values, objective

    def _maximise(self, start: Values, steps: int, rows: slice = slice(None)) -> tuple[float, Values]:
        z, observed = self.z[rows], self.observed[rows]
        values, likelihood = maximise(self.structure, self.priors, start, list(start), z, observed, steps=steps, seed=self.seed)
        return likelihood + self.log_prior(values), values

    def log_prior(self, values: Values) -> float:
        return sum(float(self.priors[name].log_prob(value).sum()) for name, value in values.items())

    @property
    def likelihood(self) -> float:
        return self.objective - self.log_prior(self.values)


def _rows(z: Tensor, observed: Tensor, subjects: Tensor | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is scored, on the CPU in float64: rows with something observed, of at most 20,000 rows whole subjects drawn by chance."""
    z, observed = z.detach().cpu().double(), observed.cpu()
    subjects = torch.arange(len(z)) if subjects is None else subjects.cpu()
    kept = observed.any(1)
    if int(kept.sum()) > _MOST_ROWS:
        order = torch.randperm(int(subjects.max()) + 1, generator=torch.Generator().manual_seed(seed))
        rank = torch.argsort(order)[subjects]  # of the row's subject
        counts = torch.bincount(rank[kept]).cumsum(0)
        kept = kept & (counts[rank] <= _MOST_ROWS)
    # Shuffled, so that the first rows are a fair sample.
    order = torch.randperm(int(kept.sum()), generator=torch.Generator().manual_seed(seed))
    z, observed, subjects = z[kept][order], observed[kept][order], subjects[kept][order].unique(return_inverse=True)[1]
    count = int(subjects.max()) + 1 if len(subjects) else 0
    if count < _LEAST_SUBJECTS:
        raise DataError(f"select: found {count} subjects with an observed modality, expected {_LEAST_SUBJECTS} or more; give more rows")
    return z, observed, subjects


def _starts(structure: MixtureStructure, z: Tensor, observed: Tensor, restarts: int, seed: int) -> list[tuple[Values, Tensor]]:
    """Margins and residual tau of every different mixture start."""
    kept: list[tuple[Values, Tensor]] = []
    for i in range(restarts):
        # One restart may be drawn to a bad place that the best of several never shows; a copula can make it the better one.
        values, tau = start_margins(structure, z, observed, 1, seed + i)
        if not any(_alike(values, other) for other, _ in kept):
            kept.append((values, tau))
    return kept


def _alike(a: Values, b: Values) -> bool:
    """Whether two mixtures have the same components, in whatever order."""

    def ordered(values: Values) -> Tensor:
        order = values[sites.LOCS][0, :, 0].argsort()
        return torch.stack([values[sites.LOCS][:, order], values[sites.SCALES][:, order]])

    one, other = ordered(a), ordered(b)
    return bool(((one - other).abs() <= _SAME * torch.minimum(one[1], other[1])).all())


def _split(structure: MixtureStructure, values: Values) -> Values:
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


def _mixed(structure: MixtureStructure, searches: dict[str, _Search]) -> Values:
    """A start of the mixture of families: margins of the best, every family's own parameters, half of the weight to the best."""
    best = max(searches, key=lambda name: searches[name].objective)
    start = {site: searches[best].values[site] for site in _MARGINS}
    for name, search in searches.items():
        for site, value in search.values.items():
            if site not in _MARGINS:
                start[sites.copula(name, site.removeprefix(sites.COPULA).removeprefix("_"))] = value
    share = torch.tensor([0.5 if name == best else 0.5 / (len(searches) - 1) for name in structure.families], dtype=torch.float64)
    return start | {sites.copula("weights"): share}

"""Copula families and numbers of components, each fitted to the same latents and judged out of sample."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from cm2pyro.config import Priors
from cm2pyro.distributions.copulas import FAMILIES
from cm2pyro.distributions.copulas.learned import MIXTURE
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference.free_sites import FreeSites
from cm2pyro.inference.leave_out import LeftOut, leave_out
from cm2pyro.inference.search import MARGINS, Search, alike, mixed, split, starts
from cm2pyro.models.priors import Given, site_priors
from cm2pyro.registry import nearest

_MOST_ROWS = 20_000  # more would not change a choice by what matters
_LEAST_SUBJECTS = 20
_ANOTHER = 1.0  # nats between objectives from which two starts have ended in different optima


@dataclass(frozen=True)
class Candidate:
    """One family with one number of components, at the best maximum found.

    Attributes:
        structure: with the family and K. parameters: free ones; of these `copula_parameters` in the copula.
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
        if name == MIXTURE:
            continue
        if name not in FAMILIES:
            raise ConfigError(f"--families: unknown copula family '{name}'; {nearest(name, [*FAMILIES.names(), MIXTURE])}")
        FAMILIES.get(name, "--families")
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


def margin_priors(structure: MixtureStructure, priors: Priors, given: Given | None = None) -> dict[str, TorchDistribution]:
    """Priors of a candidate's sites, those of the copula the family's own, whatever `priors` and `given` have for it.

    Args:
        given: site -> a prior in place of what `priors` says, see `site_priors`; for several K a callable from the site's shape to one.

    Raises:
        ConfigError: a prior whose shape or support does not fit.
    """
    return site_priors(structure, without_copula(priors), {site: prior for site, prior in (given or {}).items() if site in MARGINS})


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
    given: Given | None = None,
) -> list[Candidate]:
    """Fit all global sites for every family and K to the same latents, and score each fit on subjects that it has not seen.

    Each is maximised a posteriori from every different one of `restarts` mixture starts, then from the locations at which the best
    family of the same K has ended, if they are others, and from its own fit with one component fewer, if that has the greater
    likelihood; the best maximum is kept. `mixture` starts from the best of its families. Where one candidate can only be scored in folds
    (see `leave_out`), so are all of its K.

    Args:
        structure: modalities, dimensions, coupling and floor; its family and number of components are not used.
        z: (N, M, D) latents of one fit. observed: (N, M) bool; what is missing is integrated out, rows without anything are dropped.
        families: names; `mixture` is of the others named. components: values of K. subjects: (N,) codes; by default each row its own.
        priors: of weights, locations and scales; the copula has its family's own. folds, seed: see `leave_out`.
        report: called with every candidate and the seconds that it took. given: see `margin_priors`.

    Raises:
        ConfigError: nothing to choose from, an unknown family, one that cannot tie M modalities, a prior that does not fit.
        DataError: fewer than 20 subjects.
    """
    made = candidate_structures(structure, families, components)
    z, observed, subjects = _rows(z, observed, subjects, seed)
    searches = {key: Search(shape, margin_priors(shape, priors or Priors(), given), z, observed, seed) for key, shape in made.items()}
    found = []
    for K in sorted(components):
        fewer = max((k for k in components if k < K), default=None)
        own = {name: searches[name, K] for name in families}
        _search(own, {} if fewer is None else {name: searches[name, fewer] for name in families}, restarts)
        found += _scored(own, subjects, folds, report)
    return found


def _search(searches: dict[str, Search], fewer: dict[str, Search], restarts: int) -> None:
    """Search for the best maximum of every family with one K; `fewer`: those of the next smaller K, if there is one."""
    single = {name: search for name, search in searches.items() if name != MIXTURE}
    first = next(iter(single.values()))
    margins = starts(first.structure, first.z, first.observed, restarts, first.seed)
    for name, search in single.items():
        with search.timed():
            search.climb([values | search.structure.copula.start(tau) for values, tau in margins])
            if fewer and search.likelihood < fewer[name].likelihood:
                search.visit(split(search.structure, fewer[name].values))
    best = max(single.values(), key=lambda search: search.objective)
    for search in single.values():
        with search.timed():
            if not alike(search.values, best.values):
                search.visit(search.values | {site: best.values[site] for site in MARGINS})
    if MIXTURE in searches:
        search = searches[MIXTURE]
        with search.timed():
            search.climb([mixed(search.structure, single)])


def _scored(
    searches: dict[str, Search], subjects: Tensor, folds: int, report: Callable[[Candidate, float], None] | None
) -> list[Candidate]:
    """The candidates of one K, out of sample."""
    scored: dict[str, Candidate] = {}

    def score(name: str, in_folds: bool) -> None:
        search, started = searches[name], time.perf_counter()
        fit = leave_out(search.structure, search.priors, search.values, search.z, search.observed, subjects, folds, search.seed, in_folds)
        scored[name] = _candidate(search, fit)
        if report is not None:
            report(scored[name], search.seconds + time.perf_counter() - started)

    for name in searches:
        score(name, False)
    # Folds leave out more than a subject at a time, and are harsher by more than families differ: all of a K, or none.
    if any(candidate.fit.in_folds for candidate in scored.values()):
        for name in [name for name in searches if not scored[name].fit.in_folds]:
            score(name, True)
    return [scored[name] for name in searches]


def _candidate(search: Search, fit: LeftOut) -> Candidate:
    copula = FreeSites(search.structure, search.priors, {s: v for s, v in fit.values.items() if s not in MARGINS} or fit.values)
    tied = len(copula.vector) if len(copula.shapes) < len(fit.values) else 0
    parameters = len(FreeSites(search.structure, search.priors, fit.values).vector)
    # Where the search stopped a little early, the jackknife has gone on.
    optima = tuple(sorted([fit.objective, *sorted(search.optima)[:-1]], reverse=True))
    return Candidate(search.structure, parameters, tied, fit, optima)


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

"""What a report is made from: latents, mixture, history and predictions, gathered once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.diagnostics.evaluation import Evaluation
from cm2pyro.distributions.copulas.base import Copula, tau_of_pair
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.program import Program
from cm2pyro.inference.run import best_record
from cm2pyro.inference.snapshots import Values, chosen

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """Where a report comes from, in words: names alone, no paths.

    Attributes:
        run, data: names of the run and of the manifest. members: fits that were loaded. complete: whether the fit reached its end.
    """

    run: str
    data: str
    members: int = 1
    complete: bool = True
    versions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """N rows, M modalities, D latent dimensions, T joint components, on the CPU.

    Attributes:
        config: of the fit (of the first member of an ensemble). names: the modalities. classes: of the task.
        mixture: at the point estimate (or median) of the global sites. epochs: epoch -> mixture, as the run kept them.
        z: (N, M, D), one draw of every observed latent from the encoders' posterior (the latent itself where that is a point).
        observed: (N, M) bool. log_r: (N, T) log p(t | z_observed). component: (N,) long, one draw of t from it.
        history: a record an epoch. splits: (N,) train, val, test or "" where the manifest does not say.
        evaluation: of the labelled rows, positions `labelled` (n,); None without labels.
    """

    source: Source
    config: Config
    names: tuple[str, ...]
    classes: tuple[str, ...]
    given: tuple[str, ...]
    mixture: CopulaMixture
    epochs: dict[int, CopulaMixture]
    z: Tensor
    observed: Tensor
    log_r: Tensor
    component: Tensor
    history: Sequence[dict[str, Any]]
    splits: NDArray[Any]
    evaluation: Evaluation | None
    labelled: NDArray[np.int64]

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights the run keeps; 0 without a history."""
        best = best_record(self.history)
        return 0 if best is None else int(best["epoch"])

    @property
    def dim(self) -> int:
        return int(self.z.shape[-1])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Of modalities, by position."""
        return list(combinations(range(len(self.names)), 2))

    def pair_name(self, pair: tuple[int, int]) -> str:
        return f"{self.names[pair[0]]}~{self.names[pair[1]]}"

    def both(self, pair: tuple[int, int]) -> NDArray[np.int64]:
        """Rows in which both modalities were observed."""
        return self.observed[:, list(pair)].all(1).nonzero()[:, 0].numpy()

    @cached_property
    def scores(self) -> Array:
        """(N, M, D) normal scores (z − μ) / σ under the component drawn for the row: the pseudo-observations, before Φ."""
        p = self.mixture
        modality = torch.arange(len(self.names))
        chosen_components = p.assignment[self.component]  # (N, M)
        s = (self.z - p.locs[modality, chosen_components]) / p.scales[modality, chosen_components]
        return torch.where(self.observed[..., None], s, torch.nan).double().numpy()

    @cached_property
    def tau(self) -> Array:
        """(P, D): Kendall's tau inside components of every pair, per latent dimension."""
        return pair_tau(self.mixture.copula, self.pairs, self.dim)


def pair_tau(copula: Copula, pairs: Sequence[tuple[int, int]], dim: int) -> Array:
    """(P, D): Kendall's tau of some pairs."""
    with torch.no_grad():
        tau = copula.tau().double()
    columns = [tau_of_pair(tau, a, b).expand(dim).numpy() for a, b in pairs]
    return np.array(columns).reshape(len(pairs), dim)


def pair_copula(copula: Copula, pair: tuple[int, int], j: int) -> Copula:
    """The copula of two modalities in latent dimension j, batch shape ()."""
    one = copula.select(j) if copula.batch_shape else copula
    return one.margin(pair)


def gather(
    source: Source,
    program: Program,
    dataset: Dataset,
    splits: NDArray[Any],
    history: Sequence[dict[str, Any]],
    snapshots: dict[int, Values],
    classes: tuple[str, ...],
    evaluation: Evaluation | None,
    labelled: NDArray[np.int64],
) -> Material:
    """Encode every row once, draw its latents and its component (seed of the fit).

    Args:
        program: the fit to show. dataset: N rows. splits: (N,). snapshots: see `Snapshots`. evaluation: of the rows `labelled`.
    """
    config, seed = program.config, program.config.fit.seed
    z = latents(program, dataset, seed=seed).cpu()
    observed = dataset.observed.cpu()
    structure = program.structure
    mixture = structure.build({name: value.cpu() for name, value in program.values().items()}, program.margins_only)
    with torch.no_grad():
        log_r = mixture.responsibilities(z, observed)
        uniform = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(seed))
        component = (uniform > log_r.exp().cumsum(-1)).sum(-1).clamp_max(mixture.joint_components - 1)
    epochs = {epoch: structure.build(snapshots[epoch]) for epoch in chosen(list(snapshots))}
    given = tuple(name for name, encoder in zip(dataset.names, program.guide.encoders(), strict=True) if encoder.given)
    return Material(
        source, config, dataset.names, classes, given, mixture, epochs, z, observed, log_r, component, history, splits, evaluation, labelled
    )

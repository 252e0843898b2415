"""What is watched during a fit: the failure signatures of mixture, copula and latents."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.distributions.copulas.base import tau_of_pair
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.inference import distributed
from cm2pyro.inference.program import ROWS_AT_ONCE, Program, evaluating

_SETTLE = 5  # epochs
_ROWS, _COSTLY_ROWS = 2000, 256  # enough for means of responsibilities; of pictures and notes fewer, since each epoch encodes them again


@dataclass(frozen=True)
class Health:
    """State of the latents and their prior.

    Attributes:
        effective_components: modality -> exp(entropy of the mean responsibilities), 1 … K.
        tau: pair "a~b" -> Kendall's tau inside components, mean over latent dimensions.
        latent_sd: modality -> smallest sd of a latent dimension over samples.
    """

    effective_components: dict[str, float]
    tau: dict[str, float]
    latent_sd: dict[str, float]


def latents(program: Program, dataset: Dataset, seed: int | None = None) -> Tensor:
    """Locations of the observed latents, (N, M, D), in evaluation mode; with a seed one draw of each instead."""
    device = next(program.parameters()).device
    with evaluating([program]), torch.no_grad():
        mine = [program.guide.represent(batch.to(device)) for batch in distributed.batches(dataset, ROWS_AT_ONCE)]
    parts = mine if distributed.world() == 1 else distributed.interleaved([(loc.cpu(), scale.cpu()) for loc, scale in mine])
    loc, scale = (torch.cat(side).to(device) for side in zip(*parts, strict=True))
    if seed is None:
        return loc
    return loc + scale * torch.randn(loc.shape, generator=torch.Generator().manual_seed(seed)).to(loc)


def few_if_costly(program: Program, dataset: Dataset, rows: int) -> Dataset:
    """The first rows where encoders of pictures or notes are at work; else the whole data set."""
    costly = any(modality.kind in ("image", "text") for modality in program.config.modalities.values())
    return dataset.take(range(rows)) if costly and len(dataset) > rows else dataset


def health(program: Program, dataset: Dataset) -> Health:
    """Computed on the first rows: 2,000, or 256 where pictures or notes are encoded."""
    some = few_if_costly(program, dataset, _COSTLY_ROWS)
    some = some.take(range(min(_ROWS, len(some))))
    z, mixture, names = latents(program, some), program.mixture(), dataset.names
    observed = some.observed.to(z.device)
    responsibilities = mixture.responsibilities(z, observed).exp().mean(0)  # (T,)
    effective, spread = {}, {}
    for m, name in enumerate(names):
        share = responsibilities.new_zeros(mixture.locs.shape[1]).index_add(0, mixture.assignment[:, m], responsibilities)
        effective[name] = float(torch.special.entr(share).sum().exp())
        seen = z[observed[:, m], m]
        spread[name] = float(seen.std(0).min()) if len(seen) > 1 else float("nan")
    return Health(effective, pairwise_tau(mixture, names), spread)


def pairwise_tau(mixture: CopulaMixture, names: tuple[str, ...]) -> dict[str, float]:
    """Kendall's tau inside components per pair of modalities, mean over latent dimensions."""
    tau = mixture.copula.tau()
    pairs = combinations(range(len(names)), 2)
    return {f"{names[a]}~{names[b]}": float(tau_of_pair(tau, a, b).mean()) for a, b in pairs}


def copula_gradient(program: Program) -> Tensor | None:
    """(), norm of the last gradient of the loss with respect to the copula's unconstrained site; None without such a site."""
    found = [p.grad for name, p in program.guide.globals.named_parameters() if sites.COPULA in name and p.grad is not None]
    if not found:
        return None
    return torch.stack([g.norm() for g in found]).norm()


def warnings(config: Config, epoch: int, state: Health, kl: dict[str, float], gradient: float | None) -> dict[str, str]:
    """Signature -> message, for what looks wrong after that many epochs; the first few are given to settle."""
    found: dict[str, str] = {}
    if epoch < _SETTLE:
        return found
    for name, value in state.effective_components.items():
        if config.prior.components > 1 and value < 1.05:
            found[f"collapse {name}"] = (
                f"mixture collapse: modality {name} uses {value:.2f} of {config.prior.components} components; try fewer, or another seed"
            )
    for name, value in state.latent_sd.items():
        if value < 0.01:
            found[f"latent {name}"] = (
                f"latent collapse: a latent dimension of {name} has sd {value:.1e} over samples; lower fit.beta or latent.dim"
            )
    random = {name for name, m in config.modalities.items() if m.encoder != "identity"} if config.guide.local == "normal" else set()
    for name in random & set(kl):
        if kl[name] / config.latent.dim < 0.01:
            found[f"unused {name}"] = (
                f"unused latents: those of {name} carry {kl[name] / config.latent.dim:.1e} nats a dimension; lower fit.beta"
            )
    if gradient is not None and gradient < 1e-10:
        found["copula"] = f"dead copula: the gradient of its parameter is {gradient:.1e}; tau will not move"
    return found

"""The posterior of the global sites and of the outcome's head, given a fit whose encoders stand still."""

import copy
import math

import torch
from torch import Tensor, nn

from cm2pyro.data.dataset import Dataset
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.errors import ConfigError
from cm2pyro.inference.mcmc import Potential, Values
from cm2pyro.inference.monitor import latents
from cm2pyro.inference.program import Program
from cm2pyro.models import as_head

_COMPLETIONS = 4  # of missing latents per component; what the model's likelihood asks for, if that is more


def frozen_potential(program: Program, dataset: Dataset, seed: int, asker: str = "guide.globals: nuts") -> Potential:
    """−log p(globals, head, z_observed, y) at β = 1, the latents of `dataset` held at one draw of q(z | x); given latents at themselves.

    The outcome is there where it says something: of all labelled rows where the head is a site, else of those that lack a modality,
    since for complete rows it depends on the latents alone. Missing latents are completed with noise that is drawn once, from `seed`:
    the likelihood of a row is the mean over its completions, weighted by the responsibilities, as in the model.

    Args:
        asker: what needs it, for the message.

    Raises:
        ConfigError: a guide or model that this cannot stand for.
    """
    config, model = program.config, program.model
    if config.guide.missing != "conditional" or config.prior.coupling != "shared" or model.missingness is not None:
        raise ConfigError(f"{asker} needs guide.missing conditional, prior.coupling shared and missingness.model ignorable")
    program.eval()
    z = latents(program, dataset, seed=seed).double()
    observed = dataset.observed.to(z.device)
    priors = dict(model.priors) | model.priors_of_head
    asked = dataset.labelled.to(z.device)
    if not model.priors_of_head:
        asked = asked & ~observed.all(1)
    if not bool(asked.any()):
        return Potential(program.structure, priors, z, observed)
    likelihood, labels = model.likelihood, dataset.labels.to(z.device)[asked]
    target, known = likelihood.labels(labels, z.dtype), likelihood.known(labels)
    some, seen = z[asked], observed[asked]
    complete = seen.all(1)
    like = next(program.parameters()).detach()
    fusion, linear = _held(model.fusion), None if model.head is None else _held(model.head)
    S = max(_COMPLETIONS, model.completions)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(S, *some[~complete].shape, generator=generator, dtype=torch.float64).to(z.device)
    features = _features(fusion, some[complete], like)
    holes, gaps = some[~complete], seen[~complete]

    def scored(outputs: Tensor, rows: Tensor, log_weights: Tensor | None = None) -> Tensor:
        part = None if known is None else known[rows]
        if log_weights is None:
            return likelihood.distribution(outputs, part).log_prob(target[rows]).sum()
        return likelihood.mixture(outputs, log_weights, part).log_prob(target[rows]).sum()

    def outcome(values: Values, mixture: CopulaMixture) -> Tensor:
        head, total = as_head(values), z.new_zeros(())
        if len(features) and head is not None:
            total = total + scored(features @ head[0].mT + head[1], complete)
        if len(holes):
            shape = (S, *gaps.shape)
            drawn, log_r = mixture.completions(holes.expand(S, *holes.shape), gaps.expand(shape), noise)
            found = _features(fusion, drawn.flatten(0, 1), like)
            outputs = found @ head[0].mT + head[1] if head is not None else linear(found.to(like)).double()  # type: ignore[misc]
            total = total + scored(outputs, ~complete, log_r.flatten(0, 1) - math.log(S))
        return total

    return Potential(program.structure, priors, z, observed, outcome)


def _held(module: nn.Module) -> nn.Module:
    """A copy that takes no gradients: those of the potential must not pile up in the fit's parameters."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def _features(fusion: nn.Module, z: Tensor, like: Tensor) -> Tensor:
    """Fused features in float64; the fusion computes in the type that it was fitted in."""
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrent networks have no derivative outside training
        features: Tensor = fusion(z.to(like)).double()
    return features

"""The generative model: priors, latents, fusion, likelihood."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cm2pyro.config import Config
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.models.auxiliary import AuxiliaryHeads
from cm2pyro.models.decoders import DECODERS, Decoder, check_decoders, make_decoders, register_decoder
from cm2pyro.models.fusion import FUSIONS
from cm2pyro.models.generative import Head, Model, as_head
from cm2pyro.models.likelihoods import LIKELIHOODS
from cm2pyro.models.priors import HEAD_SITES, Given, check_head, head_priors, register_prior, site_priors
from cm2pyro.models.selection import MISSINGNESS, missingness_options

__all__ = [
    "DECODERS",
    "FUSIONS",
    "LIKELIHOODS",
    "MISSINGNESS",
    "Decoder",
    "Given",
    "Head",
    "Model",
    "as_head",
    "check_model",
    "make_fusion",
    "make_model",
    "make_structure",
    "register_decoder",
    "register_prior",
]


def make_structure(config: Config) -> MixtureStructure:
    """The mixture's shape for a config. Raises ConfigError."""
    prior = config.prior
    return MixtureStructure(
        modalities=len(config.modalities),
        dim=config.latent.dim,
        components=prior.components,
        coupling=prior.coupling,
        family=prior.copula.family,
        tied=prior.copula.tied,
        scale_floor=prior.scale_floor,
        families=tuple(prior.copula.families or ()),
    )


def make_fusion(config: Config) -> nn.Module:
    """The fusion of a config, with attribute `width`. Raises ConfigError."""
    fusion, M = config.fusion, len(config.modalities)
    return FUSIONS.get(fusion.kind, "fusion.kind")(
        M, config.latent.dim, **FUSIONS.options(fusion.kind, fusion.options, "fusion", ("kind",))
    )


def check_model(config: Config, priors: Given | None = None) -> None:
    """Raises ConfigError if the model's part of the config is wrong, or priors given from Python; needs no data."""
    LIKELIHOODS.get(config.task.type, "task.type")
    FUSIONS.get(config.fusion.kind, "fusion.kind")
    FUSIONS.options(config.fusion.kind, config.fusion.options, "fusion", ("kind",))
    check_decoders(config)
    site_priors(make_structure(config), config.priors, priors)
    if config.priors.head is not None or any(site in (priors or {}) for site in HEAD_SITES):
        with torch.random.fork_rng(devices=[]):  # a network is made, only to be measured
            check_head(config.priors, _outputs(config), int(make_fusion(config).width), priors)  # type: ignore[arg-type]
    missingness_options(config)


def _outputs(config: Config) -> int | None:
    """Of the outcome's head; None where only the data know how many classes there are."""
    likelihood, labels = LIKELIHOODS.get(config.task.type, "task.type"), config.task.labels
    sizes = {likelihood(classes).outputs for classes in ([len(labels)] if labels else (3, 4))}
    return sizes.pop() if len(sizes) == 1 else None


def make_model(
    config: Config,
    classes: int,
    build: Callable[[dict[str, Tensor]], CopulaMixture],
    shapes: dict[str, dict[str, tuple[int, ...]]],
    priors: Given | None = None,
) -> Model:
    """The model of a config. Raises ConfigError: a prior that does not fit its site.

    Args:
        classes: how many, or how many labels. build: values of the global sites -> mixture.
        shapes: modality -> view -> shape of one row. priors: site -> prior given from Python, see `site_priors`.
    """
    structure = make_structure(config)
    names, make_likelihood = tuple(config.modalities), LIKELIHOODS.get(config.task.type, "task.type")
    weight = config.fit.auxiliary
    auxiliary = AuxiliaryHeads(names, config.latent.dim, [make_likelihood(classes) for _ in names], weight) if weight else None
    fusion = make_fusion(config)
    likelihood = make_likelihood(classes)
    return Model(
        names,
        build,
        site_priors(structure, config.priors, priors),
        fusion,
        likelihood,
        config.fit.beta,
        scores_missing=config.guide.scores_missing,
        decoders=make_decoders(config, shapes),
        auxiliary=auxiliary,
        completions=config.guide.completions,
        missingness=MISSINGNESS.get(config.missingness.model)(names, config.latent.dim, classes, **missingness_options(config)),
        priors_of_head=head_priors(config.priors, likelihood.outputs, int(fusion.width), priors),  # type: ignore[arg-type]
    )

"""The guide: amortized latents of observed modalities, treatment of missing ones, global sites."""

from collections.abc import Callable

from torch import Tensor

from cm2pyro.config import Config
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.encoders import Modules, Restored, make_encoder
from cm2pyro.guides.alignment import ALIGNMENTS, penalty
from cm2pyro.guides.globals import GLOBAL_GUIDES, GlobalGuide, Sampler
from cm2pyro.guides.local import LocalGuide
from cm2pyro.guides.variational import Guide

__all__ = ["ALIGNMENTS", "GLOBAL_GUIDES", "Guide", "make_global_guides", "make_guide", "penalty"]


def make_guide(
    config: Config,
    shapes: dict[str, dict[str, tuple[int, ...]]],
    sample_globals: Sampler,
    sample_head: Sampler | None,
    build: Callable[[dict[str, Tensor]], CopulaMixture],
    modules: Modules,
    restored: Restored | None = None,
) -> Guide:
    """The guide of a config.

    Args:
        shapes: modality -> view -> shape of one row. sample_globals: the model's global sites; sample_head: those of the outcome's
            head, if any. build: values -> mixture. modules: encoders given from Python. restored: as for `make_encoder`.
    """
    locals_ = {
        name: LocalGuide(
            make_encoder(config, name, shapes[name], modules, restored),
            config.latent.dim,
            config.guide.local == "delta",
            config.fit.precision,
        )
        for name in config.modalities
    }
    # What settles in the end is a point as long as the encoders learn: a guide with a spread would follow latents that move under it.
    name = "delta" if config.fit.settle else config.guide.globals
    globals_, head = make_global_guides(name, sample_globals, sample_head)
    return Guide(locals_, globals_, build, config.latent.dim, config.guide.missing, config.fit.beta, head)


def make_global_guides(name: str, sample_globals: Sampler, sample_head: Sampler | None) -> tuple[GlobalGuide, GlobalGuide | None]:
    """Guides called `name` of the mixture's sites and of the outcome's head, if it is a site."""
    make = GLOBAL_GUIDES.get(name, "guide.globals")
    return make(sample_globals, "globals"), None if sample_head is None else make(sample_head, "head")

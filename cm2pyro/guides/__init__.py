"""The guide: amortized latents of observed modalities, treatment of missing ones, global sites."""

from collections.abc import Callable

from torch import Tensor

from cm2pyro.config import Config
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.encoders import Modules, Restored, make_encoder
from cm2pyro.guides.alignment import ALIGNMENTS, penalty
from cm2pyro.guides.amortized import Guide
from cm2pyro.guides.globals import GLOBAL_GUIDES
from cm2pyro.guides.local import LocalGuide

__all__ = ["ALIGNMENTS", "GLOBAL_GUIDES", "Guide", "make_guide", "penalty"]


def make_guide(
    config: Config,
    shapes: dict[str, dict[str, tuple[int, ...]]],
    sample_globals: Callable[[], dict[str, Tensor]],
    build: Callable[[dict[str, Tensor]], CopulaMixture],
    modules: Modules,
    restored: Restored | None = None,
    sample_head: Callable[[], dict[str, Tensor]] | None = None,
) -> Guide:
    """The guide of a config.

    Args:
        shapes: modality -> view -> shape of one row. sample_globals: the model's global sites. build: values -> mixture.
        modules: encoders given from Python. restored: as for `make_encoder`. sample_head: the sites of the outcome's head, if any.
    """
    locals_ = {
        name: LocalGuide(make_encoder(config, name, shapes[name], modules, restored), config.latent.dim, config.guide.local == "delta")
        for name in config.modalities
    }
    make = GLOBAL_GUIDES.get(config.guide.globals, "guide.globals")
    head = None if sample_head is None else make(sample_head, "head")
    return Guide(locals_, make(sample_globals, "globals"), build, config.latent.dim, config.guide.missing, config.fit.beta, head)

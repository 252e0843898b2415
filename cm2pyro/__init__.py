"""Cross-modal alignment by variational copula modelling, as a Pyro program, for patients whose data are partly missing."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm2pyro.api import CM2
    from cm2pyro.distributions import register_copula
    from cm2pyro.encoders import register_encoder
    from cm2pyro.models import register_decoder, register_prior

    __version__: str

__all__ = ["CM2", "__version__", "register_copula", "register_decoder", "register_encoder", "register_prior"]

_ROOMS = {
    "CM2": "api",
    "register_copula": "distributions",
    "register_decoder": "models",
    "register_encoder": "encoders",
    "register_prior": "models",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # of the installed package, which has it from the tag that it was built from
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cm2pyro")
        except PackageNotFoundError:
            return "0+unknown"
    # Imported on first use: torch and pyro take seconds, and `cm2pyro --help` needs neither.
    if name in _ROOMS:
        return getattr(importlib.import_module(f"cm2pyro.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

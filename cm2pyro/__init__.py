"""Cross-modal alignment by variational copula modelling, as a Pyro program, for patients whose data are partly missing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm2pyro.api import CM2

__version__ = "0.1.0"
__all__ = ["CM2", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on first use: torch and pyro take seconds, and `cm2pyro --help` needs neither.
    if name == "CM2":
        from cm2pyro.api import CM2

        return CM2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Cross-modal alignment by variational copula modelling, as a Pyro program, for patients whose data are partly missing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm2pyro.api import CM2

    __version__: str

__all__ = ["CM2", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # of the installed package, which has it from the tag that it was built from
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("cm2pyro")
        except PackageNotFoundError:
            return "0+unknown"
    # Imported on first use: torch and pyro take seconds, and `cm2pyro --help` needs neither.
    if name == "CM2":
        from cm2pyro.api import CM2

        return CM2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The user-facing object."""

from cm2pyro.api.model import CM2

__all__ = ["CM2"]

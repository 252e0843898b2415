"""Guides of the global sites."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor, nn
from torch.distributions import biject_to

from cm2pyro.registry import Registry


class GlobalGuide(nn.Module):
    """A guide of the global sites; calling it samples them, inside a trace."""

    random: ClassVar[bool]  # whether the sites have a posterior, or only a point estimate

    def forward(self) -> dict[str, Tensor]:
        """Sample the sites."""
        raise NotImplementedError

    def start(self, values: dict[str, Tensor]) -> None:
        """Begin at these values of the sites."""
        raise NotImplementedError

    def median(self) -> dict[str, Tensor]:
        """Medians of the sites; the point estimates, where there is nothing else."""
        raise NotImplementedError

    def hold(self, names: Iterable[str]) -> None:
        """Keep these sites out of the gradient steps; `start` still moves them."""
        raise NotImplementedError


class PointGuide(GlobalGuide):
    """Point estimates (AutoDelta)."""

    random: ClassVar[bool] = False

    def __init__(self, sample_globals: Callable[[], dict[str, Tensor]]) -> None:
        super().__init__()
        self.auto = AutoDelta(sample_globals)
        self.auto()  # creates the parameters

    def forward(self) -> dict[str, Tensor]:
        return self.auto()

    def start(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            setattr(self.auto, name, value)

    def median(self) -> dict[str, Tensor]:
        return self.auto.median()

    def hold(self, names: Iterable[str]) -> None:
        parameters = dict(self.auto.named_parameters())
        for name in names:
            # Without a constraint the parameter has the site's own name.
            parameters.get(f"{name}_unconstrained", parameters.get(name)).requires_grad_(False)  # type: ignore[union-attr]


class NormalGuide(GlobalGuide):
    """Independent normals on the unconstrained values (AutoNormal)."""

    random: ClassVar[bool] = True

    def __init__(self, sample_globals: Callable[[], dict[str, Tensor]]) -> None:
        super().__init__()
        self.auto = AutoNormal(sample_globals, init_scale=0.02)
        self.auto()

    def forward(self) -> dict[str, Tensor]:
        return self.auto()

    def start(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                support = self.auto.prototype_trace.nodes[name]["fn"].support
                getattr(self.auto.locs, name).copy_(biject_to(support).inv(value))

    def median(self) -> dict[str, Tensor]:
        return self.auto.median()


GLOBAL_GUIDES: Registry[type[GlobalGuide]] = Registry("guide of the global sites")
GLOBAL_GUIDES.register("delta", PointGuide)
GLOBAL_GUIDES.register("normal", NormalGuide)

"""Guides of the global sites. A new guide is one class and one line here."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.transforms import AffineAutoregressive
from pyro.infer.autoguide import (
    AutoContinuous,
    AutoDelta,
    AutoGuide,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn
from torch.distributions import AffineTransform, biject_to

from cm2pyro.registry import Registry

_WIDTH = 0.02  # initial sd of an unconstrained value: a fit begins at its start
_LAYERS = 2  # of a flow
_LEAST_REST = 1e-3  # of a variance, outside the factors of a normal of low rank

Sampler = Callable[[], dict[str, Tensor]]


class GlobalGuide(nn.Module):
    """A guide of the global sites; calling it samples them, inside a trace."""

    auto: AutoGuide
    random: ClassVar[bool]  # whether the sites have a posterior, or only a point estimate

    def forward(self) -> dict[str, Tensor]:
        """Sample the sites."""
        return self.auto()

    def start(self, values: dict[str, Tensor]) -> None:
        """Begin at these values of the sites."""
        raise NotImplementedError

    def median(self) -> dict[str, Tensor]:
        """Medians of the sites; the point estimates, where there is nothing else."""
        return self.auto.median()

    def hold(self, names: Iterable[str]) -> None:
        """Keep these sites out of the gradient steps; `start` still moves them."""
        raise NotImplementedError

    def spread(self, covariance: Tensor) -> None:
        """Be as wide as a normal with this covariance (P, P) of the unconstrained values of `sites`, as far as the family can."""
        raise NotImplementedError

    def rsample_free(self) -> tuple[dict[str, Tensor], Tensor]:
        """Unconstrained values of a draw, site -> (n,), and their log density, ()."""
        raise NotImplementedError

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For an optimiser."""
        return [{"params": list(self.parameters()), "lr": lr}]

    @property
    def _trace(self) -> Any:
        return self.auto.prototype_trace

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the order of the unconstrained values."""
        return [name for name, _ in self._trace.iter_stochastic_nodes()]


class PointGuide(GlobalGuide):
    """Point estimates (AutoDelta)."""

    random: ClassVar[bool] = False

    def __init__(self, sample_globals: Sampler, name: str = "globals") -> None:
        super().__init__()
        self.auto = AutoDelta(sample_globals)
        self.auto()  # creates the parameters

    def start(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            setattr(self.auto, name, value)

    def hold(self, names: Iterable[str]) -> None:
        parameters = dict(self.auto.named_parameters())
        for name in names:
            # Without a constraint the parameter has the site's own name.
            parameters.get(f"{name}_unconstrained", parameters.get(name)).requires_grad_(False)  # type: ignore[union-attr]


class NormalGuide(GlobalGuide):
    """Independent normals on the unconstrained values (AutoNormal)."""

    random: ClassVar[bool] = True

    def __init__(self, sample_globals: Sampler, name: str = "globals") -> None:
        super().__init__()
        self.auto = AutoNormal(sample_globals, init_scale=_WIDTH)
        self.auto()

    def start(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                support = self._trace.nodes[name]["fn"].support
                getattr(self.auto.locs, name).copy_(biject_to(support).inv(value))

    def spread(self, covariance: Tensor) -> None:
        # Of all independent normals these diverge least from it, in the direction of the ELBO: they are as wide as its conditionals.
        scale = torch.linalg.inv(covariance.double()).diagonal().rsqrt().to(covariance)
        for name in self.sites:
            before = getattr(self.auto.scales, name)
            part, scale = scale[: before.numel()], scale[before.numel() :]
            setattr(self.auto.scales, name, part.reshape(before.shape))

    def rsample_free(self) -> tuple[dict[str, Tensor], Tensor]:
        each = {name: Normal(getattr(self.auto.locs, name), getattr(self.auto.scales, name)) for name in self.sites}
        found = {name: one.rsample() for name, one in each.items()}
        log_q = torch.stack([one.log_prob(found[name]).sum() for name, one in each.items()]).sum()
        return {name: x.reshape(-1) for name, x in found.items()}, log_q


class JointGuide(GlobalGuide):
    """One distribution over all unconstrained values, laid end to end."""

    random: ClassVar[bool] = True
    auto: AutoContinuous

    def __init__(self, auto: AutoContinuous, name: str) -> None:
        super().__init__()
        # Names Pyro's auxiliary site: there may be two such guides in a trace.
        auto._pyro_name = f"{type(self).__name__}_{name}"
        self.auto = auto
        self.auto()

    def start(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            parts = self._parts(self.loc)
            offsets = self._parts(self._centre() - self.loc)
            for name, value in values.items():
                support = self._trace.nodes[name]["fn"].support
                parts[name].copy_(biject_to(support).inv(value).reshape(-1) - offsets[name])

    def rsample_free(self) -> tuple[dict[str, Tensor], Tensor]:
        posterior = self.auto.get_posterior()
        x = posterior.rsample()
        return self._parts(x), posterior.log_prob(x)

    def _parts(self, x: Tensor) -> dict[str, Tensor]:
        """(P,) -> views of it by site."""
        shapes = self.auto._unconstrained_shapes
        return dict(zip(shapes, x.split([shape.numel() for shape in shapes.values()]), strict=True))

    def _centre(self) -> Tensor:
        """(P,) unconstrained values of `median`."""
        return self.loc

    @property
    def loc(self) -> nn.Parameter:
        """(P,) location of the unconstrained values."""
        loc: nn.Parameter = self.auto.loc
        return loc


class LowRankGuide(JointGuide):
    """A normal on the unconstrained values, its covariance diagonal plus of rank √P (AutoLowRankMultivariateNormal)."""

    def __init__(self, sample_globals: Sampler, name: str = "globals") -> None:
        super().__init__(AutoLowRankMultivariateNormal(sample_globals, init_scale=_WIDTH), name)

    def spread(self, covariance: Tensor) -> None:
        # Principal components of the correlations; what they leave of each variance is the diagonal.
        sd = covariance.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(covariance / (sd[:, None] * sd))
        factor = vectors[:, -self.auto.rank :] * values[-self.auto.rank :].clamp_min(0).sqrt()
        rest = (1 - factor.square().sum(-1)).clamp_min(_LEAST_REST).sqrt()
        self.auto.scale = sd * rest
        with torch.no_grad():
            self.auto.cov_factor.copy_(factor / rest[:, None])


class FullRankGuide(JointGuide):
    """A normal on the unconstrained values with any covariance (AutoMultivariateNormal); P² / 2 numbers to learn."""

    def __init__(self, sample_globals: Sampler, name: str = "globals") -> None:
        super().__init__(AutoMultivariateNormal(sample_globals, init_scale=_WIDTH), name)

    def spread(self, covariance: Tensor) -> None:
        root = torch.linalg.cholesky(covariance.double()).to(covariance)
        self.auto.scale = root.diagonal()
        self.auto.scale_tril = root / root.diagonal()[:, None]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        # P numbers of a row add up in one variance: steps of the usual length would blow it up.
        root = self.auto.scale_tril_unconstrained
        others = [p for p in self.parameters() if p is not root]
        return [{"params": others, "lr": lr}, {"params": [root], "lr": lr / len(root)}]


class FlowGuide(JointGuide):
    """Two affine autoregressive layers with linear skips (Kingma et al. 2016, arXiv 1606.04934), then a location and a scale."""

    def __init__(self, sample_globals: Sampler, name: str = "globals") -> None:
        super().__init__(_AutoFlow(sample_globals), name)

    def median(self) -> dict[str, Tensor]:
        """The image of the base's centre: a point well inside, not the median of any coordinate."""
        return {site["name"]: biject_to(site["fn"].support)(value) for site, value in self.auto._unpack_latent(self._centre())}

    def _centre(self) -> Tensor:
        x = torch.zeros_like(self.loc)
        for transform in self.auto.transforms():
            x = transform(x)
        return x

    def spread(self, covariance: Tensor) -> None:
        """Layers that have learned something become linear: the first a Cholesky root, the others the identity."""
        centre = self._centre()
        root = torch.linalg.cholesky(covariance.double()).to(covariance)
        self.auto.forget()
        with torch.no_grad():
            self.auto.loc.copy_(centre)
            self.auto.log_scale.copy_(root.diagonal().log())
            if len(self.auto.layers):
                # Rows of the means, then of the log scales; the layer adds the value itself.
                self.auto.layers[0].arn.skip_layer.weight[: len(root)] = (root / root.diagonal()[:, None]).tril(-1)


class _AutoFlow(AutoContinuous):
    """See `FlowGuide`."""

    def _setup_prototype(self) -> None:
        super()._setup_prototype()
        P = self.latent_dim
        self.loc = nn.Parameter(self._init_loc())
        self.log_scale = nn.Parameter(torch.full_like(self.loc, _WIDTH).log())
        hidden = [max(2 * P, 8)]
        self.layers = nn.ModuleList()
        for i in range(_LAYERS if P > 1 else 0):
            order = torch.arange(P) if i % 2 == 0 else torch.arange(P).flip(0)
            net = AutoRegressiveNN(P, hidden, permutation=order, skip_connections=True)  # type: ignore[arg-type]
            self.layers.append(AffineAutoregressive(net))
        self.forget()
        self.to(self.loc.device)

    def forget(self) -> None:
        """Every layer is the identity."""
        for layer in self.layers:
            net: AutoRegressiveNN = layer.arn  # type: ignore[assignment]
            for linear in (net.layers[-1], net.skip_layer):
                for parameter in linear.parameters():  # type: ignore[union-attr]
                    nn.init.zeros_(parameter)

    def transforms(self) -> list[torch.distributions.Transform]:
        """From the base to the unconstrained values."""
        return [*self.layers, AffineTransform(self.loc, self.log_scale.exp(), event_dim=1, cache_size=1)]

    def get_posterior(self) -> TransformedDistribution:
        base = Normal(torch.zeros_like(self.loc), torch.ones_like(self.loc)).to_event(1)
        return TransformedDistribution(base, self.transforms())


GLOBAL_GUIDES: Registry[type[GlobalGuide]] = Registry("guide of the global sites")
GLOBAL_GUIDES.register("delta", PointGuide)
GLOBAL_GUIDES.register("normal", NormalGuide)
GLOBAL_GUIDES.register("lowrank", LowRankGuide)
GLOBAL_GUIDES.register("fullrank", FullRankGuide)
GLOBAL_GUIDES.register("flow", FlowGuide)
GLOBAL_GUIDES.register("nuts", PointGuide)  # while encoders learn; the draws that take its place are the program's

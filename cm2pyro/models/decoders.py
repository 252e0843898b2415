"""Feature decoders: what the latents of observed modalities say about the pooled features of their inputs."""

import math
from collections.abc import Callable
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from pydantic import Field
from pyro import poutine
from torch import Tensor, nn

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.data.pooled import pooled, pooled_view, pooled_width
from cm2pyro.errors import ConfigError
from cm2pyro.foreign import Contract
from cm2pyro.registry import Registry, nearest, one_line

_LEAST_SCALE = 0.1  # sd of the features; one that a latent can copy would otherwise have no highest density
_ROWS = 512  # pooled at a time


class Decoder(nn.Module):
    """p(x | z) of one modality's standardised pooled features.

    A subclass takes its options as keyword-only parameters with annotations; these are the keys that a config may use.

    Args:
        dim: latent width D. features: F.
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.dim, self.features = dim, features

    def distribution(self, z: Tensor) -> dist.TorchDistribution:
        """z (..., D) -> a distribution with batch shape (..., F)."""
        raise NotImplementedError


class NormalDecoder(Decoder):
    """x_f ~ Normal(network(z)_f, scale_f): a linear map, or one hidden layer with ReLU; a scale per feature, the same for every row."""

    def __init__(self, dim: int, features: int, *, hidden: Annotated[int, Field(ge=0)] = 0) -> None:
        super().__init__(dim, features)
        layers: list[nn.Module] = [nn.Linear(dim, hidden), nn.ReLU()] if hidden else []
        self.network = nn.Sequential(*layers, nn.Linear(hidden or dim, features))
        # Begins at the features' own sd: before anything is learned the latents explain nothing.
        self.raw_scale = nn.Parameter(torch.full((features,), math.log(math.expm1(1 - _LEAST_SCALE))))

    @property
    def scale(self) -> Tensor:
        """(F,) in sd of the training rows' features."""
        return _LEAST_SCALE + nn.functional.softplus(self.raw_scale)

    def distribution(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.network(z), self.scale, validate_args=False)


def no_decoder(dim: int, features: int) -> None:
    """The modality's inputs enter through the guide alone."""


DECODERS: Registry[Callable[..., Decoder | None]] = Registry(
    "decoder", contract=Contract(Decoder, "cm2pyro.models.Decoder", ("dim", "features"), ("distribution",))
)
DECODERS.register("none", no_decoder)
DECODERS.register("normal", NormalDecoder)


def register_decoder(name: str, decoder: type[Decoder] | str) -> None:
    """Let configs name a decoder of your own; text says where it is, `package.module:Class`.

    Raises:
        ConfigError: the name is taken, or the class is no decoder.
    """
    DECODERS.register_foreign(name, decoder)


class ScaledDecoder(nn.Module):
    """One modality's decoder with the standardisation of its features.

    Args:
        view: from which the features are pooled. decoder: of the standardised features.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, view: str, decoder: Decoder) -> None:
        super().__init__()
        self.view, self.decoder = view, decoder
        self.register_buffer("loc", torch.zeros(decoder.features))
        self.register_buffer("scale", torch.ones(decoder.features))  # 0: the feature does not vary, and is not explained

    def fit(self, x: Tensor) -> None:
        """Learn location and scale from features (n, F) of training rows that have the modality, n >= 1."""
        x = x.double()
        scale = x.std(0, unbiased=False)
        self.loc.copy_(x.mean(0))
        # What is left of a constant column is rounding.
        self.scale.copy_(torch.where(scale > 1e-6 * x.abs().amax(0), scale, torch.zeros_like(scale)))

    def target(self, x: Tensor) -> Tensor:
        """Features (B, F) in sd of the training rows, 0 where they do not vary."""
        varies = self.scale > 0
        return torch.where(varies, (x - self.loc) / torch.where(varies, self.scale, torch.ones_like(self.scale)), torch.zeros_like(x))

    def distribution(self, z: Tensor) -> dist.TorchDistribution:
        """p(target | z): z (B, D) -> event shape (F,)."""
        return self.decoder.distribution(z).mask(self.scale > 0).to_event(1)


class Decoders(nn.Module):
    """x_im ~ Decoder_m(z_im) for every modality m that row i has, weighted by `weight`; one site `x_<modality>` each.

    x_im are fixed features of the inputs (`data.pooled`), never learned ones: a learned target could be made easy. They serve
    training alone, labelled or not; prediction does not use them.

    Args:
        names: all M modalities. decoders: of those that have one. weight: > 0.
    """

    def __init__(self, names: tuple[str, ...], decoders: dict[str, ScaledDecoder], weight: float) -> None:
        super().__init__()
        self.names, self.weight = tuple(decoders), weight
        # Prefixed, since a modality may have the name of one of ModuleDict's own methods, such as `type`.
        self.each = nn.ModuleDict({f"of_{name}": one for name, one in decoders.items()})
        self._each = tuple((names.index(name), name, one) for name, one in decoders.items())

    def fit(self, train: Dataset) -> None:
        """Learn the scaling of every modality's features from the training rows that have it."""
        for m, name, one in self._each:
            rows = train.observed[:, m].nonzero()[:, 0]
            column = train.inputs[name][one.view]
            if len(rows):
                one.fit(torch.cat([pooled(one.view, column[part]) for part in rows.split(_ROWS)]))

    def forward(self, z: Tensor, batch: Batch) -> None:
        """Score the features inside the plate of the data: z (B, M, D)."""
        for m, name, one in self._each:
            observed = batch.observed[:, m]
            # Rows that lack the modality are left out before the decoder, so that nothing drawn for them reaches a gradient.
            seen = torch.where(observed[:, None], z[:, m], z.new_zeros(()))
            target = one.target(pooled(one.view, batch.inputs[name][one.view]).to(z.dtype))
            with poutine.scale(scale=self.weight):
                pyro.sample(sites.features(name), one.distribution(seen).mask(observed), obs=target)


def check_decoders(config: Config) -> None:
    """Raises ConfigError if the section `decoders` is wrong."""
    decoders = config.decoders
    DECODERS.get(decoders.kind, "decoders.kind")
    DECODERS.options(decoders.kind, decoders.options, "decoders", ("kind", "weight", "only"))
    for name in decoders.only or []:
        if name not in config.modalities:
            raise ConfigError(f"decoders.only: no modality '{one_line(name, 60)}'; {nearest(name, config.modalities)}")


def make_decoders(config: Config, shapes: dict[str, dict[str, tuple[int, ...]]]) -> Decoders:
    """The decoders of a config, none with `kind: none`; shapes: modality -> view -> shape of one row."""
    kind = config.decoders.kind
    options = DECODERS.options(kind, config.decoders.options, "decoders", ("kind", "weight", "only"))
    made = {}
    for name in config.modalities:
        if config.decoders.only is None or name in config.decoders.only:
            view = pooled_view(shapes[name])
            decoder = DECODERS.get(kind, "decoders.kind")(config.latent.dim, pooled_width(view, shapes[name][view]), **options)
            if decoder is not None:
                made[name] = ScaledDecoder(view, decoder)
    return Decoders(tuple(config.modalities), made, config.decoders.weight)

"""Encoders of pictures: a small convolutional network, and every classification network of torchvision."""

from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cm2pyro.config_base import Fraction
from cm2pyro.data.columns import Views
from cm2pyro.data.image import Side
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.tuning import Still, Tune, tuned
from cm2pyro.errors import ConfigError
from cm2pyro.registry import one_line

_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
_SECOND_HEADS = ("aux", "AuxLogits")  # of the Inceptions, for training alone
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, what pretrained networks expect

Degrees = Annotated[float, Field(ge=0, le=180)]


class Sight(nn.Module):
    """(n, C, R, R) 8-bit levels -> (n, 3, size, size): in training each picture is turned, shifted and scaled by chance; then the centre.

    Args:
        size: side of the centre. degrees: largest turn. translate: largest shift, as a share of the side. zoom: largest
            change of scale, as a share.
    """

    def __init__(self, size: int, degrees: float, translate: float, zoom: float) -> None:
        super().__init__()
        from torchvision.transforms import v2

        self.moved = v2.RandomAffine(
            degrees, translate=(translate, translate), scale=(1 - zoom, 1 + zoom), interpolation=v2.InterpolationMode.BILINEAR
        )
        self.still = not (degrees or translate or zoom)
        self.finish = v2.Compose([v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, SD)])

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(torch.uint8)
        if self.training and not self.still:
            pixels = torch.stack([self.moved(picture) for picture in pixels])  # one draw a picture: of a batch v2 draws once
        out: Tensor = self.finish(pixels.expand(-1, 3, -1, -1))
        return out


class CNN(Encoder):
    """Four convolutions with group normalisation, then the means over the four quarters. Small: trains from scratch on a CPU.

    Options: width is that of the first layer, doubled by each further one; the transforms are those of `Sight`.
    """

    views: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        size: Side = 224,
        width: Annotated[int, Field(gt=0, le=512)] = 8,
        dropout: Fraction = 0.1,
        degrees: Degrees = 0.0,
        translate: Fraction = 0.0,
        zoom: Fraction = 0.0,
    ) -> None:
        super().__init__(shapes)
        self.sight = Sight(size, degrees, translate, zoom)
        layers: list[nn.Module] = []
        channels = 3
        for i in range(4):
            out = width * 2**i
            layers += [nn.Conv2d(channels, out, 3, 2, 1), nn.GroupNorm(1, out), nn.ReLU()]
            channels = out
        # Where something is matters as much as that it is there: a mean over the whole picture would forget it.
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout))
        self.width = 4 * channels

    def forward(self, inputs: Views) -> Tensor:
        out: Tensor = self.layers(self.sight(inputs["pixels"]))
        return out

    def networks(self) -> list[nn.Module]:
        return [self.layers]


class Backbone(Encoder):
    """A classification network of torchvision without its last layer.

    A subclass names the network as `backbone`. Options: `weights` none, hub (torchvision's own, fetched once) or the path of a
    .pth or .safetensors file of that network; `tune` says how much of it is trained (`encoders.tuning`); `degrees`, `translate`
    and `zoom` are those of `Sight`.
    """

    views: ClassVar[tuple[str, ...]] = ("pixels",)
    backbone: ClassVar[str]

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        *,
        size: Side = 224,
        weights: str = "none",
        tune: Tune = "all",
        dropout: Fraction = 0.0,
        degrees: Degrees = 15.0,
        translate: Fraction = 0.05,
        zoom: Fraction = 0.05,
    ) -> None:
        super().__init__(shapes)
        self.sight = Sight(size, degrees, translate, zoom)
        network = self._network(size)
        if weights == "none":
            self.remarks = (f"{self.backbone} starts from scratch (weights: none)",)
        else:
            _load(network, self._weights(weights), weights)
        network.set_submodule(_head(network), nn.Identity())
        self.network = tuned(network, _blocks(network), tune)
        self._still = Still(self.network)
        self.dropout = nn.Dropout(dropout)
        self.width = self._width(size)

    def forward(self, inputs: Views) -> Tensor:
        x = self.sight(inputs["pixels"])
        self._still(self.network, len(x))
        out: Tensor = self.dropout(self.network(x))
        return out

    def networks(self) -> list[nn.Module]:
        return [self.network]

    def _network(self, size: int) -> nn.Module:
        from torchvision import models

        # What some of them need beside: no second head, the levels that their pretrained weights expect, the size of the picture.
        inception: dict[str, Any] = {"aux_logits": False, "init_weights": True, "transform_input": True}
        options = dict(inception) if self.backbone in ("googlenet", "inception_v3") else {}
        if self.backbone.startswith("vit_"):
            options["image_size"] = size
        if self.backbone.startswith("maxvit"):
            options["input_size"] = (size, size)
        try:
            network: nn.Module = models.get_model(self.backbone, weights=None, **options)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"encoder {self.backbone}: cannot be made for size {size} ({one_line(error, 120)}); change size") from error
        return network

    def _weights(self, weights: str) -> dict[str, Tensor]:
        if weights == "hub":
            from torchvision import models

            try:
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # where torch announces the address: on either
                    state: dict[str, Tensor] = models.get_model_weights(self.backbone).DEFAULT.get_state_dict(progress=False)
            except Exception as error:  # the network, the disk and the parser each have their own
                url = models.get_model_weights(self.backbone).DEFAULT.url
                raise ConfigError(
                    f"weights: hub: {self.backbone} cannot be had ({one_line(error, 120)}); where there is a network fetch {url}, "
                    "then write weights: FILE; or weights: none to start from scratch"
                ) from error
            return state
        return read_weights(Path(weights))

    def _width(self, size: int) -> int:
        """Found by trying: a blank picture in evaluation mode touches no statistics."""
        training = self.network.training
        try:
            with torch.no_grad():
                place = next(self.network.parameters())
                out = self.network.eval()(torch.zeros(1, 3, size, size, device=place.device))
        except RuntimeError as error:
            raise ConfigError(
                f"encoder {self.backbone}: cannot read pictures of size {size} ({one_line(error, 120)}); raise size"
            ) from error
        finally:
            self.network.train(training)
        return int(out.shape[1])


class ResNet34(Backbone):
    """ResNet-34 (He et al., 2016), 512 features."""

    backbone: ClassVar[str] = "resnet34"


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Parts from input to output: the largest is taken apart until there are four or more, such as the stages of a ResNet."""

    def parts(module: nn.Module) -> list[nn.Module]:
        return [part for part in module.children() if any(True for _ in part.parameters())]

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    def norms_alone(module: nn.Module) -> bool:
        return all(isinstance(part, _NORMS) for part in module.modules() if next(part.parameters(recurse=False), None) is not None)

    blocks = parts(network)
    while len(blocks) < 4 and any(parts(block) for block in blocks):
        largest = max((block for block in blocks if parts(block)), key=size)
        i = blocks.index(largest)
        blocks[i : i + 1] = parts(largest)
    joined: list[nn.Module] = []
    for block in blocks:
        # A normalisation belongs to what it follows: alone it would be a block of a few numbers.
        joined[-1:] = [nn.ModuleList([*joined[-1:], block])] if joined and norms_alone(block) else [*joined[-1:], block]
    return joined


def _head(network: nn.Module) -> str:
    """Name of the layer that gives the classes: the last linear one, of networks without any the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, part in network.named_modules() if isinstance(part, kind)]
        if names:
            return names[-1]
    raise ConfigError("the network has neither linear layers nor convolutions; name another")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors file, or of a .pth file without code in it. Raises ConfigError."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("not a dictionary of tensors")
    except Exception as error:  # a damaged file makes the readers raise anything
        raise ConfigError(
            f"weights: {path} cannot be read ({one_line(error, 120)}); expected a .safetensors file, or a .pth file of named tensors"
        ) from error
    return state


def _load(network: nn.Module, state: dict[str, Tensor], weights: str) -> None:
    """Copy weights by name; a last layer of another number of classes is left out. Raises ConfigError if others differ."""
    own = network.state_dict()
    head = _head(network)
    optional = {name for name in own if name.startswith(f"{head}.") or name.endswith("num_batches_tracked")}
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    absent = sorted(set(own) - set(fitting) - optional)
    if absent:
        found = f"has shape {tuple(state[absent[0]].shape)}" if absent[0] in state else "is not in it"
        raise ConfigError(
            f"weights: {weights} does not fit the network: {absent[0]} {found}, expected {tuple(own[absent[0]].shape)} "
            f"({len(absent)} of {len(own)} tensors differ); name weights of the same network"
        )
    surplus = sorted(name for name in set(state) - set(own) if not name.startswith((f"{head}.", *_SECOND_HEADS)))
    if surplus:  # a larger network of the same family has all tensors of a smaller one, and they mean something else in it
        raise ConfigError(
            f"weights: {weights} does not fit the network: {one_line(surplus[0], 80)} is in it, which {len(own)} tensors of the network "
            f"are not ({len(surplus)} too many); name weights of the same network"
        )
    network.load_state_dict(fitting, strict=False)


def backbones() -> list[str]:
    """Names of torchvision's classification networks."""
    from torchvision import models

    return list(models.list_models(module=models))


@cache
def backbone(name: str) -> type[Backbone] | None:
    """The encoder for a network of torchvision, None if it has none of that name."""
    if name not in backbones():
        return None
    return type(name, (Backbone,), {"backbone": name, "__doc__": Backbone.__doc__})

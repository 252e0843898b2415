"""Any torch module as an encoder."""

import torch
from torch import Tensor, nn

from cm2pyro.data.columns import Views
from cm2pyro.data.image import Image
from cm2pyro.data.kind import Kind
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.tuning import Still
from cm2pyro.encoders.vision import Sight
from cm2pyro.errors import ConfigError


class ModuleEncoder(Encoder):
    """A module given from Python: it maps one view (n, ...) to features (n, width); the width is found by trying it.

    Pictures reach it as (n, 3, size, size), normalised as for ImageNet; notes as token ids (n, notes, max_tokens), -1 where
    there is none; other views as they are.

    Args:
        name: of the modality, for messages. module: the network. view: the view that it reads. kind: of the modality.

    Raises:
        ConfigError: the module cannot read the view, or does not return (n, width).
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], name: str, module: nn.Module, view: str, kind: Kind) -> None:
        super().__init__(shapes)
        self.module = module
        self.view = view
        self.sight = Sight(kind.size, 0.0, 0.0, 0.0) if isinstance(kind, Image) else None
        blank = torch.full((2, *shapes[view]), -1) if view == "tokens" else torch.zeros(2, *shapes[view])
        training = module.training
        try:
            with torch.no_grad():
                place = next((p.device for p in module.parameters()), None)
                out = module.eval()(self._seen(blank.to(place)))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"encoders['{name}']: cannot read the view '{view}' of shape (n, {', '.join(map(str, shapes[view]))}): {reason}"
            ) from error
        finally:
            module.train(training)
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != 2:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ConfigError(f"encoders['{name}']: expected features of shape (n, width), found {found} for n = 2; end with a flat layer")
        self.width = out.shape[1]
        self._still = Still(module)

    def forward(self, inputs: Views) -> Tensor:
        x = self._seen(inputs[self.view])
        self._still(self.module, len(x))
        return self.module(x)

    def networks(self) -> list[nn.Module]:
        return [self.module]

    def _seen(self, x: Tensor) -> Tensor:
        if self.view == "tokens":
            return x.long()
        return x if self.sight is None else self.sight(x)

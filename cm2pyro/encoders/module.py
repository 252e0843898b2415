"""Any torch module as an encoder."""

import torch
from torch import Tensor, nn

from cm2pyro.data.kind import Views
from cm2pyro.encoders.base import Encoder
from cm2pyro.errors import ConfigError


class ModuleEncoder(Encoder):
    """A module given from Python: it maps one view (n, ...) to features (n, width); the width is found by trying it.

    Args:
        name: of the modality, for messages. module: the network. view: the view that it reads.

    Raises:
        ConfigError: the module cannot read the view, or does not return (n, width).
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], name: str, module: nn.Module, view: str) -> None:
        super().__init__(shapes)
        self.module = module
        self.view = view
        training = module.training
        try:
            with torch.no_grad():
                place = next((p.device for p in module.parameters()), None)
                out = module.eval()(torch.zeros(2, *shapes[view], device=place))
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

    def forward(self, inputs: Views) -> Tensor:
        return self.module(inputs[self.view])

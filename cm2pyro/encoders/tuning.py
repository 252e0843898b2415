"""How much of a pretrained network is trained: all of it, its last blocks, small corrections (LoRA), or nothing."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cm2pyro.errors import ConfigError

_FORM = re.compile(r"all|frozen|(last|lora):[1-9]\d{0,3}")


def _check(tune: str) -> str:
    if not _FORM.fullmatch(tune):
        raise ValueError("expected all, frozen, last:N (the last N blocks) or lora:R (corrections of rank R); write one of them")
    return tune


Tune = Annotated[str, AfterValidator(_check)]


def tuned(network: nn.Module, blocks: Sequence[nn.Module], tune: str) -> nn.Module:
    """Freeze a network as asked; with LoRA its linear and convolutional layers get corrections W + B A, alone trained.

    Not corrected are layers inside torch's own multi-head attention and torchvision's shifted windows: of a ViT or a Swin the
    other layers are.

    Args:
        network: changed in place. blocks: its parts from input to output, for last:N.
        tune: `all`, `frozen`, `last:N`, `lora:R`.

    Raises:
        ConfigError: more blocks than there are, or LoRA without the package peft.
    """
    kind, _, number = tune.partition(":")
    if kind == "all":
        return network
    if kind == "lora":
        return _with_lora(network, int(number))
    kept = list(blocks)[-int(number) :] if kind == "last" else []
    if kind == "last" and int(number) > len(blocks):
        raise ConfigError(f"tune: {tune} asks for more than the network's {len(blocks)} blocks; write a smaller number, or all")
    network.requires_grad_(False)
    for block in kept:
        block.requires_grad_(True)
    return network


def _with_lora(network: nn.Module, rank: int) -> nn.Module:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("tune: lora needs the package peft; pip install 'cm2pyro[lora]'") from error
    # These read the weights of their layers and never call them: a correction there would be without effect.
    uncalled = tuple(
        f"{name}."
        for name, part in network.named_modules()
        if isinstance(part, nn.MultiheadAttention) or type(part).__name__.startswith("ShiftedWindowAttention")
    )
    # Grouped convolutions have no correction of low rank.
    targets = [
        name
        for name, part in network.named_modules()
        if (isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)) and not name.startswith(uncalled)
    ]
    network.requires_grad_(False)
    adapted: nn.Module = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), network)
    return adapted


class Still:
    """In training too, what is frozen works as in evaluation; and so does normalisation over a batch of one row.

    A frozen part must give the same features every time, without its dropout, and keep its running statistics. Statistics of
    one picture would be those of that picture. Which parts these are is found once: call it before every forward pass.

    Args:
        network: with its parameters frozen as they will stay.
    """

    def __init__(self, network: nn.Module) -> None:
        self.frozen = [part for part in network.modules() if _all_frozen(part)]
        inside = {id(part) for frozen in self.frozen for part in frozen.modules()}
        self.norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and id(part) not in inside]

    def __call__(self, network: nn.Module, rows: int) -> None:
        """Set the modes of a network in training for a batch of so many rows; one in evaluation is left alone."""
        if network.training:
            for part in self.frozen:
                part.eval()
            for norm in self.norms:
                norm.train(rows > 1)


def _all_frozen(part: nn.Module) -> bool:
    weights = list(part.parameters())
    return bool(weights) and not any(p.requires_grad for p in weights)

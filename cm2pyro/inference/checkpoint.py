"""Checkpoints: safetensors files that appear whole, with what is not a tensor as JSON in their header."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cm2pyro.errors import CheckpointError
from cm2pyro.files import atomic
from cm2pyro.inference.mcmc import Chains

FORMAT = 1


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        epoch: epochs done. step: optimiser steps done. best: lowest validation log-loss and best_epoch where it was
            reached; waited: epochs since. done: the fit has ended.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    done: bool = False


def best(folder: Path) -> Path:
    """The weights with which a fit predicts."""
    return folder / "checkpoints" / "best.safetensors"


def last(folder: Path) -> Path:
    """Where a fit goes on."""
    return folder / "checkpoints" / "last.safetensors"


def chains(folder: Path) -> Path:
    """Draws of the global sites by NUTS."""
    return folder / "checkpoints" / "chains.safetensors"


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)  # of a member of an ensemble
    with atomic(path) as temporary:
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole, temporary, metadata={"cm2pyro": json.dumps({"format": FORMAT} | header)})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header. Raises CheckpointError: not there, cut short, from another version."""
    if not path.is_file():
        raise CheckpointError(f"{path}: is not there; expected a checkpoint; fit until the first epoch ends, or name another run")
    try:
        with safe_open(path, "pt") as opened:
            header = json.loads((opened.metadata() or {}).get("cm2pyro", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({error}); it may be cut short; fit again with --overwrite"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {header.get('format')}, expected {FORMAT}; use the version that wrote it or fit again"
        )
    return tensors, header


def write_chains(folder: Path, drawn: Chains) -> None:
    """Write draws of the global sites."""
    write(chains(folder), drawn.values, {"divergences": drawn.divergences, "warmup": drawn.warmup})


def read_chains(folder: Path) -> Chains | None:
    """Draws of the global sites, None where there are none. Raises CheckpointError."""
    path = chains(folder)
    if not path.is_file():
        return None
    tensors, header = read(path)
    return Chains(tensors, [int(n) for n in header.get("divergences", [])], int(header.get("warmup", 0)))


def load_module(module: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Copy tensors into a module. Raises CheckpointError if names or shapes differ."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{where}: does not fit config.yaml ({reason[:160]}); fit again with --overwrite") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, values in state.items() for key, value in values.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimiser_tensors` gave."""
    whole = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}

"""Checkpoints: safetensors files that appear whole, with what is not a tensor as JSON in their header."""

import hashlib
import json
import os
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cm2pyro.errors import CheckpointError, DataError
from cm2pyro.files import atomic, not_written
from cm2pyro.registry import one_line

FORMAT = 1
_AGAIN = "fit again with --overwrite"
_REMEDY = "fit --resume goes on from another checkpoint where there is one, --overwrite starts anew"


def best(folder: Path) -> Path:
    """The weights with which a fit predicts."""
    return folder / "checkpoints" / "best.safetensors"


def last(folder: Path) -> Path:
    """Where a fit goes on."""
    return folder / "checkpoints" / "last.safetensors"


def previous(folder: Path) -> Path:
    """What was `last` before: where a fit goes on if that one is damaged."""
    return folder / "checkpoints" / "previous.safetensors"


def begun(folder: Path) -> bool:
    """Whether a fit can go on in this folder (of a run, or of a member)."""
    return last(folder).is_file() or previous(folder).is_file()


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], keep: Path | None = None) -> None:
    """Write tensors and a JSON header, atomically. keep: what the earlier file of that name becomes.

    Raises:
        DataError: the disk is full or read-only; the earlier file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # of a member of an ensemble
    with atomic(path) as temporary:
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        text = json.dumps({"format": FORMAT} | header)
        try:
            save_file(whole, temporary, metadata={"cm2pyro": text, "crc32": _checksum(whole, text)})
        except SafetensorError as error:  # of the disk: what is written has been checked
            found = re.search(r'(?:message: "|I/O error: )([^"(]+)', str(error))
            raise DataError(f"{path}: {not_written(found[1].strip() if found else str(error)[:100])}") from error
        if keep is not None:
            with suppress(FileNotFoundError):
                os.replace(path, keep)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header. Raises CheckpointError: not there, cut short, damaged, from another version."""
    if not path.is_file():
        raise CheckpointError(f"{path}: is not there; expected a checkpoint; fit until the first epoch ends, or name another run")
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            header = json.loads(metadata.get("cm2pyro", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error}); it may be cut short; {_REMEDY}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = one_line(header.get("format") if isinstance(header, dict) else header, 60)
        raise CheckpointError(f"{path}: checkpoint format {found}, expected {FORMAT}; use the version that wrote it or fit again")
    if "crc32" in metadata and metadata["crc32"] != _checksum(tensors, metadata["cm2pyro"]):
        raise CheckpointError(f"{path}: its checksum does not fit what is in it; it is damaged; {_REMEDY}")
    return tensors, header


def read_latest(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any], str | None]:
    """The last checkpoint that can be read, or the one before it: path, tensors, header, and why it is not the last.

    Raises CheckpointError if neither can be read.
    """
    try:
        return last(folder), *read(last(folder)), None
    except CheckpointError as error:
        try:
            # A fit that was killed between two renames has no `last`; nothing is wrong then.
            reason = str(error) if last(folder).is_file() else None
            return previous(folder), *read(previous(folder)), reason
        except CheckpointError:
            raise error from None


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    """Of a file's content: what was flipped on the disk would else become a wrong number in silence."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(_bytes(tensors[name]), crc)
    return f"{crc:08x}"


def digest(tensors: dict[str, Tensor]) -> str:
    """Of weights: what was computed from them says so."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(_bytes(tensors[name].detach().cpu().contiguous()))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def load_module(module: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Copy tensors into a module. Raises CheckpointError if names, shapes or types differ, or a number is not finite."""
    own = module.state_dict()
    for name, tensor in tensors.items():
        if name in own and own[name].dtype != tensor.dtype:
            raise CheckpointError(f"{where}: does not fit config.yaml ({name} is {tensor.dtype}, expected {own[name].dtype}); {_AGAIN}")
    check_finite(tensors, where)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{where}: does not fit config.yaml ({reason[:160]}); {_AGAIN}") from error


def check_finite(tensors: dict[str, Tensor], where: Path) -> None:
    """Raises CheckpointError that names the first tensor with a number that is not finite."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {one_line(name, 80)} holds a number that is not finite; {_AGAIN}")


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
    """What `part` undoes."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}

"""Where a fit stands, as one checkpoint: written, and read to go on from there to the same bits."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cm2pyro import logs
from cm2pyro.data.shards.dataset import StreamedDataset
from cm2pyro.errors import CheckpointError
from cm2pyro.inference import checkpoint, distributed, finite
from cm2pyro.inference.progress import Progress
from cm2pyro.inference.run import write_history
from cm2pyro.inference.sums import Sums

if TYPE_CHECKING:
    from cm2pyro.inference.fit import Trainer


def write(trainer: "Trainer", folder: Path) -> None:
    """Write the last checkpoint, which holds all that a fit needs to go on; the one that it replaces is kept beside it.

    Raises:
        CM2Error: a number is not finite. DataError: the disk is full. The checkpoint that was there stays.
    """
    tensors = checkpoint.with_prefix("program", trainer.program.state_dict())
    tensors |= checkpoint.with_prefix("average", trainer.average.tensors)
    tensors |= checkpoint.with_prefix("best", trainer.best)
    tensors |= checkpoint.with_prefix("snapshots", trainer.snapshots.tensors())
    tensors |= checkpoint.with_prefix("optimiser", checkpoint.optimiser_tensors(trainer.optimiser))
    finite.check(tensors, f"epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    header: dict[str, Any] = {
        "progress": asdict(trainer.progress),
        "sums": asdict(trainer.sums_so_far()),
        "records": trainer.records,
        "warned": sorted(trainer.warned),
        "processes": distributed.world(),
    }
    tensors |= _random_states(trainer.device, header)
    checkpoint.write(checkpoint.last(folder), tensors, header, keep=checkpoint.previous(folder))


def write_best(trainer: "Trainer", folder: Path) -> None:
    """Write the weights with which the fit predicts."""
    program = trainer.program
    header: dict[str, Any] = {"epoch": trainer.progress.best_epoch, "apart": program.margins_only, "settled": program.settled}
    header["architectures"] = program.architectures()
    checkpoint.write(checkpoint.best(folder), trainer.best, header)


def write_views(trainer: "Trainer", folder: Path) -> None:
    """Write the files that only repeat what the last checkpoint holds: after it, so that a fit killed between them has lost nothing."""
    trainer.snapshots.write(folder)
    write_history(folder, trainer.records)


def read(trainer: "Trainer", folder: Path) -> str | None:
    """Put a trainer where the folder's last checkpoint that can be read was written; why that is not the last one, if so.

    Raises CheckpointError.
    """
    path, tensors, header, reason = distributed.from_first(lambda: checkpoint.read_latest(folder))
    try:
        progress, sums = Progress(**header["progress"]), Sums(**header["sums"])
        if progress.batch and isinstance(trainer.train, StreamedDataset) and header.get("processes", 1) != distributed.world():
            raise CheckpointError(
                f"{path}: was written inside an epoch of shards, of which each of {header['processes']} processes read its own; "
                f"found {distributed.world()}; start as many as then, or fit again with --overwrite"
            )
        records, warned = header["records"], set(header["warned"])
        checkpoint.load_module(trainer.program, checkpoint.part(tensors, "program"), path)
        trainer.average.tensors = _on(trainer.device, checkpoint.part(tensors, "average"))
        trainer.best = _on(trainer.device, checkpoint.part(tensors, "best"))
        checkpoint.load_optimiser(trainer.optimiser, checkpoint.part(tensors, "optimiser"))
        _restore_random_states(trainer.device, tensors, header)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: lacks what a fit needs to go on ({error!r}); fit again with --overwrite") from error
    trainer.progress, trainer.sums, trainer.records, trainer.warned = progress, sums, records, warned
    trainer.snapshots.restore(checkpoint.part(tensors, "snapshots"))
    # The other files may be a checkpoint behind this one, or ahead of it.
    if trainer.out is not None and progress.best_epoch:
        write_best(trainer, folder)
    if trainer.out is not None and progress.epoch:
        write_views(trainer, folder)
    logs.event("resume", checkpoint=path.name, damaged=reason is not None, epoch=progress.epoch, batch=progress.batch, step=progress.step)
    return reason


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _random_states(device: torch.device, header: dict[str, Any]) -> dict[str, Tensor]:
    """Of every generator that an encoder may draw from; our own code uses torch's alone."""
    _, keys, place, has_gauss, gauss = np.random.get_state()
    version, words, normal = random.getstate()
    header["random"] = {"numpy": [int(place), int(has_gauss), float(gauss)], "python": [version, normal]}
    tensors = {
        "random.cpu": torch.get_rng_state(),
        "random.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "random.python": torch.tensor(words),
    }
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def _restore_random_states(device: torch.device, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    place, has_gauss, gauss = header["random"]["numpy"]
    version, normal = header["random"]["python"]
    torch.set_rng_state(tensors["random.cpu"])
    np.random.set_state(("MT19937", tensors["random.numpy"].numpy().astype(np.uint32), place, has_gauss, gauss))
    random.setstate((version, tuple(tensors["random.python"].tolist()), normal))
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)

"""Several processes at one fit: the one place that talks to torch.distributed.

Where a process group of more than one is there (`torchrun -m cm2pyro …` makes one, or a user's own program), its processes fit, predict and
evaluate together. All read the same data and take the same decisions; `first` alone writes. In a single process nothing here does anything.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.errors import CheckpointError, CM2Error, ConfigError, DataError

T = TypeVar("T")
_WAIT = timedelta(hours=4)  # for a process that does what it alone does, such as reading a disk that is slow for it
_LOST = re.compile(r"connection (was )?(closed|reset|refused)|gloo|nccl|peer|broken pipe|store", re.IGNORECASE)
_alone = False
_store: dist.Store | None = None
_begun = 0  # groups so far
_speaks: bool | None = None  # whether this process says what ended all; None while nothing has


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """While the block runs this process computes by itself."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


# --- beginning and end ------------------------------------------------------------------------------------------------


@contextmanager
def processes() -> Iterator[None]:
    """The process group that the environment describes, as torchrun sets it, while the block runs. Raises CM2Error if one of it ends."""
    global _store, _begun, _speaks
    _begun, _speaks = _begun + 1, None
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    own_cards = torch.cuda.is_available() and torch.cuda.device_count() >= local
    try:
        store, rank, size = next(dist.rendezvous("env://"))
        # One store serves all groups of a process and, under torchrun, those of processes that were started again.
        _store = dist.PrefixStore(f"cm2pyro/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_begun}", store)
        # NCCL cannot put two processes on one card; what they decide together goes through gloo, without a card.
        backend = "cpu:gloo,cuda:nccl" if own_cards else "gloo"
        dist.init_process_group(backend, store=_store, rank=rank, world_size=size, timeout=_WAIT)
        yield
    except Exception as error:
        lost = isinstance(error, RuntimeError | ConnectionError) and not isinstance(error, torch.OutOfMemoryError | CM2Error)
        if not (lost and _LOST.search(str(error))):
            speaks_first()  # before the connections close, which the others would remark on
            raise
        raise CM2Error(
            "another process of this one has ended, or cannot be reached; its own message says why, if it could give one; "
            "a fit goes on with --resume"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def speaks_first() -> bool:
    """Whether no other process has asked this before: an error that ends all is said once. Always the same answer."""
    global _speaks
    if _store is None:  # they do not know of each other yet, and all have found the same
        return os.environ.get("RANK", "0") == "0"
    if _speaks is None:
        try:
            _speaks = _store.add("said", 1) == 1
        except RuntimeError:  # the process that keeps the store has ended
            _speaks = True
    return _speaks


def card() -> int:
    """The CUDA device of this process."""
    return int(os.environ.get("LOCAL_RANK", rank())) % torch.cuda.device_count() if world() > 1 else torch.cuda.current_device()


# --- what all know ----------------------------------------------------------------------------------------------------


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, which alone calls it; what it refuses is refused by all."""
    if world() == 1:
        return make()
    found: list[object] = [None, None]
    if first():
        try:
            found[1] = make()
        except (ConfigError, DataError, CheckpointError) as error:
            found[0] = error
    dist.broadcast_object_list(found, 0)
    if isinstance(found[0], CM2Error):
        raise found[0]
    return found[1]  # type: ignore[return-value]


def most(value: int) -> int:
    """The largest of all processes' numbers."""
    if world() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def means(values: Sequence[float]) -> list[float]:
    """The means of every process's numbers, of which each gives as many."""
    if world() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor / world()]


def every(value: T) -> list[T]:
    """What each process has, in their order."""
    if world() == 1:
        return [value]
    found: list[T] = [value] * world()
    dist.all_gather_object(found, value)
    return found


def any_of(reason: str | None) -> str | None:
    """The reason of the first process that has one."""
    if not most(int(reason is not None)):
        return None
    return next(found for found in every(reason) if found is not None)


# --- rows divided among processes -------------------------------------------------------------------------------------


def batches(dataset: Dataset, size: int) -> Iterator[Batch]:
    """Every `world`-th batch of `dataset.batches(size)`: whole ones, so that no number depends on how many processes there are."""
    for i, rows in enumerate(torch.arange(len(dataset)).split(size)):
        if i % world() == rank():
            yield dataset.batch(rows)


def interleaved(values: Sequence[T]) -> list[T]:
    """What the processes made of their `batches`, one value a batch, in the order of all batches."""
    each = every(list(values))
    return [each[i % len(each)][i // len(each)] for i in range(sum(map(len, each)))]


# --- one model --------------------------------------------------------------------------------------------------------


def wrapped(module: nn.Module) -> nn.Module:
    """The module with gradients that are means over the processes; all begin with the first one's parameters."""
    if world() == 1:
        return module
    # An encoder whose modality no row of a process has is left out of its graph.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a newer name for what keeps buffers as they are
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)


def equalise(module: nn.Module) -> None:
    """Give all processes the first one's parameters and buffers."""
    if world() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def merge(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Move running statistics by the mean of how far the processes moved them; buffers as they are and as they were."""
    if world() == 1 or not buffers:
        return
    moved = torch.cat([(now - before).reshape(-1).double() for now, before in buffers])
    dist.all_reduce(moved)
    parts = (moved / world()).split([now.numel() for now, _ in buffers])
    for (now, before), part in zip(buffers, parts, strict=True):
        part = part if now.is_floating_point() else part.round()
        now.copy_(before + part.reshape(now.shape).to(now.dtype))

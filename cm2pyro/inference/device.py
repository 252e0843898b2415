"""Where a fit runs, and what it asks of torch there: the same bits every time, compiled encoders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode

from cm2pyro.config import Config, Fit, Modality
from cm2pyro.encoders import Encoder
from cm2pyro.errors import ConfigError
from cm2pyro.inference import distributed
from cm2pyro.registry import one_line

_WORKSPACE, _FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")  # with which cuBLAS gives the same sums every time
_NO_COMPILER = "install a C++ compiler (the variable CXX may name one), or leave fit.compile at false"


def pick_device(name: str) -> torch.device:
    """auto, cpu or cuda; several processes have a card each, or share them. Raises ConfigError if there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device cuda: torch finds no CUDA device; use --device auto or cpu")
    if not there or name == "cpu":
        return torch.device("cpu")
    if distributed.world() == 1:
        return torch.device("cuda")
    torch.cuda.set_device(distributed.card())
    return torch.device("cuda", distributed.card())


def default_threads(config: Config) -> int:
    """CPU threads of a fit that was told none: one where all encoders are small, else torch's own number."""
    return 1 if small_encoders(config) else torch.get_num_threads()


def small_encoders(config: Config) -> bool:
    """Whether the steps of all encoders are tiny operations: there a second thread costs more than it gives."""
    return all(_small(modality) for modality in config.modalities.values())


def _small(modality: Modality) -> bool:
    if modality.encoder == "tinybert":
        return bool(modality.options.get("hidden", 312) <= 128)
    return modality.kind in ("timeseries", "tabular", "embedding") or modality.encoder in ("cnn", "bag")


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """With `on`, torch's operations give the same bits every time inside the block; flags and environment are restored after it.

    Raises:
        ConfigError: an operation inside has no deterministic form; cuBLAS was told to use a workspace that is not.
    """
    if not on:
        yield
        return
    given = os.environ.get(_WORKSPACE)
    if given is not None and given not in _FIXED:
        raise ConfigError(f"fit.deterministic: {_WORKSPACE} is {one_line(given, 40)}, expected {' or '.join(_FIXED)}; unset it")
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    warns, flags = torch.is_deterministic_algorithms_warn_only_enabled(), (cudnn.deterministic, cudnn.benchmark)
    os.environ[_WORKSPACE] = given or _FIXED[0]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with RunningSums() if torch.cuda.is_available() else nullcontext():
            yield
    except RuntimeError as error:
        if "deterministic" not in str(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ConfigError(
            f"fit.deterministic: {one_line(str(error).split('.')[0], 120)}; choose another encoder, or leave it at false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        cudnn.deterministic, cudnn.benchmark = flags
        if given is None:
            os.environ.pop(_WORKSPACE, None)


class RunningSums(TorchDispatchMode):
    """Inside the block running sums of floating point numbers are products with a triangle.

    Torch has no deterministic `cumsum` on CUDA. Components are drawn with one, and the derivative of `cumprod`, in the bijections to
    simplexes and to factors of correlations, is another. A number that is not finite spreads to the entries before it.
    """

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # else torch.compile would leave everything as it is

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.cumsum.default and not kwargs and args[0].is_floating_point():
            return running_sum(args[0], args[1])
        return func(*args, **(kwargs or {}))


def running_sum(x: Tensor, dim: int, block: int = 256) -> Tensor:
    """`x.cumsum(dim)` by triangles of `block` numbers, so that long sums take no more memory than their own."""
    if x.dim() == 0 or x.numel() == 0:
        return x.clone()
    x = x.movedim(dim, -1)
    n = x.shape[-1]
    parts = torch.nn.functional.pad(x, (0, -n % block if n > block else 0)).unflatten(-1, (-1, min(n, block)))
    sums = parts @ torch.ones(parts.shape[-1], parts.shape[-1], dtype=x.dtype, device=x.device).triu()
    if parts.shape[-2] > 1:
        ends = sums[..., -1]
        sums = sums + (running_sum(ends, -1, block) - ends)[..., None]
    return sums.flatten(-2)[..., :n].movedim(-1, dim)


@contextmanager
def compiling() -> Iterator[None]:
    """Say in one line what torch.compile could not do inside the block. Raises ConfigError."""
    try:
        yield
    except Exception as error:
        # Not imported where nothing is compiled: it takes a second.
        if type(error).__module__.partition(".")[0] != "torch" or not _of_compiler(error):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"fit.compile: torch.compile failed ({one_line(reason, 160)}); {_NO_COMPILER}") from error


def _of_compiler(error: BaseException) -> bool:
    return any(cls.__module__.startswith(("torch._dynamo", "torch._inductor")) for cls in type(error).__mro__)


def check_compiler(fit: Fit, device: torch.device) -> None:
    """Before anything is replaced: the compiler works, tried on one addition, which takes seconds. Raises ConfigError."""
    if fit.compile:
        unseen = int.from_bytes(os.urandom(6))  # what an earlier process compiled says nothing about now

        def shifted(x: torch.Tensor) -> torch.Tensor:
            return x + unseen

        checks = Distribution._validate_args
        with compiling(), torch.no_grad():
            torch.compile(shifted, dynamic=False)(torch.zeros(2, device=device))
        # At its first use in a process torch.compile turns the checks of all distributions off.
        Distribution.set_default_validate_args(checks)


def compile_encoders(encoders: list[Encoder], backend: str = "inductor") -> None:
    """Compile the networks of encoders in place, at their first call; names of parameters stay, and copies are not compiled.

    Sizes are dynamic: batches in which different numbers of rows have a modality share one program.
    """
    for encoder in encoders:
        for network in encoder.networks():
            network.compile(dynamic=True, backend=backend)

"""How often a step waits for the device that computes it: once, to read its numbers.

There is no device to wait for on a CPU. What would wait is counted instead: operations whose result's shape or value the host needs.
The optimiser is left out, whose counters lie in the host's memory wherever the weights are.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions import special
from cm2pyro.inference.program import Program
from cm2pyro.inference.step import make_optimiser, take_step

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
# Of ATen, beside indices that are masks; `linalg_*` without `_ex` look whether they have failed.
WAIT = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors"}
READ = {"cpu", "tolist", "item", "__bool__", "__float__", "__int__", "__index__"}
# Of torch itself: the M x M triangle of a correlation's factor is filled by a mask, in both directions.
TRIANGLE = 2


class Operations(TorchDispatchMode):
    """Counts what waits, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        masked = name in ("index", "index_put", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAIT or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Readings(TorchFunctionMode):
    """Counts numbers that Python reads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READ:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def program(family: str, **changes: dict[str, Any]) -> Program:
    config = {
        "modalities": {name: {"kind": "embedding", "encoder": "mlp"} for name in NAMES},
        "latent": {"dim": 2},
        "prior": {"components": 2, "copula": {"family": family}},
    } | changes
    torch.manual_seed(0)
    return Program(Config.from_dict(config), {name: {"vector": (4,)} for name in NAMES}, 2).train()


def rows(n: int = 40) -> Batch:
    torch.manual_seed(1)
    inputs = {name: {"vector": torch.randn(n, 4)} for name in NAMES}
    return Batch(inputs, torch.rand(n, 3) > 0.3, torch.arange(n) % 2, torch.ones(n, dtype=torch.bool), torch.arange(n), n)


def waits(made: Program, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[str]]:
    """Of the second step: the first one is checked by Pyro."""
    optimiser = make_optimiser(made.config, made)
    assert not isinstance(take_step(made.config, made, optimiser, batch, 1.0), str)
    monkeypatch.setattr(special, "waits", lambda device: True)
    monkeypatch.setattr(optimiser, "step", lambda: None)
    operations, readings = Operations(), Readings()
    with operations, readings:
        assert not isinstance(take_step(made.config, made, optimiser, batch, 1.0), str)
    return operations.found, readings.found


@pytest.mark.parametrize(("family", "left"), [("gaussian", TRIANGLE), ("independence", 0)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"fit": {"modality_dropout": 0.3, "l1": 1e-3, "auxiliary": 0.1}}, {"guide": {"local": "delta"}}, {"prior.coupling": "full"}],
    ids=["plain", "with penalties", "points", "full"],
)
def test_a_step_reads_its_numbers_once(family: str, left: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    prior = {"components": 2, "coupling": changes.get("prior.coupling", "shared"), "copula": {"family": family}}
    others = {key: value for key, value in changes.items() if "." not in key}
    operations, readings = waits(program(family, prior=prior, **others), rows(), monkeypatch)
    assert operations.total() == left, operations
    assert readings == {"cpu": 1, "tolist": 1}  # the second reads what the first has brought


def test_what_is_counted_is_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number read inside the loss is seen, from Python and from ATen."""
    made, plain = program("gaussian"), Program.loss
    monkeypatch.setattr(Program, "loss", lambda self, batch: plain(self, batch) * float(torch.ones(()) > 0))
    operations, readings = waits(made, rows(), monkeypatch)
    assert operations["_local_scalar_dense"] == 1
    assert readings["__float__"] == 1


def every_pattern(monkeypatch: pytest.MonkeyPatch, value: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """As on a CPU, and as where asking means waiting."""
    here = value()
    monkeypatch.setattr(special, "waits", lambda device: True)
    return here, value()


@pytest.mark.parametrize("n", [5, 40])  # fewer rows than patterns, and more
def test_what_is_computed_without_asking_is_the_same(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = program("gaussian"), rows(n)

    def losses() -> Tensor:
        torch.manual_seed(2)
        loss = made.loss(batch)
        made.zero_grad()
        loss.backward()
        return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in made.parameters() if p.grad is not None)]).double()

    here, elsewhere = every_pattern(monkeypatch, losses)
    assert torch.allclose(here, elsewhere, rtol=1e-5, atol=1e-6)  # sums of float32 in another order


def test_tails_without_asking_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    s = torch.linspace(-40, 40, 401)

    def tails() -> Tensor:
        return torch.stack([special.log_ndtr(s), *special.log_neg_log_ndtr(s)])

    here, elsewhere = every_pattern(monkeypatch, tails)
    assert torch.equal(here, elsewhere)
    assert torch.isfinite(here).all()

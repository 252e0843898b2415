"""Where and how a fit runs: deterministic operations, compiled encoders, transfers."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode

from cm2pyro.api import CM2
from cm2pyro.data import dataset
from cm2pyro.errors import ConfigError
from cm2pyro.inference import checkpoint
from cm2pyro.inference.device import RunningSums, compile_encoders, compiling, deterministic, running_sum
from cm2pyro.inference.program import Program
from tests.inference.fits import last, settings, table
from tests.inference.test_waiting import program, rows

TABLE = table()


@pytest.fixture(autouse=True)
def _checks_kept() -> Iterator[None]:
    """At its first use torch.compile turns the checks of distributions off; `check_compiler`, which undoes that, is not in every test."""
    yield
    Distribution.set_default_validate_args(True)


def flags() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    on = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *on, cudnn.deterministic, cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


class Net(nn.Module):
    """Runs something in its forward pass."""

    def __init__(self, work: Any) -> None:
        super().__init__()
        self.linear, self.work = nn.Linear(2, 3), work

    def forward(self, x: Tensor) -> Tensor:
        if self.training:  # its width is found in evaluation mode, before the fit
            self.work()
        return self.linear(x)


# --- deterministic ----------------------------------------------------------------------------------------------


def test_a_deterministic_fit_sets_what_it_needs_and_restores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, seen = flags(), []
    net = Net(lambda: seen.append(flags()))
    CM2.from_config(settings(fit={"deterministic": True, "epochs": 1}), encoders={"a": net}).fit(TABLE)
    assert before[0] is False
    assert seen[-1] == (True, False, True, False, ":4096:8")
    assert flags() == before


@pytest.mark.slow
def test_two_deterministic_fits_are_the_same_bits(tmp_path: Path) -> None:
    for name in "ab":
        torch.manual_seed(ord(name))  # what came before does not count
        CM2.from_config(settings(fit={"deterministic": True, "modality_dropout": 0.3})).fit(TABLE, out=tmp_path / name)
    (one, header), (other, other_header) = (checkpoint.read(last(tmp_path / name)) for name in "ab")
    assert set(one) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert header["progress"] == other_header["progress"]


def test_an_operation_without_a_deterministic_form_is_refused() -> None:
    net = Net(lambda: torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2)))
    config = settings(fit={"deterministic": True, "epochs": 1})
    with pytest.raises(
        ConfigError, match=r"fit\.deterministic: put_ does not have a deterministic implementation.*; choose another encoder"
    ):
        CM2.from_config(config, encoders={"a": net}).fit(TABLE)
    assert not torch.are_deterministic_algorithms_enabled()
    CM2.from_config(settings(fit={"epochs": 1}), encoders={"a": net}).fit(TABLE)  # without, it runs


def test_a_workspace_of_cublas_that_is_not_deterministic_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(ConfigError, match=r"CUBLAS_WORKSPACE_CONFIG is :0:0, expected :4096:8 or :16:8; unset it"), deterministic(True):
        pass
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":0:0"


# --- compiled encoders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (7,), (256,), (257,), (3, 70_000), (4, 600, 2), (0, 3), (3, 0)])
@pytest.mark.parametrize("dim", [0, -1])
def test_running_sums_by_triangles(shape: tuple[int, ...], dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(running_sum(x, dim), x.cumsum(dim), rtol=0, atol=1e-9)


class Sums(TorchDispatchMode):
    """How many running sums of floating point numbers reach torch."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += func._schema.name.startswith("aten::cumsum") and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "of_globals"), [("gaussian", "delta"), ("student_t", "normal"), ("clayton", "normal"), ("gaussian", "flow")]
)
def test_a_step_without_torchs_running_sums_is_the_same_step(family: str, of_globals: str) -> None:
    found, losses, gradients = [], [], []
    for mode in (nullcontext(), RunningSums()):
        made = program(family, guide={"globals": of_globals})
        torch.manual_seed(1)
        with Sums() as sums, mode:
            loss = made.loss(rows())
            loss.backward()
        found.append(sums.found)
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None]))
    assert found[0] > 0
    assert found[1] == 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


class Compiler:
    """A backend that runs the graph as it is, and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: list[Any]) -> Any:
        self.graphs += 1
        return graph.forward


def without_dropout() -> Program:
    encoders = {name: {"kind": "embedding", "encoder": "mlp", "dropout": 0} for name in ("a", "b", "c")}
    return program("gaussian", modalities=encoders)


@pytest.mark.slow
def test_compiled_encoders_keep_names_and_numbers_and_are_compiled_once() -> None:
    """Batches of many sizes, of which ever other numbers of rows have a modality, share a program."""
    plain, compiled, compiler = without_dropout(), without_dropout(), Compiler()
    torch._dynamo.reset()
    compile_encoders(compiled.guide.encoders(), compiler)
    graphs = []
    for n in (40, 17, 23, 31, 9, 40):
        batch, losses = rows(n), []
        for made in (plain, compiled):
            torch.manual_seed(3)
            losses.append(made.loss(batch))
        assert torch.equal(*losses)
        graphs.append(compiler.graphs)
    losses[1].backward()
    assert graphs == [graphs[0]] * 6
    assert 1 <= graphs[0] <= 3  # of encoders; those that are alike may share one
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert not any("_orig_mod" in name for name in compiled.state_dict())
    plain.load_state_dict(compiled.state_dict())


def test_what_is_compiled_of_each_encoder() -> None:
    """Not what draws by chance on the host or picks rows by a mask, which would break the graph at every batch."""
    from cm2pyro.encoders.language import Bag
    from cm2pyro.encoders.lstm import LSTM, SummaryLSTM
    from cm2pyro.encoders.mlp import Identity
    from cm2pyro.encoders.transformer import Transformer
    from cm2pyro.encoders.vision import CNN

    series = {"binned": (6, 4), "measured": (6,), "summary": (5,)}
    cnn, bag, both, transformer = CNN({"pixels": (1, 20, 20)}, size=16), Bag({"tokens": (2, 8)}), SummaryLSTM(series), Transformer(series)
    assert cnn.networks() == [cnn.layers]
    assert bag.networks() == [bag.layers]
    assert both.networks() == [both.summary.layers]
    assert transformer.networks() == [transformer]
    assert LSTM(series).networks() == Identity({"vector": (2,)}).networks() == []


@pytest.mark.slow
def test_a_compiler_that_fails_is_one_line(tmp_path: Path) -> None:
    """Before anything is written, whatever earlier processes have compiled."""
    from torch._inductor.config import patch

    torch._dynamo.reset()
    config = settings(fit={"compile": True})
    said = r"fit\.compile: torch\.compile failed \(.*compiler.*\); install a C\+\+ compiler"
    with patch({"cpp.cxx": (None, "/nowhere/g++")}), pytest.raises(ConfigError, match=said) as error:
        CM2.from_config(config).fit(TABLE, out=tmp_path / "run", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_other_errors_are_not_said_to_be_the_compilers() -> None:
    with pytest.raises(RuntimeError, match="mine"), compiling():
        raise RuntimeError("mine")


@pytest.mark.slow
def test_a_compiled_fit_is_loaded_without(tmp_path: Path) -> None:
    torch._dynamo.reset()
    config = settings(fit={"epochs": 2, "compile": True})
    one = {"modalities": {"a": config["modalities"]["a"] | {"dropout": 0}, "b": {"kind": "embedding", "encoder": "identity"}}}
    fitted = CM2.from_config(config | one).fit(TABLE, out=tmp_path / "run")
    assert fitted.program.guide.encoders()[0].networks()[0]._compiled_call_impl is not None
    loaded = CM2.load(tmp_path / "run")
    assert loaded.program.guide.encoders()[0].networks()[0]._compiled_call_impl is None
    found, expected = (model.predict(TABLE)["probability"].to_numpy() for model in (loaded, fitted))
    assert found == pytest.approx(expected, abs=1e-6)  # sums of float32 in another order


# --- transfers --------------------------------------------------------------------------------------------------


def test_a_batch_goes_to_cuda_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of torch is looked at; whether it then overlaps with computing, only a CUDA device shows."""
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: asked.append(("pin", True)) or x)
    monkeypatch.setattr(Tensor, "to", lambda x, device, non_blocking=False: asked.append((device.type, non_blocking)) or x)
    batch = rows(6)
    moved = batch.to(torch.device("cuda"))
    assert asked == [("pin", True), ("cuda", True)] * (len(batch.inputs) + 4)
    assert moved.host is batch.observed


def test_a_batch_elsewhere_knows_its_mask() -> None:
    """On the meta device nothing can be read, so what is answered comes from the host."""
    batch = rows(6)
    moved = batch.to(torch.device("meta"))
    assert moved.observed.device.type == "meta"
    assert torch.equal(moved.mask, batch.observed)
    assert moved.complete is bool(batch.observed.all())
    assert [len(moved.having(m)) for m in range(3)] == batch.observed.sum(0).tolist()
    nothing = moved.hiding(torch.zeros(6, 3, dtype=torch.bool))
    assert [nothing.having(m) for m in range(3)] == [None] * 3
    assert nothing.available is moved.observed


def test_on_a_cpu_nothing_is_copied() -> None:
    batch = rows(6)
    assert batch.to(torch.device("cpu")) is batch
    assert dataset.transferred(batch.labels, torch.device("cpu")) is batch.labels

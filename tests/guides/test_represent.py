"""What an absent modality may change: nothing of the others, no gradient, no statistics."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.guides import Guide
from cm2pyro.guides.local import RowNorm
from cm2pyro.inference.program import Program

pytestmark = pytest.mark.slow

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "ehr": {"binned": (6, 8), "measured": (6,)},
    "bed": {"binned": (6, 8), "measured": (6,)},
    "xray": {"pixels": (1, 40, 40)},
    "film": {"pixels": (1, 40, 40)},
    "note": {"tokens": (2, 9)},
    "report": {"tokens": (2, 9)},
    "lab": {"vector": (5,)},
}
NAMES = tuple(SHAPES)
DIM = 4


def config(dropout: bool = True, local: str = "normal") -> Config:
    still: dict[str, Any] = {} if dropout else {"dropout": 0.0}
    stiff: dict[str, Any] = {} if dropout else {"degrees": 0.0, "translate": 0.0, "zoom": 0.0}
    return Config.from_dict(
        {
            "modalities": {
                "ehr": {"kind": "timeseries", "encoder": "lstm", "hours": 12, "hidden": 8, **still},
                "bed": {"kind": "timeseries", "encoder": "transformer", "hours": 12, "hidden": 8, "heads": 2, **still},
                "xray": {"kind": "image", "encoder": "resnet18", "size": 32, **still, **stiff},
                "film": {"kind": "image", "encoder": "cnn", "size": 32, "width": 2, **still},
                "note": {"kind": "text", "encoder": "tinybert", "layers": 2, "hidden": 24, "heads": 4, "vocabulary": 300, "max_tokens": 9},
                "report": {"kind": "text", "encoder": "bag", "vocabulary": 300, "hidden": 8, "max_tokens": 9, **still},
                "lab": {"kind": "embedding", "encoder": "mlp", "hidden": 8, **still},
            },
            "latent": {"dim": DIM},
            "guide": {"local": local},
            "fit": {"modality_dropout": 0.0},
        }
    )


def guide(dropout: bool = True, local: str = "normal") -> Guide:
    torch.manual_seed(0)
    made = Program(config(dropout, local), SHAPES, 2).guide
    if not dropout:
        for part in made.modules():  # those that a network of Hugging Face or torchvision has inside
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    return made


def views(n: int, full: bool = False, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Inputs of n rows that have everything. full: every note has all its tokens, so that nothing in a batch is padding."""
    random = torch.Generator().manual_seed(seed)
    made: dict[str, dict[str, Tensor]] = {}
    for name, shapes in SHAPES.items():
        if "tokens" in shapes:
            tokens = torch.randint(4, 300, (n, 2, 9), generator=random)
            if not full:
                tokens[torch.arange(9) >= torch.randint(1, 10, (n, 2, 1), generator=random)] = -1
                tokens[torch.rand(n, generator=random) < 0.5, 1] = -1
            made[name] = {"tokens": tokens}
        elif "pixels" in shapes:
            made[name] = {"pixels": torch.randint(0, 256, (n, 1, 40, 40), generator=random).to(torch.uint8)}
        elif "binned" in shapes:
            measured = (torch.rand(n, 6, generator=random) < 0.7).float()
            measured[:, 1] = 1.0
            made[name] = {"binned": torch.randn(n, 6, 8, generator=random), "measured": measured}
        else:
            made[name] = {"vector": torch.randn(n, 5, generator=random)}
    return made


BLANK = {"tokens": -1}  # what a data set holds where a modality is missing; 0 elsewhere


def batch(inputs: dict[str, dict[str, Tensor]], observed: Tensor) -> Batch:
    """The batch as a data set would give it: what is missing is blank."""
    n = len(observed)
    blanked = {
        name: {
            view: torch.where(observed[:, m].view(-1, *[1] * (x.dim() - 1)), x, torch.full_like(x, BLANK.get(view, 0)))
            for view, x in inputs[name].items()
        }
        for m, name in enumerate(NAMES)
    }
    return Batch(blanked, observed, torch.arange(n) % 2, torch.ones(n, dtype=torch.bool), torch.arange(n), n)


def all_there(n: int) -> Tensor:
    return torch.ones(n, len(NAMES), dtype=torch.bool)


def column(name: str) -> int:
    return NAMES.index(name)


REMOVALS: dict[str, Callable[[Tensor, int], None]] = {
    "from one row": lambda observed, m: observed[len(observed) // 2].__setitem__(m, False),
    "from every row": lambda observed, m: observed[:, m].fill_(False),
    "from all rows but one": lambda observed, m: observed[1:, m].fill_(False),
}


@pytest.fixture(scope="module")
def evaluated() -> Guide:
    return guide().eval()


@pytest.mark.parametrize("full", [False, True], ids=["ragged", "full"])
@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("how", REMOVALS)
@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_removing_one_modality_changes_no_bit_of_the_others(
    evaluated: Guide, name: str, how: str, n: int, full: bool
) -> None:
    inputs = views(n, full)
    observed = all_there(n)
    m = column(name)
    REMOVALS[how](observed, m)
    with torch.no_grad():
        before, after = evaluated.represent(batch(inputs, all_there(n))), evaluated.represent(batch(inputs, observed))
        # Hidden by the mask alone, with the values still there, as under modality dropout and `evaluate --missing`.
        hidden = evaluated.represent(batch(inputs, all_there(n)).hiding(observed))
    for old, new, masked in zip(before, after, hidden, strict=True):
        assert new[observed].equal(old[observed])  # the same modality in the rows that keep it, too
        assert not new[~observed].any()
        assert masked.equal(new)
    assert bool(before[0].isfinite().all())
    assert before[0].std() > 0


def test_in_evaluation_removal_from_a_whole_split_changes_nothing(evaluated: Guide) -> None:
    """Batch by batch over a split, the outputs of the encoders themselves are compared."""
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, given, out: kept.setdefault(name, []).append(out)

    hooks = [local.encoder.register_forward_hook(keep(name)) for name, local in evaluated._locals.items()]
    inputs, n, size = views(22), 22, 8

    def run(observed: Tensor) -> dict[str, Tensor]:
        kept.clear()
        whole = batch(inputs, observed)
        for rows in torch.arange(n).split(size):
            part = {name: {view: x[rows] for view, x in given.items()} for name, given in whole.inputs.items()}
            evaluated.represent(Batch(part, observed[rows], whole.labels[rows], whole.labelled[rows], rows, n))
        return {name: torch.cat(outs) for name, outs in kept.items()}

    with torch.no_grad():
        before = run(all_there(n))
        for name in NAMES:
            observed = all_there(n)
            observed[:, column(name)] = False
            after = run(observed)
            assert set(after) == set(NAMES) - {name}  # the encoder of what nobody has is not even asked
            assert all(after[other].equal(before[other]) for other in after)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", NAMES)
def test_in_training_removing_one_modality_changes_no_bit_of_the_others(name: str) -> None:
    n, m = 6, column(name)
    inputs = views(n)
    for removed in ([3], [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5]):
        observed = all_there(n)
        observed[removed, m] = False
        results = []
        for mask in (all_there(n), observed):
            made = guide(dropout=False).train()  # anew, since training moves running statistics
            with torch.no_grad():
                results.append((made.represent(batch(inputs, mask)), {k: v.clone() for k, v in made.state_dict().items()}))
        (before, state), (after, state_after) = results
        others = [other for other in range(len(NAMES)) if other != m]
        for old, new in zip(before, after, strict=True):
            assert new[:, others].equal(old[:, others])
            assert not new[removed, m].any()
        for key, value in state.items():
            if f"of_{name}." not in key:
                assert value.equal(state_after[key]), key


@pytest.mark.parametrize("local", ["normal", "delta"])
@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_of_an_absent_modality_gets_exactly_no_gradient(name: str, local: str) -> None:
    torch.manual_seed(0)
    program = Program(config(local=local), SHAPES, 2).train()
    n = 4
    observed = all_there(n)
    observed[:, column(name)] = False
    before = {key: value.clone() for key, value in program.state_dict().items()}
    program.loss(batch(views(n), observed)).backward()
    own = f"guide.locals.of_{name}."
    got = {key for key, p in program.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert not [key for key in got if key.startswith(own)]
    for other in NAMES:
        assert (other != name) == any(key.startswith(f"guide.locals.of_{other}.") for key in got)
    assert all(bool(p.grad.isfinite().all()) for p in program.parameters() if p.grad is not None)
    # Nor do buffers of its encoder move: counters and running statistics are those from before.
    assert all(value.equal(before[key]) for key, value in program.state_dict().items() if key.startswith(own))


def running(made: Guide) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in made.state_dict().items() if "running_" in key}


def test_statistics_are_those_of_the_pictures_that_are_there() -> None:
    """Rows without one may hold anything: a batch with them moves statistics as one without them."""
    n, m = 6, column("xray")
    inputs = views(n)
    observed = all_there(n)
    observed[[1, 4], m] = False
    made, alone = guide(dropout=False).train(), guide(dropout=False).train()
    noisy = batch(inputs, all_there(n)).hiding(observed)
    noisy.inputs["xray"]["pixels"][[1, 4]] = 255
    made.represent(noisy)
    rows = torch.tensor([0, 2, 3, 5])
    alone._locals["xray"].encoder({"pixels": inputs["xray"]["pixels"][rows]})
    expected = running(alone)
    moved = running(made)
    assert moved
    assert all(moved[key].equal(expected[key]) for key in moved)


def test_one_picture_or_none_in_a_batch_leaves_statistics_and_works() -> None:
    made = guide().train()
    before = running(made)
    for seen in (0, 1):
        observed = all_there(5)
        observed[seen:, column("xray")] = False
        loc, scale = made.represent(batch(views(5), observed))
        assert bool(loc.isfinite().all())
        assert bool((scale[observed] > 0).all())
        assert all(value.equal(before[key]) for key, value in running(made).items())


def test_a_batch_of_one_row_trains() -> None:
    torch.manual_seed(0)
    for local in ("normal", "delta"):
        program = Program(config(local=local), SHAPES, 2).train()
        loss = program.loss(batch(views(1), all_there(1)))
        loss.backward()
        assert bool(loss.isfinite())
        assert all(bool(p.grad.isfinite().all()) for p in program.parameters() if p.grad is not None)


def test_nobody_has_anything() -> None:
    program = Program(config(), SHAPES, 2).train()
    loss = program.loss(batch(views(3), ~all_there(3)))
    loss.backward()
    assert bool(loss.isfinite())
    assert not any(bool(p.grad.any()) for p in program.guide.locals.parameters() if p.grad is not None)


def test_a_module_with_batch_normalisation_takes_one_row_and_leaves_its_statistics() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6), nn.BatchNorm1d(6))
    program = Program(config(), SHAPES, 2, {"xray": net}).train()
    before = {key: value.clone() for key, value in net.state_dict().items() if "running_" in key}
    observed = all_there(4)
    observed[1:, column("xray")] = False
    program.loss(batch(views(4), observed)).backward()
    assert all(value.equal(before[key]) for key, value in net.state_dict().items() if "running_" in key)
    program.loss(batch(views(4), all_there(4))).backward()
    assert not any(value.equal(before[key]) for key, value in net.state_dict().items() if "running_" in key)


def test_row_norms_are_there_for_points() -> None:
    assert any(isinstance(part, RowNorm) for part in guide(local="delta").modules())

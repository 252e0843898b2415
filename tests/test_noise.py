"""Noise of shared batches: the parts of all processes are what one process draws."""

import pytest
import torch
from torch import Tensor

from cm2pyro import noise
from cm2pyro.noise import Share

CPU = torch.device("cpu")


@pytest.mark.parametrize("draw", [noise.normal_like, noise.uniform_like])
@pytest.mark.parametrize(("shape", "dim"), [((7, 3, 2), 0), ((4, 7, 3, 2), -3), ((7,), -1), ((40, 7), 1)])
def test_the_parts_are_the_whole(draw, shape: tuple[int, ...], dim: int) -> None:
    def part(share: Share | None, like: Tensor) -> Tensor:
        torch.manual_seed(0)
        with noise.shared(share, CPU, 0):
            return draw(like, dim)

    whole = torch.zeros(shape)
    parts = [part(Share(r, a, b - a, 7), whole.narrow(dim, a, b - a)) for r, (a, b) in enumerate([(0, 3), (3, 7)])]
    assert torch.cat(parts, dim).equal(part(None, whole))


def test_memory_that_is_not_in_the_order_of_dimensions() -> None:
    """`randn_like` fills memory in its order, and so does a part of it."""
    whole = torch.zeros(5, 7, 30).permute(1, 2, 0)  # rows first, but not in memory
    torch.manual_seed(0)
    expected = noise.normal_like(whole, 0)
    torch.manual_seed(0)
    with noise.shared(Share(0, 2, 3, 7), CPU, 0):
        assert noise.normal_like(torch.zeros(5, 3, 30).permute(1, 2, 0), 0).equal(expected[2:5])


def test_own_draws_differ_between_processes_and_blocks_and_leave_the_shared_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = []
    for rank in range(2):
        with noise.shared(Share(rank, rank, 1, 2), CPU, 5):
            for _ in range(2):
                with noise.own():
                    found.append(torch.rand(3))
    assert torch.get_rng_state().equal(before)
    assert len({tuple(x.tolist()) for x in found}) == 4
    with noise.shared(Share(1, 1, 1, 2), CPU, 5), noise.own():
        assert torch.rand(3).equal(found[2])  # of seed, process and block alone: a resumed fit draws the same
    with noise.own():  # in a single process it is not there
        torch.rand(1)
    assert not torch.get_rng_state().equal(before)

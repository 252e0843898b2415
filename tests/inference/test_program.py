"""What a program does for all that ask it: draws of its global sites, evaluation mode for a while."""

import pytest
import torch

from cm2pyro.inference.program import evaluating
from tests.inference.test_waiting import program


@pytest.mark.parametrize("globals_", ["delta", "normal", "flow"])
def test_draws_of_the_global_sites_follow_the_seed_and_leave_the_callers_generator(globals_: str) -> None:
    made = program("gaussian", guide={"globals": globals_})
    state = torch.get_rng_state()
    one, again, other = (made.draw_globals(3, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("weights", "locs", "scales", "copula"):
        assert all(torch.equal(a[name], b[name]) for a, b in zip(one, again, strict=True))
        assert torch.equal(one[0][name], other[0][name]) == (globals_ == "delta")


def test_evaluation_mode_ends_with_the_block_however_that_ends() -> None:
    learning, fitted = program("gaussian"), program("gaussian").eval()

    def fail() -> None:
        with evaluating([learning, fitted]):
            assert not learning.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert learning.training
    assert not fitted.training

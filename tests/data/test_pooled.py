"""Pooled features of every view."""

import numpy as np
import pytest
import torch

from cm2pyro.data.kinds import KINDS
from cm2pyro.data.pooled import pooled, pooled_view, pooled_width


def test_vectors_and_summaries_are_as_they_are_and_bins_are_averaged() -> None:
    x = torch.randn(3, 7)
    assert pooled("vector", x).equal(x)
    assert pooled("summary", x).equal(x)
    grid = torch.randn(3, 4, 5)
    np.testing.assert_allclose(pooled("binned", grid).numpy(), grid.numpy().mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_block_means(channels: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (2, channels, 32, 32)).astype(np.uint8)
    blocks = levels.astype(float).mean(1).reshape(2, 8, 4, 8, 4).mean((2, 4)) / 255
    np.testing.assert_allclose(pooled("pixels", torch.from_numpy(levels)).numpy(), blocks.reshape(2, 64), rtol=1e-5)
    assert pooled("pixels", torch.zeros(2, 1, 45, 45, dtype=torch.uint8)).shape == (2, 64)


def test_words_are_counted_wherever_they_stand() -> None:
    tokens = torch.full((3, 2, 4), -1, dtype=torch.int32)
    tokens[0, 0, :3] = torch.tensor([5, 900, 5])
    tokens[1, 0, 0], tokens[1, 1, :2] = 900, torch.tensor([5, 5])
    found = pooled("tokens", tokens)
    assert found[0].equal(found[1])
    assert not found[2].any()
    torch.testing.assert_close(found[0].expm1().sum(), torch.tensor(3.0))
    assert sorted(found[0][found[0] > 0].expm1().round().tolist()) == [1.0, 2.0]
    # Frequent tokens have small numbers, one after the other; they fall into buckets of their own more often than not.
    single = pooled("tokens", torch.arange(256)[:, None, None])
    assert int(single.any(0).sum()) > 128


def test_every_kind_has_a_view_to_pool_and_its_width_is_known() -> None:
    for kind in KINDS.names():
        offers = KINDS.get(kind).offers
        assert pooled_view(offers) in offers
    assert pooled_view(("binned", "measured", "summary")) == "summary"
    assert [pooled_width(*case) for case in (("vector", (5,)), ("binned", (6, 8)), ("pixels", (1, 40, 40)), ("tokens", (2, 9)))] == [
        5,
        8,
        64,
        256,
    ]

"""What is frozen gives the same features in training and evaluation."""

import pytest
import torch
from torch import nn

from cm2pyro.encoders import ENCODERS
from cm2pyro.encoders.tuning import Still


@pytest.mark.parametrize(
    ("name", "view", "options"),
    [
        (
            "mobilenet_v3_small",
            {"pixels": torch.randint(0, 256, (3, 1, 40, 40)).to(torch.uint8)},
            {"size": 32, "degrees": 0, "translate": 0, "zoom": 0},
        ),
        ("tinybert", {"tokens": torch.randint(0, 300, (3, 1, 8))}, {"layers": 2, "hidden": 24, "heads": 4, "vocabulary": 300}),
    ],
)
def test_frozen_networks_have_no_dropout(name: str, view: dict[str, torch.Tensor], options: dict[str, object]) -> None:
    torch.manual_seed(0)
    shapes = {key: tuple(x.shape[1:]) for key, x in view.items()}
    encoder = ENCODERS.get(name)(shapes, tune="frozen", **options)  # type: ignore[call-arg]
    still = encoder.eval()(view)
    assert torch.allclose(encoder.train()(view), still, atol=1e-6)
    moving = ENCODERS.get(name)(shapes, tune="all", **options).train()  # type: ignore[call-arg]
    assert not torch.allclose(moving(view), moving(view), atol=1e-6)


def test_parts_that_are_trained_go_on_training() -> None:
    frozen, trained = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    frozen.requires_grad_(False)
    network = nn.Sequential(frozen, trained).train()
    still = Still(network)
    still(network, 1)
    assert [part.training for part in (network, frozen[1], trained[0], trained[1])] == [True, False, False, True]
    still(network, 2)
    assert [part.training for part in (network, frozen[1], trained[0], trained[1])] == [True, False, True, True]

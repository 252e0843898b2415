"""How much of a network is trained, and that what is frozen gives the same features in training and evaluation."""

import pytest
import torch
from torch import nn

from cm2pyro.config import Config
from cm2pyro.encoders import ENCODERS, check_encoders
from cm2pyro.encoders.base import Encoder
from cm2pyro.encoders.tuning import Still
from tests.encoders.torchvision_networks import make, pictures
from tests.refusals import config_refusal


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


# --- what is trained -------------------------------------------------------------------------------------------------


def trained(encoder: Encoder, n: int = 4, size: int = 32) -> set[str]:
    """Names of the parameters that get a gradient that is not zero."""
    encoder.train()
    encoder.zero_grad()
    encoder({"pixels": pictures(n, size)}).square().sum().backward()
    return {name for name, p in encoder.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


def test_all_trains_everything() -> None:
    encoder = make("resnet18")
    assert trained(encoder) == {name for name, _ in encoder.named_parameters()}


def test_frozen_trains_nothing() -> None:
    encoder = make("resnet18", tune="frozen")
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder({"pixels": pictures(2)}).requires_grad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "blocks"),
    [
        ("resnet18", 1, ("layer4.",)),
        ("resnet18", 3, ("layer2.", "layer3.", "layer4.")),
        ("mobilenet_v3_small", 2, ("features.12.", "classifier.")),
        ("efficientnet_b0", 2, ("features.7.", "features.8.")),
        ("densenet121", 1, ("features.denseblock4.", "features.norm5.")),
        ("convnext_tiny", 1, ("features.7.", "classifier.")),
        ("vit_b_16", 1, ("encoder.layers.encoder_layer_11.", "encoder.ln.")),
    ],
)
def test_the_last_blocks_alone_are_trained(name: str, number: int, blocks: tuple[str, ...]) -> None:
    encoder = make(name, tune=f"last:{number}")
    expected = {key for key, _ in encoder.named_parameters() if key.removeprefix("network.").startswith(blocks)}
    assert expected
    assert {key for key, p in encoder.named_parameters() if p.requires_grad} == expected
    if name == "resnet18":
        assert trained(encoder) == expected


def test_more_blocks_than_there_are_are_refused() -> None:
    config_refusal(lambda: make("resnet18", tune="last:99"), "tune: last:99 asks for more than the network's 5 blocks")
    for tune in ("last", "last:0", "lora:0", "half", "lora:-1"):
        modality = {"kind": "image", "encoder": "resnet18", "tune": tune}
        config = Config.from_dict({"modalities": {"x": modality}})
        config_refusal(lambda config=config: check_encoders(config), "modalities.x.tune", "expected all, frozen, last:N")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_lora_trains_its_corrections_alone_and_starts_as_the_network_was(name: str) -> None:
    plain, encoder = make(name).eval(), make(name, tune="lora:2").eval()
    x = {"pixels": pictures(2)}
    torch.testing.assert_close(encoder(x), plain(x), rtol=1e-4, atol=1e-5)
    wanted = {key for key, p in encoder.named_parameters() if p.requires_grad}
    assert wanted
    assert all("lora_" in key for key in wanted)
    # B starts at 0, so that only B has a gradient in the first step.
    assert trained(encoder) == {key for key in wanted if "lora_B" in key}
    small = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert small < 0.2 * sum(p.numel() for p in plain.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_32", "swin_t"])
def test_every_correction_of_lora_is_trained(name: str) -> None:
    """Attention that reads its layers' weights without calling them would leave corrections there without effect."""
    encoder = make(name, 64, tune="lora:1")
    wanted = {key for key, p in encoder.named_parameters() if p.requires_grad and "lora_B" in key}
    assert wanted
    assert trained(encoder, 2, 64) == wanted


def statistics(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in encoder.state_dict().items() if "running_" in key or "num_batches" in key}


def changed(encoder: Encoder, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in statistics(encoder).items() if not value.equal(before[key])}


@pytest.mark.parametrize("tune", ["all", "frozen", "last:1", "lora:2"])
def test_statistics_of_frozen_parts_stay(tune: str) -> None:
    encoder = make("resnet18", tune=tune)
    before = statistics(encoder)
    encoder.train()
    encoder({"pixels": pictures(4)})
    moved = changed(encoder, before)
    if tune == "all":
        assert moved == set(before)
    elif tune == "last:1":
        assert moved == {key for key in before if ".layer4." in key}
    else:
        assert not moved


def test_a_batch_of_one_uses_and_leaves_the_running_statistics() -> None:
    encoder = make("resnet18")
    encoder.train()
    for seed in range(3):
        encoder({"pixels": pictures(4, seed=seed)})
    before = statistics(encoder)
    one = {"pixels": pictures(1, seed=9)}
    in_training = encoder(one)
    assert not changed(encoder, before)
    assert in_training.equal(encoder.eval()(one))
    # And a larger batch after it moves them again.
    encoder.train()
    encoder({"pixels": pictures(4, seed=10)})
    assert changed(encoder, before) == set(before)


def test_evaluation_leaves_the_statistics() -> None:
    encoder = make("resnet18").eval()
    before = statistics(encoder)
    encoder({"pixels": pictures(4)})
    assert not changed(encoder, before)

"""Networks of torchvision as encoders: their features, their weights, and how much of them is trained."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cm2pyro.config import Config
from cm2pyro.encoders import check_encoders, make_encoder
from cm2pyro.encoders import vision as vision_module
from cm2pyro.encoders.vision import MEAN, SD, Sight
from tests.encoders.torchvision_networks import make, pictures
from tests.refusals import config_refusal


def seen(x: torch.Tensor, size: int) -> torch.Tensor:
    """What a network is given, by hand: the centre, between 0 and 1, standardised."""
    centre = x[..., 4 : 4 + size, 4 : 4 + size].expand(-1, 3, -1, -1).double() / 255
    return ((centre - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SD)[:, None, None]).float()


# --- features --------------------------------------------------------------------------------------------------------


def _resnet(net: Any, x: torch.Tensor) -> torch.Tensor:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x)))).mean((2, 3))  # type: ignore[no-any-return]


def _densenet(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.features(x).relu().mean((2, 3))  # type: ignore[no-any-return]


def _mobilenet(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.classifier[1](net.classifier[0](net.features(x).mean((2, 3))))  # type: ignore[no-any-return]


def _pooled(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.features(x).mean((2, 3))  # type: ignore[no-any-return]


def _vit(net: Any, x: torch.Tensor) -> torch.Tensor:
    patches = net.conv_proj(x).flatten(2).transpose(1, 2)
    return net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), patches], 1))[:, 0]  # type: ignore[no-any-return]


NETWORKS = {
    "resnet18": (32, 512, _resnet),
    "densenet121": (32, 1024, _densenet),
    "mobilenet_v3_small": (32, 1024, _mobilenet),
    "squeezenet1_1": (32, 512, _pooled),
    "efficientnet_b0": (32, 1280, _pooled),
    "vit_b_16": (32, 768, _vit),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name.startswith("vit") else name for name in NETWORKS])
def test_features_are_those_of_the_network_without_its_head(name: str, tmp_path: Path) -> None:
    size, width, features = NETWORKS[name]
    torch.manual_seed(3)
    options = {"image_size": size} if name.startswith("vit") else {}
    network = torchvision.models.get_model(name, weights=None, **options).eval()
    for part in network.modules():  # statistics that are not those of a fresh network
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    encoder = make(name, size, weights=str(tmp_path / "w.safetensors")).eval()
    x = pictures(3, size)
    with torch.no_grad():
        found, expected = encoder({"pixels": x}), features(network, seen(x, size))
    assert encoder.width == width
    assert found.shape == (3, width)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_grey_pictures_fill_the_three_channels() -> None:
    encoder = make("resnet18", channels=1).eval()
    x = pictures(2, channels=1)
    assert encoder({"pixels": x}).equal(encoder({"pixels": x.expand(-1, 3, -1, -1)}))


@pytest.mark.slow
def test_inception_gets_the_levels_that_its_weights_expect() -> None:
    """Pretrained Inceptions were trained on levels from −1 to 1; from ImageNet's standardisation the network itself goes there."""
    for name in ("googlenet", "inception_v3"):
        network = make(name, 80)._network(80) if name == "inception_v3" else make(name, 32)._network(32)
        assert network.transform_input is True


def test_pictures_are_moved_in_training_alone_each_by_itself() -> None:
    torch.manual_seed(0)
    sight = Sight(32, 30.0, 0.1, 0.1)
    x = pictures(1).expand(4, -1, -1, -1)
    moved = sight.train()(x)
    assert moved.shape == (4, 3, 32, 32)
    assert not any(moved[i].equal(moved[j]) for i in range(4) for j in range(i))
    still = sight.eval()(x)
    torch.testing.assert_close(still, seen(x, 32))
    assert Sight(32, 0.0, 0.0, 0.0).train()(x).equal(still)


# --- names -----------------------------------------------------------------------------------------------------------


def config(**modality: Any) -> Config:
    return Config.from_dict({"modalities": {"x": {"kind": "image", "encoder": "resnet18", "size": 32, **modality}}})


@pytest.mark.parametrize(("name", "near"), [("resnet43", "resnet34"), ("resnet19", "resnet18"), ("efficentnet_b0", "efficientnet_b0")])
def test_an_unknown_network_suggests_the_nearest(name: str, near: str) -> None:
    config_refusal(
        lambda: check_encoders(config(encoder=name)), "modalities.x.encoder", f"unknown encoder '{name}'", f"did you mean '{near}'"
    )


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18"])
def test_networks_for_other_tasks_are_no_encoders(name: str) -> None:
    config_refusal(lambda: check_encoders(config(encoder=name)), f"unknown encoder '{name}'")


def test_a_picture_too_small_for_a_network_is_refused() -> None:
    config_refusal(lambda: make("inception_v3", 32), "inception_v3", "size 32", "raise size")
    config_refusal(lambda: make("vit_b_16", 40), "vit_b_16", "size 40")


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_another_number_of_classes_does_not_matter(tmp_path: Path, name: str, ending: str) -> None:
    torch.manual_seed(5)
    state = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
    path = tmp_path / f"w{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    encoder = make(name, weights=str(path))
    own = encoder.network.state_dict()
    assert own
    assert all(value.equal(state[key]) for key, value in own.items())
    assert encoder.remarks == ()
    assert make(name).remarks == (f"{name} starts from scratch (weights: none)",)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


@pytest.mark.slow
def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torchvision.models.resnet34(weights=None).state_dict()
    save_file(state, "resnet34.safetensors")
    config_refusal(
        lambda: make("resnet50", weights="resnet34.safetensors"), "resnet34.safetensors does not fit", "name weights of the same network"
    )
    config_refusal(lambda: make("densenet121", weights="resnet34.safetensors"), "does not fit", "tensors differ")
    torch.save({"model": state}, "nested.pth")
    Path("evil.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    torch.save({"a": Evil()}, "evil2.pth")
    Path("cut.safetensors").write_bytes(Path("resnet34.safetensors").read_bytes()[:1000])
    for name in ("nested.pth", "evil.pth", "evil2.pth", "cut.safetensors", "gone.pth"):
        config_refusal(lambda name=name: make("resnet18", weights=name), f"weights: {name} cannot be read", "expected a .safetensors file")
    assert not Path("evil").exists()


def test_smaller_networks_do_not_take_the_weights_of_larger_ones(tmp_path: Path) -> None:
    """All of ResNet-18's tensors are in a ResNet-34 with their very shapes, and mean something else there."""
    save_file(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "w.safetensors")
    config_refusal(lambda: make("resnet18", weights=str(tmp_path / "w.safetensors")), "does not fit the network")


def test_the_hub_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("<urlopen error [Errno -3]\nTemporary failure in name resolution>")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    config_refusal(
        lambda: make("resnet18", weights="hub"), "resnet18 cannot be had", "https://download.pytorch.org/models/resnet18", "weights: none"
    )
    assert capsys.readouterr() == ("", "")  # the refusal alone is shown


def test_the_hub_gives_torchvisions_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    asked: list[str] = []

    def given(url: str, *_: Any, **__: Any) -> Any:
        asked.append(url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", given)
    encoder = make("resnet18", weights="hub")
    assert all(value.equal(state[key]) for key, value in encoder.network.state_dict().items())
    assert len(asked) == 1
    # A run that is loaded needs neither the hub nor the file.
    again = make_encoder(config(weights="hub"), "x", {"pixels": (3, 40, 40)}, restored={})
    assert again.width == 512
    assert len(asked) == 1


def test_the_module_names_itself() -> None:
    assert vision_module.backbone("resnet18") is vision_module.backbone("resnet18")
    assert vision_module.backbone("no_such_network") is None

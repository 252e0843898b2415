"""What every encoder must do."""

import pytest
import torch
from torch import nn

from cm2pyro.config import Config
from cm2pyro.encoders import ENCODERS, Encoder, check_encoders, make_encoder
from cm2pyro.errors import ConfigError

SHAPES = {"binned": (6, 8), "measured": (6,), "summary": (50,), "vector": (5,), "pixels": (1, 40, 40), "tokens": (3, 9)}
SMALL: dict[str, dict[str, int]] = {  # what a test can afford
    "cnn": {"size": 32},
    "resnet34": {"size": 32},
    "tinybert": {"layers": 2, "hidden": 24, "heads": 4, "vocabulary": 300},
    "bag": {"vocabulary": 300},
}


def make(name: str) -> Encoder:
    torch.manual_seed(0)
    cls = ENCODERS.get(name)
    return cls({view: SHAPES[view] for view in cls.views}, **SMALL.get(name, {})).eval()  # type: ignore[arg-type]


def inputs(encoder: Encoder, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    views = {view: torch.randn(n, *SHAPES[view], generator=random) for view in encoder.views}
    if "measured" in views:
        views["measured"] = (torch.rand(n, 6, generator=random) < 0.5).float()
    if "pixels" in views:
        views["pixels"] = torch.randint(0, 256, (n, *SHAPES["pixels"]), generator=random).to(torch.uint8)
    if "tokens" in views:  # one to three notes of one to nine tokens
        tokens = torch.randint(0, 300, (n, *SHAPES["tokens"]), generator=random)
        tokens[torch.rand(n, 3, 9, generator=random).sort(-1).values > 0.6] = -1
        tokens[..., 0, 0] = 7
        tokens[tokens[..., 0] < 0] = -1
        views["tokens"] = tokens
    return views


@pytest.mark.parametrize("name", ENCODERS.names())
def test_contract(name: str) -> None:
    encoder = make(name)
    views = inputs(encoder, 7)
    features = encoder(views)
    assert features.shape == (7, encoder.width)
    # Each row by itself, a batch of one included.
    for row in range(7):
        torch.testing.assert_close(encoder({view: x[row : row + 1] for view, x in views.items()})[0], features[row], rtol=1e-4, atol=1e-5)
    if list(encoder.parameters()):
        features.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in encoder.parameters())
    encoder.train()
    assert encoder({view: x[:1] for view, x in views.items()}).shape == (1, encoder.width)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_input_matters(name: str) -> None:
    encoder = make(name)
    views = inputs(encoder, 3)
    for view in encoder.views:
        x = views[view].clone()
        if view == "pixels":
            x[..., 20] = 255 - x[..., 20]  # a column in the middle: the border is cropped
        elif view == "measured":
            x = 1 - x
        else:
            x[..., 0] += 1
        assert not torch.allclose(encoder({**views, view: x}), encoder(views))


def test_lstm_reads_out_at_the_last_measured_bin() -> None:
    """Padding after the last measurement changes nothing; a measurement there does."""
    encoder = make("lstm")
    views = inputs(encoder, 4)
    views["measured"][:, 3:] = 0.0
    views["measured"][:, 2] = 1.0
    features = encoder(views)
    padded = {**views, "binned": views["binned"].clone()}
    padded["binned"][:, 3:] = 99.0
    assert torch.equal(encoder(padded), features)
    measured = {**padded, "measured": views["measured"].clone()}
    measured["measured"][:, 4] = 1.0
    assert not torch.allclose(encoder(measured), features)


def test_the_transformer_reads_measured_bins_alone() -> None:
    encoder = make("transformer")
    views = inputs(encoder, 4)
    views["measured"][:, 2] = 1.0
    features = encoder(views)
    padded = {**views, "binned": torch.where(views["measured"][..., None] > 0, views["binned"], 99.0)}
    torch.testing.assert_close(encoder(padded), features)
    nothing = {**views, "measured": torch.zeros_like(views["measured"])}
    assert bool(encoder(nothing).isfinite().all())


def test_identity_gives_the_vector_back() -> None:
    encoder = make("identity")
    views = inputs(encoder, 4)
    assert torch.equal(encoder(views), views["vector"])
    assert encoder.given
    assert not list(encoder.parameters())


def test_first_layers_are_those_that_touch_the_inputs() -> None:
    for name, size in (("mlp", 5), ("summary", 50), ("summary_lstm", 50)):
        assert [w.shape[1] for w in make(name).first_layers()] == [size]
    assert make("lstm").first_layers() == []


def config(**modality: object) -> Config:
    return Config.from_dict({"modalities": {"a": {"kind": "embedding", "encoder": "mlp", **modality}}, "latent": {"dim": 3}})


def test_options_reach_the_encoder() -> None:
    encoder = make_encoder(config(hidden=11), "a", {"vector": (5,)})
    assert encoder.width == 11
    with pytest.raises(ConfigError, match=r"latent\.dim is 3"):
        make_encoder(config(encoder="identity"), "a", {"vector": (5,)})
    with pytest.raises(ConfigError, match="cannot read kind embedding"):
        check_encoders(config(encoder="lstm"))
    with pytest.raises(ConfigError, match="dropout"):
        check_encoders(config(dropout=1.5))
    assert isinstance(make_encoder(config(), "a", {"vector": (5,)}, {"a": nn.Linear(5, 4)}), Encoder)

"""What every encoder must do."""

import pytest
import torch
from torch import nn

from cm2pyro.config import Config
from cm2pyro.encoders import ENCODERS, Encoder, check_encoders, make_encoder
from cm2pyro.errors import ConfigError

SHAPES = {"binned": (6, 8), "summary": (50,), "vector": (5,)}


def make(name: str) -> Encoder:
    torch.manual_seed(0)
    cls = ENCODERS.get(name)
    return cls({view: SHAPES[view] for view in cls.views}).eval()


def inputs(encoder: Encoder, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    views = {view: torch.randn(n, *SHAPES[view], generator=random) for view in encoder.views}
    if "binned" in views:  # the second half of the channels is the mask
        views["binned"][..., 4:] = (torch.rand(n, 6, 4, generator=random) < 0.5).float()
    return views


@pytest.mark.parametrize("name", ENCODERS.names())
def test_contract(name: str) -> None:
    encoder = make(name)
    views = inputs(encoder, 7)
    features = encoder(views)
    assert features.shape == (7, encoder.width)
    # Each row by itself, a batch of one included.
    for row in range(7):
        torch.testing.assert_close(encoder({view: x[row : row + 1] for view, x in views.items()})[0], features[row])
    if list(encoder.parameters()):
        features.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.train()
    assert encoder({view: x[:1] for view, x in views.items()}).shape == (1, encoder.width)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_input_matters(name: str) -> None:
    encoder = make(name)
    views = inputs(encoder, 3)
    for view in encoder.views:
        moved = {**views, view: views[view] + (torch.arange(SHAPES[view][-1]) == 0)}
        assert not torch.allclose(encoder(moved), encoder(views))


def test_lstm_reads_out_at_the_last_measured_bin() -> None:
    """Padding after the last measurement changes nothing; a measurement there does."""
    encoder = make("lstm")
    views = inputs(encoder, 4)
    views["binned"][:, 3:, 4:] = 0.0
    views["binned"][:, 2, 4] = 1.0
    features = encoder(views)
    padded = {"binned": views["binned"].clone()}
    padded["binned"][:, 3:, :4] = 99.0
    assert torch.equal(encoder(padded), features)
    measured = {"binned": padded["binned"].clone()}
    measured["binned"][:, 4, 5] = 1.0
    assert not torch.allclose(encoder(measured), features)


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

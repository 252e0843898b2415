"""Encoders that compute in bfloat16: near float32, and nothing else does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.inference import checkpoint
from cm2pyro.inference.program import Program
from tests.inference.fits import last, settings, table

N = 12
UNIT = 2.0**-8  # a rounding to bfloat16 moves a number by at most this share: 8 bits, the leading one among them
KINDS: dict[str, dict[str, Any]] = {
    "series": {"kind": "timeseries", "encoder": "lstm", "hidden": 8, "layers": 1, "dropout": 0, "table": "t.csv"},
    "bins": {"kind": "timeseries", "encoder": "transformer", "hidden": 8, "layers": 1, "dropout": 0, "table": "t.csv"},
    "film": {"kind": "image", "encoder": "cnn", "width": 4, "size": 16, "dropout": 0},
    "note": {"kind": "text", "encoder": "bag", "hidden": 8, "dropout": 0},
    "vector": {"kind": "embedding", "encoder": "mlp", "hidden": 8, "dropout": 0},
}
SHAPES = {
    "series": {"binned": (6, 4), "measured": (6,)},
    "bins": {"binned": (6, 4), "measured": (6,)},
    "film": {"pixels": (1, 20, 20)},
    "note": {"tokens": (1, 8)},
    "vector": {"vector": (5,)},
}
# Roundings of weight, input and result in every product on the way from input to features. The CNN has four layers, a block of
# attention six products (two of them the scores and their weighted sum), six steps of an LSTM one each beside the first.
PRODUCTS = {"series": 7, "bins": 7, "film": 4, "note": 1, "vector": 1}


def program(precision: str) -> Program:
    torch.manual_seed(0)
    raw = {"modalities": KINDS, "latent": {"dim": 2}, "prior": {"components": 2}, "fit": {"precision": precision, "beta": 0.1}}
    return Program(Config.from_dict(raw), SHAPES, 2).train()


def batch() -> Batch:
    torch.manual_seed(1)
    inputs = {
        "series": {"binned": torch.randn(N, 6, 4), "measured": torch.ones(N, 6)},
        "bins": {"binned": torch.randn(N, 6, 4), "measured": torch.ones(N, 6)},
        "film": {"pixels": torch.randint(0, 256, (N, 1, 20, 20)).to(torch.uint8)},
        "note": {"tokens": torch.randint(4, 8000, (N, 1, 8))},
        "vector": {"vector": torch.randn(N, 5)},
    }
    return Batch(inputs, torch.rand(N, 5) > 0.2, torch.arange(N) % 2, torch.ones(N, dtype=torch.bool), torch.arange(N), N)


def loss_and_features(made: Program, rows: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, its gradient taken; of each encoder what the projection reads."""
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: object, inputs: tuple[Tensor]) -> None:
            inputs[0].retain_grad()
            features[name] = inputs[0]

        return hook

    for name, local in made.guide._locals.items():
        local.project.register_forward_pre_hook(keep(name))
    torch.manual_seed(2)
    loss = made.loss(rows)
    loss.backward()
    return loss.detach(), features


def test_the_loss_is_near_that_of_float32() -> None:
    """To first order by as much as the features can be moved by their roundings, weighed by the gradient of the loss."""
    rows = batch()
    plain, features = loss_and_features(program("float32"), rows)
    rounded, others = loss_and_features(program("bfloat16"), rows)
    bound = 0.0
    for name, value in features.items():
        # An entry is a sum of terms as large as the largest of them, whatever is left of it.
        error = 3 * PRODUCTS[name] * UNIT * float(value.detach().abs().max())
        moved = float((others[name] - value).detach().abs().max())
        assert 0 < moved <= error, (name, moved, error)
        bound += error * float(value.grad.abs().sum())  # type: ignore[union-attr]
    assert 0 < abs(float(rounded - plain)) <= bound
    assert bound < 0.2 * abs(float(plain))  # it says something


def test_only_encoders_compute_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = program("bfloat16"), batch()
    inside, read, scored = set(), set(), set()
    for local in made.guide._locals.values():
        for part in local.encoder.modules():
            if isinstance(part, torch.nn.Linear | torch.nn.Conv2d | torch.nn.LSTM):
                part.register_forward_hook(lambda m, i, o: inside.add((o[0] if isinstance(o, tuple) else o).dtype))
        local.project.register_forward_pre_hook(lambda m, i: read.add(i[0].dtype))
    plain = CopulaMixture.component_log_prob

    def component_log_prob(self: CopulaMixture, z: Tensor, observed: Tensor | None = None) -> Tensor:
        scored.update(x.dtype for x in (z, self.locs, self.scales, self.log_weights, self.copula.theta_like))
        scored.add(torch.is_autocast_enabled("cpu"))  # type: ignore[arg-type]
        return plain(self, z, observed)

    monkeypatch.setattr(CopulaMixture, "component_log_prob", component_log_prob)
    made.loss(rows).backward()
    assert torch.bfloat16 in inside
    assert read == {torch.float32}
    assert scored == {torch.float32, False}
    gradients = [p.grad for p in made.parameters() if p.grad is not None]
    assert {g.dtype for g in gradients} == {torch.float32}
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_a_fit_in_bfloat16_is_kept_in_float32_and_predicts_as_it_was_fitted(tmp_path: Path) -> None:
    frame = table()
    fitted = CM2.from_config(settings(fit={"precision": "bfloat16"})).fit(frame, out=tmp_path / "run")
    for path in (last(tmp_path / "run"), checkpoint.best(tmp_path / "run")):
        tensors, _ = checkpoint.read(path)
        assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}
    loaded = CM2.load(tmp_path / "run")
    predicted = loaded.predict(frame)["probability"]
    assert predicted.equals(fitted.predict(frame)["probability"])
    for local in loaded.program.guide._locals.values():
        local.precision = "float32"
    other = loaded.predict(frame)["probability"]
    assert not other.equals(predicted)
    # Probabilities move by no more than a quarter of what the logits do; these are sums over a few hidden units.
    assert (other - predicted).abs().max() < 0.05

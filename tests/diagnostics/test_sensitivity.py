"""Shifts of missing latents against closed forms, tipping points against lines, refusals."""

import numpy as np
import pytest
import torch

from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.diagnostics.evaluation import Evaluation, Measures
from cm2pyro.diagnostics.sensitivity import Sensitivity, Shift, check_delta, parse_delta
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference.predict import Prediction, predict
from cm2pyro.inference.program import Program

NAMES = ("a", "b", "c")


def program(fusion: dict[str, object]) -> Program:
    config = Config.from_dict(
        {
            "modalities": {name: {"kind": "embedding", "encoder": "mlp", "hidden": 4} for name in NAMES},
            "latent": {"dim": 2},
            "prior": {"components": 2},
            "fusion": fusion,
        }
    )
    torch.manual_seed(0)
    made = Program(config, {name: {"vector": (3,)} for name in NAMES}, 2)
    with torch.no_grad():
        made.model.head.weight.mul_(5)
    return made.eval()


def dataset(n: int, missing: float = 0.5, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: {"vector": torch.randn(n, 3, generator=generator)} for name in NAMES}
    observed = torch.rand(n, 3, generator=generator) >= missing
    labels = (torch.rand(n, generator=generator) < 0.3).long()
    return Dataset(NAMES, inputs, observed, labels, tuple(f"s{i}" for i in range(n)), tuple(f"p{i // 2}" for i in range(n)))


def test_a_linear_head_moves_by_delta_times_its_slope() -> None:
    """The logit moves by δ Σ over missing m of |σ_m ∘ w_m|, whatever was drawn; what is observed stays."""
    made, observed = program({"kind": "mlp", "layers": 0}), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]]).bool()
    z = torch.randn(50, 4, 3, 2)
    mixture = made.mixture()
    weights = made.model.head.weight.detach()[0].reshape(3, 2)
    slope = torch.stack([(mixture.marginal_log_weights(m).exp() @ mixture.scales[m] ** 2).sqrt() for m in range(3)])
    slope = (slope * weights).norm(dim=-1)
    for delta in (-1.5, 0.5):
        shift = Shift(delta)
        moved = shift(made, z, observed)
        assert torch.equal(moved[:, observed], z[:, observed])
        with torch.no_grad():
            change = (made.model.outputs(moved) - made.model.outputs(z))[..., 0]
        expected = delta * (~observed).float() @ slope
        torch.testing.assert_close(change, expected.expand(50, 4), rtol=1e-4, atol=1e-5)
        assert shift.logits == pytest.approx(float(expected[1:].mean()), rel=1e-4)
    assert not made.model.head.weight.grad
    assert np.isnan(Shift(1.0).logits)


def test_an_lstm_is_moved_uphill_by_the_length_asked_for() -> None:
    made, data = program({"kind": "lstm", "layers": 1, "hidden": 8}), dataset(40)
    plain = predict([made], data, 30, seed=0)
    up, down = (predict([made], data, 30, seed=0, alter=Shift(delta)) for delta in (0.3, -0.3))
    incomplete = (~data.observed.all(1)).numpy()
    assert (up.mean[incomplete, 1] > plain.mean[incomplete, 1]).all()
    assert (down.mean[incomplete, 1] < plain.mean[incomplete, 1]).all()
    np.testing.assert_array_equal(up.mean[~incomplete], plain.mean[~incomplete])
    z = torch.randn(5, 40, 3, 2)
    mixture = made.mixture()
    sd = torch.stack([(mixture.marginal_log_weights(m).exp() @ mixture.scales[m] ** 2).sqrt() for m in range(3)])
    length = ((Shift(0.7)(made, z, data.observed) - z) / sd).norm(dim=-1)
    torch.testing.assert_close(length[:, ~data.observed], torch.full_like(length[:, ~data.observed], 0.7), rtol=1e-3, atol=1e-4)


def evaluation(data: Dataset, risk: np.ndarray) -> Evaluation:
    p = np.column_stack([1 - risk, risk])
    made = Evaluation("binary", ("0", "1"), data, Prediction(p, p, p, p, risk), None)
    made.metrics = made.measure(Measures(50, 0, patterns=True))
    return made


def lines(risk: np.ndarray, slope: float, deltas: tuple[float, ...], threshold: float | None = None) -> Sensitivity:
    """Every row's risk rises by `slope` per delta."""
    data = dataset(len(risk), missing=0.6)
    shifted = {delta: evaluation(data, risk + slope * delta) for delta in deltas}
    return Sensitivity.of(evaluation(data, risk), shifted, dict.fromkeys(deltas, 0.1), threshold, 200, 0)


def test_tipping_points_of_straight_lines() -> None:
    rows = np.random.default_rng(0).uniform(0.2, 0.4, 200)
    found = lines(rows, 0.05, (-3.0, -1.0, 1.0, 3.0), threshold=0.25)
    assert found.delta.tolist() == [-3, -1, 0, 1, 3]
    points, mean = found.tipping_points(), found.risk[2].mean()
    low, high = found.rate["low"], found.rate["high"]
    assert low < mean < high
    for name, bound in (("down", low), ("up", high)):
        assert abs(bound - mean) < 3 * 0.05
        assert points["risk"][name] == pytest.approx((bound - mean) / 0.05)
    # Decisions are counted at the deltas and interpolated between them.
    shares = {delta: ((found.risk[2] + 0.05 * delta >= 0.25) != (found.risk[2] >= 0.25)).mean() for delta in (-1, 1)}
    assert points["decision"]["down"] == pytest.approx(-0.05 / shares[-1])
    assert points["decision"]["up"] == pytest.approx(0.05 / shares[1])
    own = found.of_rows()
    expected = (0.25 - found.risk[2]) / 0.05
    inside = np.abs(expected) < 2.99
    np.testing.assert_allclose(own[inside], expected[inside], atol=1e-9)
    assert found.frame().columns.tolist() == ["sample_id", "missing", "probability", "tipping_delta"]
    assert len(found.frame()) == found.metrics["n"] == len(found.ids)


def test_no_tipping_point_and_one_at_once() -> None:
    rows = np.full(200, 0.3)
    still = lines(rows, 0.0, (-1.0, 1.0))
    assert still.tipping_points()["decision"] == {"down": None, "up": None}
    assert np.isnan(still.of_rows()).all()
    assert still.lines()[-1].endswith("down none, up none")
    assert lines(np.full(200, 0.9), 0.01, (-1.0, 1.0)).tipping_points()["risk"] == {"down": 0.0, "up": 0.0}


def test_delta_0_is_the_plain_evaluation() -> None:
    found = lines(np.random.default_rng(1).uniform(0.1, 0.8, 100), 0.05, (-1.0, 2.0))
    data = dataset(100, missing=0.6)
    plain = evaluation(data, np.random.default_rng(1).uniform(0.1, 0.8, 100)).metrics
    (entry,) = [entry for entry in found.metrics["at"] if entry["delta"] == 0]
    for name, value in plain.items():
        if name != "patterns":
            assert entry[name] == value
    assert "patterns" not in entry
    assert entry["logit_shift"] == entry["changed"] == 0
    assert found.threshold == pytest.approx(data.labels.double().mean().item())


def test_refusals() -> None:
    assert parse_delta("-1,0,0.5") == (-1, 0, 0.5)
    for text in ("", "1,,2", "a", "1;2"):
        with pytest.raises(ConfigError, match="--delta"):
            parse_delta(text)
    for delta, threshold, bootstrap, task, says in (
        ((1.0,), None, 10, "regression", "the task is regression"),
        ((float("nan"),), None, 10, "binary", "finite"),
        ((float("inf"), 0.0), None, 10, "binary", "finite"),
        ((0.0,), None, 10, "binary", "only 0"),
        ((1.0,), 1.0, 10, "binary", "--threshold: found 1"),
        ((1.0,), None, 0, "binary", "--bootstrap 1 or more"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_delta(delta, threshold, bootstrap, task)
    data = dataset(20, missing=0.0)
    with pytest.raises(DataError, match="none of the 20 labelled rows lacks a modality"):
        Sensitivity.of(evaluation(data, np.full(20, 0.2)), {}, {}, None, 10, 0)


def test_the_picture_is_whole(tmp_path) -> None:
    for i, found in enumerate(
        (lines(np.random.default_rng(0).uniform(0.2, 0.4, 200), 0.05, (-3.0, 3.0)), lines(np.full(50, 0.3), 0.0, (1.0,)))
    ):
        found.draw(tmp_path / f"{i}.png", "a run")
        assert (tmp_path / f"{i}.png").read_bytes()[16:24] == (1200).to_bytes(4) + (500).to_bytes(4)
    with pytest.raises(DataError, match="cannot be written"):
        found.draw(tmp_path / "no" / "a.png", "a run")

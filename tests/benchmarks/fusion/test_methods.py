"""Every method: what is missing has no influence, training learns, seeds decide; and each fusion against its formula."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.fusion.base import FusionNet, Setting
from benchmarks.fusion.cm2_printed import CM2Printed
from benchmarks.fusion.drfuse import DrFuse, pool
from benchmarks.fusion.folds import Fold
from benchmarks.fusion.medfuse import MedFuse
from benchmarks.fusion.methods import NETS, check_method, fit_method, known_methods, trials
from benchmarks.fusion.tensor_fusion import TensorFusion
from benchmarks.fusion.train import predict_net
from benchmarks.fusion.unimodal import Unimodal
from cm2pyro.data.dataset import Batch
from cm2pyro.errors import ConfigError

pytestmark = pytest.mark.slow

NAMES = [*NETS, "only_b"]


def make(name: str, setting: Setting) -> FusionNet:
    torch.manual_seed(0)
    cls, options = (Unimodal, {"modality": name.removeprefix("only_")}) if name.startswith("only_") else NETS[name]
    return cls(setting, **options).eval()


def first(fold: Fold, rows: int, observed: torch.Tensor | None = None) -> Batch:
    batch = fold.test.batch(torch.arange(rows))
    return batch if observed is None else batch.hiding(observed)


def some(rows: int) -> torch.Tensor:
    """All eight patterns of three modalities, none at all included."""
    patterns = torch.tensor(list(itertools.product([True, False], repeat=3)))
    return patterns.repeat(rows // 8 + 1, 1)[:rows]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_has_no_influence(name: str, fold: Fold) -> None:
    net = make(name, fold.setting)
    batch = first(fold, 24, some(24))
    other = {
        modality: {view: torch.where(batch.observed[:, m, None], x, 7.0) for view, x in views.items()}
        for m, (modality, views) in enumerate(batch.inputs.items())
    }
    with torch.no_grad():
        p, q = net.probabilities(batch), net.probabilities(replace(batch, inputs=other))
    assert p.shape == (24,)
    assert bool(((p > 0) & (p < 1)).all())
    torch.testing.assert_close(p, q, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_others(name: str, fold: Fold) -> None:
    net, batch = make(name, fold.setting), first(fold, 24, some(24))
    with torch.no_grad():
        alone = torch.cat([net.probabilities(fold.test.batch(torch.tensor([i])).hiding(batch.observed[i : i + 1])) for i in range(24)])
        torch.testing.assert_close(net.probabilities(batch), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_modality_leaves_its_encoder_alone(name: str, fold: Fold) -> None:
    net = make(name, fold.setting).train()
    net.loss(first(fold, 16, torch.tensor([True, False, True]).expand(16, 3))).backward()
    assert all(p.grad is None or not p.grad.abs().any() for p in net.encoders[1].parameters())
    if name != "only_b":
        assert any(p.grad is not None and p.grad.abs().any() for p in net.encoders[0].parameters())


@pytest.mark.parametrize("name", [*NAMES, "boosting", "boosting+dropout", "medfuse+dropout"])
def test_training_learns_and_repeats(name: str, fold: Fold) -> None:
    mask = fold.test.observed.numpy()
    p = fit_method(name, fold, 0)(mask)
    y = fold.test.labels.numpy()
    loss = -np.log(np.where(y == 1, p, 1 - p))
    share = fold.setting.prevalence
    nothing = -np.log(np.where(y == 1, share, 1 - share))
    # Better than the prevalence by more than two standard errors of the mean difference.
    gain = nothing - loss
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    np.testing.assert_array_equal(p, fit_method(name, fold, 0)(mask))


@pytest.mark.parametrize("name", ["concat", "boosting"])
def test_seeds_differ(name: str, fold: Fold) -> None:
    mask = fold.test.observed.numpy()
    assert np.abs(fit_method(name, fold, 0)(mask) - fit_method(name, fold, 1)(mask)).max() > 1e-6


def test_ours_is_the_package_and_hides_what_the_fold_hides(fold: Fold) -> None:
    most = fold.train.observed & (torch.arange(len(fold.train)) < 5)[:, None]
    hidden = replace(fold, train=fold.train.with_observed(torch.cat([fold.train.observed[:, :2], most[:, 2:]], 1)))
    mask = fold.test.observed.numpy()
    first, second = (fit_method("ours", each, 0, {"fit.epochs": 2}) for each in (fold, hidden))
    p = first(mask)
    assert ((p > 0) & (p < 1)).all()
    assert np.abs(p - second(mask)).max() > 1e-3
    assert np.abs(p - first(mask & [True, False, False]))[mask[:, 1]].max() > 1e-3


def test_boosting_under_a_mask_of_everything_is_constant(fold: Fold) -> None:
    p = fit_method("boosting", fold, 0)(np.zeros_like(fold.test.observed.numpy()))
    assert len(set(p.tolist())) == 1


def test_tensor_fusion_is_the_kronecker_product(fold: Fold) -> None:
    net = TensorFusion(fold.setting, width=2).eval()
    batch = first(fold, 8, some(8))
    with torch.no_grad():
        z = net.projected(batch).numpy()
        expected = []
        for row in z:
            product = np.ones(1)
            for one in row:
                product = np.kron(product, np.r_[one, 1.0])
            expected.append(net.head.weight.numpy()[0] @ product + net.head.bias.numpy()[0])
        np.testing.assert_allclose(net(batch).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_medfuse_is_an_lstm_over_the_observed(fold: Fold) -> None:
    net = MedFuse(fold.setting, hidden=5, width=4).eval()
    lstm = nn.LSTM(4, 5, batch_first=True)
    lstm.load_state_dict({f"{name}_l0": value for name, value in net.cell.state_dict().items()})
    batch = first(fold, 7, some(7))  # the eighth has nothing
    with torch.no_grad():
        z = net.projected(batch)
        for i in range(7):
            state = lstm(z[i, batch.observed[i]][None])[1][0][0, 0]
            torch.testing.assert_close(net(batch)[i], net.head(state)[0])


def test_drfuse_pools_two_modalities_as_its_paper() -> None:
    h = torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(0))
    a, b = h[:, 0], h[:, 1]
    zero = torch.zeros_like(a)
    expected = torch.logsumexp(torch.stack([a + b, a + b, a, b]), 0) - torch.logsumexp(torch.stack([zero, zero, a, b]), 0)
    torch.testing.assert_close(pool(h, torch.ones(50, 2, dtype=torch.bool)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pool(h, torch.tensor([True, False]).expand(50, 2)), a, rtol=1e-4, atol=1e-5)


def test_drfuse_gives_no_attention_to_what_is_missing(fold: Fold) -> None:
    net = DrFuse(fold.setting).eval()
    weights = net.parts(first(fold, 8, some(8))).weights
    assert not weights[:, :3][~some(8)].any()
    torch.testing.assert_close(weights.sum(1), torch.ones(8))


def test_the_printed_joint_is_a_density_for_one_dimension_alone(fold: Fold) -> None:
    # F_m of one dimension is uniform, so c(F_1, F_2) f_1 f_2 integrates to 1.
    shapes = dict(list(fold.setting.shapes.items())[:2])
    torch.manual_seed(1)
    net = CM2Printed(Setting(fold.config, shapes, 0.5), width=1)
    grid = torch.linspace(-9, 9, 601)
    points = torch.cartesian_prod(grid, grid)[..., None]
    with torch.no_grad():
        total = net.log_joint(points).exp().sum() * float(grid[1] - grid[0]) ** 2
    assert float(total) == pytest.approx(1, abs=2e-3)


def test_printed_draws_follow_the_margins(fold: Fold) -> None:
    net = CM2Printed(fold.setting)
    drawn = net.draw(20_000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        shares = net.logits.softmax(-1)[..., None]
        mean = (shares * net.locs).sum(1)
        variance = (shares * (net.scales**2 + net.locs**2)).sum(1) - mean**2
    # Five standard errors of a mean of 20,000.
    assert bool(((drawn.mean(0) - mean).abs() < 5 * (variance / 20_000).sqrt()).all())


def test_unimodal_gives_the_prevalence_where_it_has_nothing(fold: Fold) -> None:
    net = make("only_b", fold.setting)
    p = predict_net(net, fold.test)
    lacking = ~fold.test.observed[:, 1].numpy()
    assert lacking.any()
    np.testing.assert_allclose(p[lacking], float(fold.train.labels.float().mean()), rtol=1e-5)


def test_names() -> None:
    assert len({len(trials(method)) for method in [*NETS, "boosting"]}) == 1
    for method in known_methods(("a",)):
        check_method(f"{method}+dropout", ("a",))
    with pytest.raises(ConfigError, match="medfuse"):
        check_method("medfusse", ("a",))

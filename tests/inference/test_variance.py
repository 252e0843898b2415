"""Where the spread of a prediction comes from, against closed forms and nested simulation."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Dataset
from cm2pyro.inference.draws import globals_of
from cm2pyro.inference.predict import predict
from cm2pyro.inference.program import Program
from cm2pyro.inference.variance import Decomposition, VarianceSplit, nested

NAMES = ("a", "b", "c")
DIM = 2
PATTERNS = [[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


def program(task: str = "regression", encoder: str = "mlp", seed: int = 0, **sections: Any) -> Program:
    """Three vectors, latents that depend on each other, a head with large weights."""
    modality: dict[str, Any] = {"kind": "embedding", "encoder": encoder} | ({} if encoder == "identity" else {"hidden": 4})
    tasks = {"multilabel": {"type": task, "labels": ["x", "y"]}}
    config = Config.from_dict(
        {
            "task": tasks.get(task, {"type": task}),
            "modalities": dict.fromkeys(NAMES, modality),
            "latent": {"dim": DIM},
            "prior": {"components": 1} | sections.pop("prior", {}),
            "fusion": {"kind": "mlp", "layers": 0} | sections.pop("fusion", {}),
            **sections,
        }
    )
    torch.manual_seed(seed)
    made = Program(config, {name: {"vector": (DIM,)} for name in NAMES}, {"multiclass": 3, "multilabel": 2}.get(task, 2))
    values = made.values()
    K = config.prior.components
    noise = torch.randn(3, K, DIM)
    root = torch.linalg.cholesky(torch.tensor([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]]))
    made.start(
        {sites.LOCS: 1.5 * noise, sites.SCALES: 0.5 + 0.5 * torch.rand(3, K, DIM), sites.COPULA: root.expand_as(values[sites.COPULA])}
    )
    with torch.no_grad():
        made.model.head.weight.copy_(torch.randn_like(made.model.head.weight))
    return made.eval()


def rows(n: int = len(PATTERNS), seed: int = 1, labels: int = 1) -> Dataset:
    """n rows that go through the patterns, with that many labels."""
    generator = torch.Generator().manual_seed(seed)
    observed = torch.tensor(PATTERNS, dtype=torch.bool)[torch.arange(n) % len(PATTERNS)]
    inputs = {name: {"vector": torch.randn(n, DIM, generator=generator)} for name in NAMES}
    ids = tuple(f"s{i}" for i in range(n))
    return Dataset(NAMES, inputs, observed, torch.zeros((n, labels) if labels > 1 else n, dtype=torch.long), ids, ids)


def decompose(programs: list[Program], dataset: Dataset, draws: int, seed: int, batch_size: int = 256) -> Decomposition:
    split = VarianceSplit(programs, draws, seed)
    predict(programs, dataset, draws, seed, batch_size, also=split.add)
    return split.result()


def exact(made: Program, mixture: Any, dataset: Dataset, i: int) -> tuple[float, float, float, dict[int, float]]:
    """Mean, Var E[f | z_o], E Var(f | z_o) of a linear head under one normal component; E Var(f | z_o, z_m) per missing m."""
    with torch.no_grad():
        loc, scale = made.guide.represent(dataset.batch(torch.arange(len(dataset))))
    weights = made.model.head.weight.detach()[0].reshape(3, DIM).double()
    # A Gaussian copula: the matrix whose normal scores tie the modalities, dimension by dimension.
    correlation = torch.sin(torch.pi / 2 * mixture.copula.tau()).double().expand(DIM, 3, 3)
    mean, encoder, left = float(made.model.head.bias.detach()), 0.0, 0.0
    knowing = {m: 0.0 for m in range(3) if not dataset.observed[i, m]}
    for j in range(DIM):
        mu, sd, w = mixture.locs[:, 0, j].double(), mixture.scales[:, 0, j].double(), weights[:, j]
        covariance = sd[:, None] * correlation[j] * sd
        o = [m for m in range(3) if dataset.observed[i, m]]
        h = [m for m in range(3) if m not in o]
        A = torch.linalg.solve(covariance[o][:, o], covariance[o][:, h]).mT
        towards = w[o] + A.mT @ w[h]
        mean += float(w[h] @ mu[h] - (A.mT @ w[h]) @ mu[o] + towards @ loc[i, o, j].double())
        encoder += float((towards**2 * scale[i, o, j].double() ** 2).sum())

        def rest(given: list[int], covariance: Tensor = covariance, w: Tensor = w) -> float:
            h = [m for m in range(3) if m not in given]
            C = covariance[h][:, h] - covariance[h][:, given] @ torch.linalg.solve(covariance[given][:, given], covariance[given][:, h])
            return float(w[h] @ C @ w[h])

        left += rest(o)
        for m in knowing:
            knowing[m] += rest([*o, m])
    return mean, encoder, left, knowing


def check_sums(found: Decomposition) -> None:
    np.testing.assert_allclose(found.missing + found.encoder + found.globals, found.total, rtol=1e-9, atol=1e-12)
    for part in (found.missing, found.encoder, found.globals):
        assert (part >= 0).all()
    share = np.divide(found.missing, found.total, out=np.zeros_like(found.total), where=found.total > 0)
    assert (np.nan_to_num(found.reduction) <= share[:, None] + 1e-9).all()
    assert (np.nan_to_num(found.reduction) >= 0).all()


@pytest.mark.parametrize("encoder", ["mlp", "identity"])
def test_closed_form(encoder: str) -> None:
    """One normal component and a linear head. The relative standard error of a variance is √(2 / S); five of them."""
    made, dataset, S = program(encoder=encoder), rows(), 6000
    found = decompose([made], dataset, S, seed=3)
    check_sums(found)
    for i in range(len(dataset)):
        _, encoded, left, knowing = exact(made, made.mixture(), dataset, i)
        tolerance = 5 * np.sqrt(2 / S) * (encoded + left)
        assert found.total[i] == pytest.approx(encoded + left, abs=tolerance + 1e-12)
        assert found.missing[i] == pytest.approx(left, abs=2 * tolerance + 1e-12)
        assert found.encoder[i] == pytest.approx(encoded, abs=2 * tolerance + 1e-12)
        for m in range(3):
            if m in knowing:
                assert found.reduction[i, m] == pytest.approx((left - knowing[m]) / (encoded + left), abs=10 * np.sqrt(2 / S))
            else:
                assert np.isnan(found.reduction[i, m])
        gains = {m: left - value for m, value in knowing.items()}
        assert found.pays_most()[i] == (max(gains, key=gains.__getitem__) if gains else -1)
    if encoder == "identity":
        assert (found.encoder == 0).all()
    assert (found.globals == 0).all()
    assert found.missing[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["members", "posterior"])
def test_members_and_global_sites(kind: str) -> None:
    """Given each mixture everything is exact; its draws are those that the prediction is made of."""
    S = 6000
    if kind == "members":
        programs = [program(seed=seed) for seed in range(3)]
    else:
        programs = [program(guide={"globals": "normal"}, seed=1)]
        for name, value in programs[0].guide.globals.auto.scales.named_parameters():
            if "locs" in name or "scales" in name:
                with torch.no_grad():
                    value.fill_(0.4)
    dataset = rows()
    found = decompose(programs, dataset, S, seed=3)
    check_sums(found)
    groups = [(made, mixture) for made in programs for mixture in globals_of(made, S, 3).mixtures]
    assert len(groups) == (3 if kind == "members" else 20)
    for i in range(len(dataset)):
        means, encoded, left, _ = zip(*(exact(*group, dataset, i) for group in groups), strict=True)
        parts = np.mean(left), np.mean(encoded), np.var(means)
        total = sum(parts)
        # Means of groups stand off by their own standard errors, which the square doubles.
        n = S if kind == "members" else S / 20
        tolerance = 10 * np.sqrt(2 / S) * total + 10 * np.sqrt(parts[2] * max(np.max(left) + np.max(encoded), 1e-12) / n / len(groups))
        for value, expected in zip((found.missing[i], found.encoder[i], found.globals[i]), parts, strict=True):
            assert value == pytest.approx(expected, abs=tolerance)
    if kind == "posterior":
        assert found.globals[0] == 0  # nothing missing: the mixture is not asked
        assert found.globals[5] > 0.05 * found.total[5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "treatment"), [("binary", "conditional"), ("binary", "marginal"), ("multiclass", "conditional"), ("multilabel", "conditional")]
)
def test_nested_simulation(task: str, treatment: str) -> None:
    """Two components, an LSTM, probabilities: nested draws of the guide's own laws, with noise of their own per row."""
    made = program(task, prior={"components": 2}, fusion={"kind": "lstm", "layers": 1, "hidden": 4}, guide={"missing": treatment})
    with torch.no_grad():
        made.model.head.weight.mul_(4)
    dataset, S, outer, inner = rows(labels=2 if task == "multilabel" else 1), 2000, 1000, 30
    found = decompose([made], dataset, S, seed=0)
    check_sums(found)
    prediction = predict([made], dataset, S, seed=0)
    mixture = made.mixture()
    torch.manual_seed(7)
    with torch.no_grad():
        loc, scale = made.guide.represent(dataset.batch(torch.arange(len(dataset))))
        for i in (1, 3, 5):
            column = {"binary": [1], "multiclass": [int(prediction.mean[i].argmax())], "multilabel": [0, 1]}[task]
            seen = dataset.observed[i]

            def spread(given: Tensor, seen: Tensor = seen, column: list[int] = column, i: int = i) -> tuple[float, float]:
                """E Var(f | given) and its standard error."""
                z = loc[i] + scale[i] * torch.randn(outer, 3, DIM)
                z, _ = made.guide.treat(mixture, z, seen.expand(outer, 3), None)
                many = z.expand(inner, outer, 3, DIM)
                many, _ = made.guide.treat(mixture, many, given.expand(inner, outer, 3), None)
                p = made.model.likelihood.predictive(made.model.outputs(many))[..., column]
                each = p.var(0).sum(-1)
                return float(each.mean()), float(each.std() / outer**0.5)

            left, error = spread(seen)
            total = float((prediction.sd[i, column] ** 2).sum())
            assert found.total[i] == pytest.approx(total, rel=1e-9)
            # Squares of differences have a coefficient of variation of at most √(E d⁴ / (E d²)²) / √S, 3 for tails like these.
            assert found.missing[i] == pytest.approx(left, abs=5 * error + 5 * 3 / np.sqrt(S) * left)
            for m in range(3):
                if not seen[m]:
                    known = seen.clone()
                    known[m] = True
                    rest, rest_error = spread(known)
                    tolerance = 5 * (error + rest_error) + 5 * 3 / np.sqrt(S) * left
                    assert found.reduction[i, m] * total == pytest.approx(left - rest, abs=tolerance)


@pytest.mark.parametrize("treatment", ["mean", "zero"])
def test_a_constant_has_no_spread(treatment: str) -> None:
    made = program("binary", prior={"components": 2}, guide={"missing": treatment})
    found = decompose([made], rows(), 50, seed=0)
    check_sums(found)
    assert (found.missing == 0).all()
    assert (found.pays_most() == -1).all()
    assert (found.encoder[:5] > 0).all()
    assert np.nan_to_num(found.reduction).max() == 0


def test_a_patient_depends_on_nobody_else_and_the_mode_stays() -> None:
    made, dataset = program("binary", prior={"components": 2}), rows(30)
    made.train()
    whole = decompose([made], dataset, 40, seed=0)
    assert made.training
    for batch_size, some in ((7, list(range(30))), (256, [3, 5, 17])):
        part = decompose([made], dataset.take(some), 40, 0, batch_size)
        for name in ("total", "missing", "encoder", "globals", "reduction"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[some], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(predict([made], dataset, 40, 0).sd[:, 1] ** 2, whole.total, rtol=1e-9, atol=1e-15)


def test_few_draws_and_no_rows() -> None:
    made = program("binary", guide={"globals": "normal"})
    few = decompose([made], rows(), 15, seed=0)
    assert np.isnan(few.encoder[1:]).all()
    assert np.isnan(few.globals[1:]).all()
    assert few.encoder[0] == pytest.approx(few.total[0])  # nothing missing: the mixture is not asked
    assert (few.missing[1:] > 0).all()
    assert (few.missing <= few.total + 1e-12).all()
    one = decompose([made], rows(), 1, seed=0)
    assert (one.total == 0).all()
    assert (one.missing == 0).all()
    none = VarianceSplit([made], 15, seed=0).result()
    assert none.reduction.shape == (0, 3)
    assert none.pays_most().shape == (0,)


def test_levels_are_unbiased_before_they_are_scaled() -> None:
    """Three levels of normals with variances 4, 2 and 1 in groups of 5, 8,000 times: mean shares against a ratio without noise."""
    generator = torch.Generator().manual_seed(0)
    sizes, B = [5] * 40, 2000
    top = torch.randn(40, B, generator=generator, dtype=torch.float64).repeat_interleave(5, 0) * 2
    middle = torch.randn(200, B, generator=generator, dtype=torch.float64) * 2**0.5
    f, g = (top + middle + torch.randn(200, B, generator=generator, dtype=torch.float64) for _ in range(2))
    shares = nested(f[..., None], g[..., None], sizes, *2 * [torch.ones(B, dtype=torch.bool)])
    torch.testing.assert_close(shares.sum(-1), torch.ones(B, dtype=torch.float64))
    # The groups are the population: 4 on average becomes 4 * 39 / 40.
    expected = torch.tensor([1, 2, 4 * 39 / 40], dtype=torch.float64)
    torch.testing.assert_close(shares.mean(0), expected / expected.sum(), rtol=0, atol=0.01)

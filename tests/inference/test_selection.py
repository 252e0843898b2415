"""The selection model: its sites, its likelihood against quadrature, its predictions, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro import poutine

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.errors import ConfigError
from cm2pyro.inference.impute import impute
from cm2pyro.inference.predict import predict
from cm2pyro.inference.program import Program

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
OBSERVED = [f"observed_{name}" for name in NAMES]
D, K = 2, 2


def frame(n: int, seed: int, missing: float, names: tuple[str, ...] = NAMES, dim: int = D, classes: int = 2) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"sample_id": [f"s{i}" for i in range(n)], "subject_id": [f"p{i}" for i in range(n)]}
    columns |= {"split": ["train"] * n, "label": [str(i % classes) for i in range(n)]}
    for name in names:
        vectors = random.normal(size=(n, dim)) + 2 * random.integers(0, 2, size=(n, 1))
        columns[name] = ["" if random.random() < missing and i > 3 else str(vectors[i].tolist()) for i in range(n)]
    return pd.DataFrame(columns)


def config(names: tuple[str, ...] = NAMES, dim: int = D, **sections: Any) -> dict[str, Any]:
    return {
        "modalities": {name: {"kind": "embedding", "encoder": "identity"} for name in names},
        "latent": {"dim": dim},
        "prior": {"components": sections.pop("components", K), **sections.pop("prior", {})},
        "guide": {"local": "delta", **sections.pop("guide", {})},
        "fusion": {"kind": "mlp", "layers": 0},
        "missingness": {"model": "selection", **sections.pop("missingness", {})},
        "fit": {"beta": 0.5, "epochs": 2, "batch_size": 20, **sections.pop("fit", {})},
        **sections,
    }


def make(n: int = 40, missing: float = 0.4, names: tuple[str, ...] = NAMES, dim: int = D, **sections: Any) -> tuple[Program, Dataset]:
    """A program in double precision whose head and mechanism have slopes, and its data."""
    classes = 3 if sections.get("task", {}).get("type") == "multiclass" else 2
    torch.manual_seed(0)
    model = CM2.from_config(config(names, dim, **sections))
    dataset = model.preparation.fit(read_manifest(frame(n, 1, missing, names, dim, classes)), np.arange(n))
    program = Program(model.config, {name: kind.shapes() for name, kind in model.preparation.kinds.items()}, classes).double()
    inputs = {name: {"vector": views["vector"].double()} for name, views in dataset.inputs.items()}
    if program.model.missingness is not None:
        with torch.no_grad():
            for parameter in program.model.missingness.parameters():
                parameter.normal_()
    return program, Dataset(dataset.names, inputs, dataset.observed, dataset.labels, dataset.ids, dataset.subjects)


def whole(dataset: Dataset) -> torch.Tensor:
    return torch.arange(len(dataset))


def trace_of(program: Program, dataset: Dataset, completions: int) -> poutine.Trace:
    """The model's trace at the guide's draws, with log densities."""
    batch = dataset.batch(whole(dataset))
    with pyro.settings.context(module_local_params=True):
        guide = poutine.trace(program.guide).get_trace(batch, completions)
        model = poutine.trace(poutine.replay(program.model, guide)).get_trace(batch, completions)
    assert not set(OBSERVED) & set(guide.nodes)  # what is known has no guide
    model.compute_log_prob()
    return model


def latents(trace: poutine.Trace, names: tuple[str, ...] = NAMES) -> torch.Tensor:
    return torch.stack([trace.nodes[f"z_{name}"]["value"] for name in names], -2)


def patterns(dataset: Dataset) -> Dataset:
    """The same rows with every pattern of three modalities in turn, nothing and all included."""
    index = torch.arange(len(dataset))
    return dataset.with_observed(torch.stack([(index >> m) % 2 == 1 for m in range(3)], 1))


# --- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"depends": "own", "hidden": 3}, {"outcome": True}])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_sites_add_up_to_the_joint_density_of_outcome_and_missingness(options: dict[str, Any], task: str) -> None:
    """log Σ_l w_l p(y | z_l) Π_m p(r_m | z_l, y), written out for every row and pattern; without a label summed over y."""
    program, dataset = make(missingness=options, task={"type": task})
    dataset = patterns(dataset)
    labels = dataset.labels.clone()
    labels[16:32] = -1
    dataset = Dataset(dataset.names, dataset.inputs, dataset.observed, labels, dataset.ids, dataset.subjects)
    trace = trace_of(program, dataset, 20)
    model, z = program.model, latents(trace)
    assert z.shape == (K * 20, 40, 3, D)
    log_w = program.mixture().responsibilities(z[0], dataset.observed).mT.repeat_interleave(20, 0) - np.log(20)
    outputs = model.outputs(z)
    log_y = (torch.cat([torch.zeros_like(outputs), outputs], -1) if task == "binary" else outputs).log_softmax(-1)  # (L, B, C)
    assert model.missingness is not None
    signs = torch.where(dataset.observed, 1.0, -1.0)
    log_r = torch.nn.functional.logsigmoid(signs * model.missingness.logits(z)).sum(-1)  # (1 or C, L, B)
    joint = torch.logsumexp(log_w[..., None] + log_y + log_r.movedim(0, -1), 0)  # (B, C)
    expected = torch.where(labels < 0, torch.logsumexp(joint, 1), joint.gather(1, labels.clamp_min(0)[:, None])[:, 0])
    sites = [trace.nodes[name] for name in ["outcome", *OBSERVED]]
    torch.testing.assert_close(sum(site["log_prob"] for site in sites), expected, rtol=1e-9, atol=1e-9)
    for m, site in enumerate(sites[1:]):
        assert site["is_observed"]
        assert torch.equal(site["value"].bool(), dataset.observed[:, m])
        assert site["scale"] == 1.0  # not scaled by beta, as the outcome
        assert bool((site["log_prob"] != 0).all())  # masked nowhere


def test_complete_rows_inform_the_mechanism() -> None:
    program, dataset = make(missing=0.0)
    trace = trace_of(program, dataset, 0)
    assert latents(trace).shape == (40, 3, D)
    assert program.model.missingness is not None
    expected = torch.nn.functional.logsigmoid(program.model.missingness.logits(latents(trace))[0])
    for m, name in enumerate(OBSERVED):
        torch.testing.assert_close(trace.nodes[name]["log_prob"], expected[:, m])
    program.loss(dataset.batch(whole(dataset))).backward()
    assert all(bool((p.grad != 0).any()) for p in program.model.missingness.parameters())


def test_log_odds_of_one_modality_read_its_own_latent_alone() -> None:
    for depends, others in (("own", False), ("all", True)):
        program, _ = make(missingness={"depends": depends})
        assert program.model.missingness is not None
        z = torch.randn(5, 3, D, dtype=torch.float64, requires_grad=True)
        program.model.missingness.logits(z)[..., 1].sum().backward()
        assert z.grad is not None
        assert [bool((z.grad[:, m] != 0).any()) for m in range(3)] == [others, True, others]


def test_gradients_are_finite_for_every_pattern_and_reach_everything() -> None:
    for options in ({}, {"outcome": True}):
        program, dataset = make(missingness=options)
        dataset = patterns(dataset)
        for rows in (whole(dataset), torch.tensor([0, 8]), torch.tensor([7, 15])):  # nothing observed; all observed
            program.zero_grad()
            program.loss(dataset.batch(rows)).backward()
            gradients = [p.grad for p in program.parameters() if p.grad is not None]
            assert all(bool(torch.isfinite(g).all()) for g in gradients)
            assert program.model.missingness is not None
            odds = [p.grad for p in program.model.missingness.odds.parameters()]
            assert all(g is not None and bool((g != 0).any()) for g in odds)


def test_what_is_hidden_in_training_was_not_missing() -> None:
    """Modality dropout hides latents from the guide; that they were there is what the mechanism is told."""
    program, dataset = make()
    batch = dataset.batch(whole(dataset))
    hidden = batch.hiding(torch.zeros_like(batch.observed)).hiding(torch.zeros_like(batch.observed))
    program.loss(hidden)
    for m, name in enumerate(OBSERVED):
        assert torch.equal(program.trace_elbo.traces[0].nodes[name]["value"].bool(), dataset.observed[:, m])


def test_conditioning_a_latent_works() -> None:
    program, dataset = make()
    program.float()  # the priors of the global sites are
    batch = dataset.batch(whole(dataset))
    value = torch.full((len(dataset), D), 0.7)
    with pyro.settings.context(module_local_params=True):
        trace = poutine.trace(pyro.condition(program.model, {"z_a": value})).get_trace(batch)
    trace.compute_log_prob()
    assert trace.nodes["z_a"]["is_observed"]
    assert all(bool(torch.isfinite(trace.nodes[name]["log_prob"]).all()) for name in ["outcome", *OBSERVED])


def test_an_ignorable_model_is_as_before() -> None:
    program, dataset = make(missingness={"model": "ignorable"})
    trace = trace_of(program, dataset, 1)
    assert not set(OBSERVED) & set(trace.nodes)
    assert program.model.missingness is None
    assert program.model.completions == 1
    outputs, log_weights = program.model.predictive(latents(trace), dataset.observed)
    assert log_weights is None
    assert torch.equal(outputs, program.model.outputs(latents(trace)))
    program.loss(dataset.batch(whole(dataset)))
    assert program.terms(dataset.batch(whole(dataset))).missingness is None


# --- one modality, one dimension: everything known -------------------------------------------------------------------

SLOPE, ODDS, SHIFT = 1.5, (-0.4, 2.0), 1.2  # of the outcome on z; of being observed; with class 1


def line(n: int, **options: Any) -> tuple[Program, Dataset]:
    """z ~ N(0, 1) of one modality, p(y = 1 | z) = sigmoid(1.5 z), everything missing."""
    program, dataset = make(n, 0.0, ("a",), 1, components=1, prior={"scale_floor": 0.01}, missingness=options)
    program.start({"locs": torch.zeros(1, 1, 1).double(), "scales": torch.ones(1, 1, 1).double()})
    model = program.model
    assert model.missingness is not None
    with torch.no_grad():
        model.head.weight.fill_(SLOPE)
        model.head.bias.zero_()
        model.missingness.odds[0].weight.fill_(ODDS[1])
        model.missingness.odds[0].bias.fill_(ODDS[0])
        if model.missingness.shift is not None:
            model.missingness.shift.fill_(SHIFT)
    return program, dataset.with_observed(torch.zeros(n, 1, dtype=torch.bool))


def exact(slope: float, odds: float, y: int, shift: float) -> float:
    """log p(y, r = 0) by quadrature."""
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    log_y = torch.nn.functional.logsigmoid((2 * y - 1) * slope * z)
    log_r = torch.nn.functional.logsigmoid(-(ODDS[0] + odds * z + shift * y))
    return float(torch.logsumexp(density + log_y + log_r, 0) + np.log(18 / 20_000))


@pytest.mark.parametrize("outcome", [False, True])
def test_value_and_slopes_of_the_likelihood_against_quadrature(outcome: bool) -> None:
    """400 rows of 1,000 draws: the standard error of a mean log density is below 0.002; a bound by single draws is off by 0.1 or more."""
    program, dataset = line(400, draws=1000, outcome=outcome)
    shift = SHIFT if outcome else 0.0
    torch.manual_seed(0)
    trace = trace_of(program, dataset, 1000)
    total = trace.nodes["outcome"]["log_prob"] + trace.nodes["observed_a"]["log_prob"]
    model = program.model
    assert model.missingness is not None
    z = latents(trace, ("a",))
    for y in (0, 1):
        rows = dataset.labels == y
        found, expected = total[rows].mean(), exact(SLOPE, ODDS[1], y, shift)
        assert abs(float(found.detach()) - expected) < 0.01
        log_y = torch.nn.functional.logsigmoid((2 * y - 1) * model.outputs(z))[..., 0]
        log_r = model.missingness.log_prob(z, dataset.observed)[y if outcome else 0]
        bound = (log_y + log_r).mean(0)[rows].mean()
        assert float(bound.detach()) < expected - 0.1
        slopes = torch.autograd.grad(found, [model.head.weight, model.missingness.odds[0].weight], retain_graph=True)
        step = 1e-4
        by_quadrature = [
            (exact(SLOPE + d * step, ODDS[1] + e * step, y, shift) - exact(SLOPE - d * step, ODDS[1] - e * step, y, shift)) / (2 * step)
            for d, e in ((1, 0), (0, 1))
        ]
        wrong = torch.autograd.grad(bound, [model.head.weight, model.missingness.odds[0].weight], retain_graph=True)
        np.testing.assert_allclose([float(slope) for slope in slopes], by_quadrature, atol=0.01)
        assert np.abs(np.array([float(slope) for slope in wrong]) - by_quadrature).max() > 0.1


@pytest.mark.parametrize("outcome", [False, True])
def test_draws_are_reweighted_in_prediction(outcome: bool) -> None:
    """p(y = 1 | r = 0) by quadrature; 20,000 draws shared by all rows, standard error about 0.003. Unweighted it would be 0.5."""
    program, dataset = line(2, outcome=outcome)
    prediction = predict([program], dataset, 20_000, 0)
    shift = SHIFT if outcome else 0.0
    one, zero = (np.exp(exact(SLOPE, ODDS[1], y, shift)) for y in (1, 0))
    expected = one / (one + zero)
    assert abs(expected - 0.5) > 0.1
    np.testing.assert_allclose(prediction.mean[:, 1], expected, atol=0.015)
    np.testing.assert_allclose(prediction.log_score, np.log([1 - expected, expected]), atol=0.03)
    assert (prediction.q05 < prediction.mean).all()
    assert (prediction.mean < prediction.q95).all()
    # Known latents: only a shift with the class can say more than they do.
    z = dataset.inputs["a"]["vector"][:, 0]
    complete = predict([program], dataset.with_observed(torch.ones(2, 1, dtype=torch.bool)), 5, 0)
    log_r = [torch.nn.functional.logsigmoid(ODDS[0] + ODDS[1] * z + shift * y) for y in (0, 1)]
    np.testing.assert_allclose(complete.mean[:, 1], torch.sigmoid(SLOPE * z + log_r[1] - log_r[0]), atol=1e-9)


def test_weights_of_draws_are_normalised_and_follow_the_pattern() -> None:
    program, dataset = make()
    dataset = patterns(dataset)
    z = torch.randn(50, 40, 3, D, dtype=torch.float64)
    log_weights = program.model.log_selection(z, dataset.observed)
    assert log_weights is not None
    assert log_weights.shape == (50, 40)
    torch.testing.assert_close(log_weights.exp().sum(0), torch.ones(40, dtype=torch.float64))
    assert program.model.missingness is not None
    each = torch.distributions.Bernoulli(logits=program.model.missingness.logits(z)[0]).log_prob(dataset.observed.double()).sum(-1)
    torch.testing.assert_close(log_weights - log_weights[0], each - each[0])


# --- a whole fit -----------------------------------------------------------------------------------------------------


def test_a_fit_says_what_it_rests_on_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    data, said = frame(60, 2, 0.4), []
    model = CM2.from_config(config(missingness={"outcome": True, "hidden": 4}), said.append).fit(data, tmp_path / "run")
    assert any("identified by its assumption alone" in line for line in said)
    assert model.history[-1]["missingness"] < 0
    again = CM2.load(tmp_path / "run")
    assert again.config.missingness == model.config.missingness
    pd.testing.assert_frame_equal(again.predict(data, draws=20), model.predict(data, draws=20))
    parameters = dict(again.program.model.missingness.named_parameters())  # type: ignore[union-attr]
    assert all(bool((value != 0).any()) for value in parameters.values())


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"missingness": {"draws": 19}}, ["missingness.draws", "greater than or equal to 20", "found 19"]),
        ({"missingness": {"draw": 30}}, ["missingness.draw", "did you mean 'draws'?"]),
        ({"missingness": {"depends": "some"}}, ["missingness.depends", "'all' or 'own'", "found 'some'"]),
        ({"missingness": {"model": "selektion"}}, ["missingness.model", "did you mean 'selection'?"]),
        ({"missingness": {"model": "ignorable", "draws": 30}}, ["missingness.draws", "'ignorable'", "known: "]),
        ({"missingness": {"modle": "selection"}}, ["missingness.modle", "did you mean 'model'?"]),
        ({"guide": {"missing": "mean"}}, ["guide.missing", "found mean", "conditional", "ignorable"]),
        ({"prior": {"coupling": "full"}}, ["prior.coupling", "found full", "shared", "ignorable"]),
        ({"prior": {"copula": {"update": "ifm"}}}, ["prior.copula.update", "found ifm", "joint", "ignorable"]),
        ({"missingness": {"outcome": True}, "task": {"type": "regression"}}, ["missingness.outcome", "regression", "set it to false"]),
    ],
)
def test_refusals_take_one_line(sections: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(ConfigError) as found:
        CM2.from_config(config(**sections))
    assert "\n" not in str(found.value)
    for part in says:
        assert part in str(found.value)


def test_imputed_latents_take_the_mechanism_into_account() -> None:
    """One dimension: p(z_b | z_a, b missing) ∝ p(z_b | z_a) p(missing | z), by quadrature."""
    names, draws = ("a", "b"), 400
    program, dataset = make(n=30, names=names, dim=1, missing=0.5, components=1)
    row = next(i for i in range(30) if dataset.observed[i].tolist() == [True, False])
    with torch.no_grad():
        program.model.missingness.odds[1].weight.copy_(torch.tensor([[0.3, -2.0]]))
    z = torch.from_numpy(impute([program.eval()], dataset, draws, seed=0)[:, row, :, 0]).double()
    assert z[:, 0].unique().numel() == 1
    mixture = program.mixture()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    pairs = torch.stack([z[:1, 0].expand(4001), grid], -1)[..., None]
    observed = dataset.observed[row].expand(4001, 2)
    log_p = mixture.log_prob(pairs)
    with torch.no_grad():
        plain, selected = log_p.softmax(0), (log_p + program.model.missingness.log_prob(pairs, observed)[0]).softmax(0)
    mean, before = (selected * grid).sum(), (plain * grid).sum()
    sd = (selected * (grid - mean) ** 2).sum().sqrt()
    # Standard errors of resampled draws: those of independent ones, a little more for the finite number of proposals.
    assert abs(z[:, 1].mean() - mean) < 5 * sd / draws**0.5
    assert abs(z[:, 1].std() / sd - 1) < 5 / (2 * draws) ** 0.5
    assert abs(mean - before) > 10 * sd / draws**0.5  # the mechanism matters here

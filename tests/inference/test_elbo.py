"""The objective: traces, exactness over minibatches, gradients of missing and absent modalities."""

import math

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.manifest import read_manifest
from cm2pyro.inference.program import Program
from tests.traces import conditioned, traces

NAMES = ("a", "b", "c")
D, K = 2, 3


def frame(n: int, seed: int, missing: float) -> pd.DataFrame:
    """Random vectors for three modalities, some missing, and a binary label."""
    random = np.random.default_rng(seed)
    columns = {"sample_id": [f"s{i}" for i in range(n)], "subject_id": [f"p{i}" for i in range(n)], "split": ["train"] * n}
    columns["label"] = [str(int(value)) for value in random.random(n) < 0.4]
    columns["label"][:2] = ["0", "1"]
    for name in NAMES:
        vectors = random.normal(size=(n, D)) + 2 * random.integers(0, 2, size=(n, 1))
        columns[name] = ["" if random.random() < missing and i > 3 else str(vectors[i].tolist()) for i in range(n)]
    return pd.DataFrame(columns)


def make(n: int = 40, missing: float = 0.4, **sections: dict) -> tuple[Program, Dataset]:
    """A program over three small perceptrons (or given latents) and its data."""
    encoder = sections.pop("encoder", {"encoder": "mlp", "hidden": 8, "dropout": 0.0})
    config = {
        "modalities": {name: {"kind": "embedding", **encoder} for name in NAMES},
        "latent": {"dim": D},
        "prior": {"components": K, **sections.pop("prior", {})},
        "fusion": sections.pop("fusion", {"kind": "lstm", "hidden": 8, "layers": 2}),
        "fit": {"beta": 0.5, "batch_size": 10, **sections.pop("fit", {})},
        **sections,
    }
    torch.manual_seed(0)
    model = CM2.from_config(config)
    dataset = model.preparation.fit(read_manifest(frame(n, 1, missing)), np.arange(n))
    program = Program(model.config, {name: kind.shapes() for name, kind in model.preparation.kinds.items()}, 2)
    return program, dataset


def whole(dataset: Dataset) -> torch.Tensor:
    return torch.arange(len(dataset))


@pytest.mark.parametrize("treatment", ["conditional", "amortized", "marginal", "mean", "zero"])
@pytest.mark.parametrize("nobody", [False, True])
def test_every_modality_has_a_latent_site_in_both_traces(treatment: str, nobody: bool) -> None:
    program, dataset = make(guide={"missing": treatment})
    if nobody:
        dataset = dataset.with_observed(dataset.observed & torch.tensor([True, False, True]))
    for completions in [0, 1] if treatment == "conditional" else [0]:
        model, guide = traces(program, dataset.batch(whole(dataset)), completions)
        for trace in (model, guide):
            for name in NAMES:
                site = trace.nodes[f"z_{name}"]
                assert site["type"] == "sample"
                assert not site["is_observed"]
                assert site["value"].shape == ((K, len(dataset), D) if completions else (len(dataset), D))
        assert model.nodes["outcome"]["is_observed"]
        for name in ("weights", "locs", "scales", "copula"):
            assert name in model.nodes
            assert name in guide.nodes


def test_latent_sites_add_up_to_the_density_of_the_observed() -> None:
    program, dataset = make()
    for completions in (0, 1):
        model, guide = traces(program, dataset.batch(whole(dataset)), completions)
        z = torch.stack([guide.nodes[f"z_{name}"]["value"] for name in NAMES], -2)
        first = z[0] if completions else z
        total = sum(model.nodes[f"z_{name}"]["log_prob_sum"] for name in NAMES)
        expected = program.mixture().log_prob(first, dataset.observed).sum() * program.config.fit.beta
        torch.testing.assert_close(total, expected)
        loc, scale = program.guide.represent(dataset.batch(whole(dataset)))
        normal = torch.distributions.Normal(loc, scale.clamp_min(1e-9)).log_prob(first)
        log_q = torch.where(dataset.observed[..., None], normal, torch.zeros(())).sum() * program.config.fit.beta
        torch.testing.assert_close(sum(guide.nodes[f"z_{name}"]["log_prob_sum"] for name in NAMES), log_q)


def test_the_elbo_is_the_sum_of_its_terms() -> None:
    program, dataset = make()
    batch = dataset.batch(whole(dataset))
    value = -program.loss(batch).item()
    model, guide = program.trace_elbo.traces
    globals_ = sum(
        (model.nodes[n]["log_prob_sum"] - guide.nodes[n]["log_prob_sum"]).item() for n in ("weights", "locs", "scales", "copula")
    )
    terms = program.terms(batch)
    expected = terms.outcome - program.config.fit.beta * sum(terms.kl.values()) + globals_ / len(dataset)
    assert value == pytest.approx(expected, abs=1e-4)


def test_unlabelled_rows_have_no_outcome_term() -> None:
    program, dataset = make(missing=0.0)
    labels = dataset.labels.clone()
    labels[5:] = -1
    unlabelled = Dataset(dataset.names, dataset.inputs, dataset.observed, labels, dataset.ids, dataset.subjects)
    program.loss(unlabelled.batch(whole(dataset)))
    log_prob = program.trace_elbo.traces[0].nodes["outcome"]["log_prob"]
    assert bool((log_prob[:5] != 0).all())
    assert bool((log_prob[5:] == 0).all())


def test_minibatches_average_to_the_full_batch_exactly_without_noise() -> None:
    """Given latents, nothing missing: the ELBO has no noise, so the mean over a partition is the full-batch ELBO."""
    program, dataset = make(missing=0.0, encoder={"encoder": "identity"}, guide={"local": "delta"})
    full = program.loss(dataset.batch(whole(dataset))).item()
    parts = [program.loss(dataset.batch(rows)).item() for rows in whole(dataset).split(10)]
    assert np.mean(parts) == pytest.approx(full, abs=1e-5)
    assert np.std(parts) > 1e-3  # the parts themselves differ


@pytest.mark.slow
def test_minibatches_equal_the_full_batch_in_expectation() -> None:
    """Random batches, random latents, missing modalities, sampled global sites."""
    program, dataset = make(guide={"globals": "normal"})
    torch.manual_seed(1)
    with torch.no_grad():
        full = np.array([program.loss(dataset.batch(whole(dataset))).item() for _ in range(100)])
        parts = np.array([program.loss(dataset.batch(torch.randperm(len(dataset))[:10])).item() for _ in range(300)])
    error = math.sqrt(full.var() / len(full) + parts.var() / len(parts))
    assert abs(full.mean() - parts.mean()) < 5 * error
    # A plate without its subsample would weigh the global terms four times: far outside.
    model, guide = program.trace_elbo.traces
    prior = sum((model.nodes[n]["log_prob_sum"] - guide.nodes[n]["log_prob_sum"]).item() for n in ("weights", "locs", "scales", "copula"))
    assert 3 * abs(prior) / len(dataset) > 10 * error


@pytest.mark.parametrize("treatment", ["conditional", "amortized", "marginal", "mean", "zero"])
def test_encoder_of_an_absent_modality_gets_exactly_zero_gradient(treatment: str) -> None:
    program, dataset = make(guide={"missing": treatment})
    dataset = dataset.with_observed(dataset.observed & torch.tensor([True, False, True]))
    program.loss(dataset.batch(whole(dataset))).backward()
    for name, expected in (("a", True), ("b", False), ("c", True)):
        gradients = [p.grad for p in program.guide.locals[f"of_{name}"].parameters()]
        assert any(g is not None and bool((g != 0).any()) for g in gradients) == expected


def test_values_of_missing_inputs_change_nothing() -> None:
    program, dataset = make()
    garbage = {
        name: {"vector": torch.where(dataset.observed[:, m, None], views["vector"], torch.tensor(1e6))}
        for m, (name, views) in enumerate(dataset.inputs.items())
    }
    other = Dataset(dataset.names, garbage, dataset.observed, dataset.labels, dataset.ids, dataset.subjects)
    values = []
    for data in (dataset, other):
        torch.manual_seed(3)
        loss = program.loss(data.batch(whole(data)))
        program.zero_grad()
        loss.backward()
        values.append([loss.item(), *(p.grad.sum().item() for p in program.parameters() if p.grad is not None)])
    assert values[0] == values[1]


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["shared", "full"])
def test_the_imputed_latent_moves_the_prediction_and_carries_gradients(coupling: str) -> None:
    """d E[log p(y)] / d (weights, locs, scales, copula) through the missing latents alone, against finite differences."""
    n, rounds = (2000, 16) if coupling == "shared" else (4000, 32)
    program, dataset = make(
        n,
        prior={"coupling": coupling, "components": 2},
        encoder={"encoder": "identity"},
        guide={"local": "delta"},
        fusion={"kind": "mlp", "hidden": 8},
    )
    program.double()
    inputs = {name: {"vector": views["vector"].double()} for name, views in dataset.inputs.items()}
    observed = torch.tensor([[True, False, True]]).expand(n, 3)
    dataset = Dataset(dataset.names, inputs, observed, dataset.labels, dataset.ids, dataset.subjects)
    batch = dataset.batch(whole(dataset))
    with torch.no_grad():
        for parameter in program.model.parameters():
            parameter.mul_(3.0)  # a head that bends within the latents' range
    # Overlapping components: the draws' gradient has a heavy tail where the density between components is small.
    T = 2 if coupling == "shared" else 8
    program.start(
        {
            "weights": torch.tensor([0.4, 0.6] if T == 2 else [0.2, 0.1, 0.1, 0.05, 0.05, 0.1, 0.15, 0.25], dtype=torch.float64),
            "locs": torch.tensor([-1.0, 1.0], dtype=torch.float64)[None, :, None].expand(3, 2, D).clone(),
            "scales": torch.full((3, 2, D), 0.9, dtype=torch.float64),
            "copula": torch.linalg.cholesky(0.5 * torch.eye(3, dtype=torch.float64) + 0.5).expand(D, 3, 3).clone(),
        }
    )
    # Without the prior terms only the outcome is left in the loss, so every gradient comes through the drawn latent.
    program.model.beta = program.guide.beta = 1e-12
    sites = dict(program.guide.globals.named_parameters())

    def value() -> torch.Tensor:
        with pyro.settings.context(module_local_params=True):
            return program.elbo(batch, completions=int(coupling == "shared")) / n

    torch.manual_seed(0)
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in sites}
    for _ in range(rounds):
        program.zero_grad()
        value().backward()
        for name, parameter in sites.items():
            assert parameter.grad is not None
            drawn[name].append(parameter.grad.flatten().clone())
    # A drawn component jumps as its weight moves: a wide step tames that noise, at a bias of order step².
    step = 0.1
    for name, parameter in sites.items():
        gradient = torch.stack(drawn[name])
        j = int(gradient.mean(0).abs().argmax())
        differences = []
        for seed in range(rounds):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[j] += sign * step
                    torch.manual_seed(seed)  # common random numbers
                    ends.append(float(value()))
                    parameter.view(-1)[j] -= sign * step
            differences.append((ends[0] - ends[1]) / (2 * step))
        mean, error = np.mean(differences), math.sqrt((np.var(differences) + float(gradient[:, j].var())) / rounds)
        assert abs(mean - float(gradient[:, j].mean())) < 5 * error + 0.02 * abs(mean), name
        # The effect is there, and the comparison is sharp enough to miss a wrong one.
        assert abs(mean) > 5 * error, name


def test_the_imputed_latent_enters_the_outcome() -> None:
    """The reference code's fault: drawn representations that never reach the prediction."""
    program, dataset = make()
    batch = dataset.batch(whole(dataset))
    with torch.no_grad():
        mixture = program.mixture()
        noise = (torch.full((2, 3), 0.5), torch.zeros(2, 2, 3, D))
        noise[1][1, 1] = 1.0  # the second draw differs in the missing latents alone
        z = program.guide.draw(batch, mixture, noise)
        p = program.model.outputs(z)[..., 0]
    incomplete = ~dataset.observed.all(1)
    assert torch.equal(z[0][dataset.observed], z[1][dataset.observed])
    assert bool((p[0] != p[1])[incomplete].all())
    assert torch.equal(p[0][~incomplete], p[1][~incomplete])


def test_conditioning_one_modality_works() -> None:
    """pyro.condition on one latent site: the others are drawn given it, and the trace has its density."""
    program, dataset = make(missing=0.0)
    batch = dataset.batch(whole(dataset))
    value = torch.full((len(dataset), D), 0.7)
    trace = conditioned(program, batch, {"z_a": value})
    assert trace.nodes["z_a"]["is_observed"]
    mixture = program.structure.build({name: trace.nodes[name]["value"] for name in ("weights", "locs", "scales", "copula")})
    z = torch.stack([trace.nodes[f"z_{name}"]["value"] for name in NAMES], -2)
    total = sum(trace.nodes[f"z_{name}"]["log_prob_sum"] for name in NAMES)
    torch.testing.assert_close(total, mixture.log_prob(z).sum() * program.config.fit.beta)


@pytest.mark.slow
def test_completions_bound_the_same_outcome_more_tightly() -> None:
    """log of the mean over components is never below the mean of the log at a drawn component."""
    program, dataset = make()
    dataset = dataset.with_observed(dataset.observed & torch.tensor([True, False, False]))
    batch = dataset.batch(whole(dataset))
    torch.manual_seed(0)
    with torch.no_grad(), pyro.settings.context(module_local_params=True):
        summed = torch.stack([program.elbo(batch, completions=1) for _ in range(300)])
        drawn = torch.stack([program.elbo(batch, completions=0) for _ in range(300)])
    error = math.sqrt(float(summed.var() + drawn.var()) / 300)
    assert float(summed.mean()) < float(drawn.mean()) + 3 * error
    assert float(summed.var()) < float(drawn.var())


def test_every_parameter_is_stored_once_and_trained() -> None:
    program, dataset = make()
    names = list(program.state_dict())
    assert len({tensor.data_ptr() for tensor in program.state_dict().values() if tensor.numel()}) == len(names)
    program.loss(dataset.batch(whole(dataset))).backward()
    assert all(p.grad is not None for p in program.parameters())


def test_as_many_completions_as_asked_for() -> None:
    for asked, found in ((None, 1), (7, 7)):
        program, dataset = make(guide={"missing": "conditional", "completions": asked})
        program.loss(dataset.batch(whole(dataset)))
        model, _ = program.trace_elbo.traces
        assert model.nodes["z_a"]["value"].shape == (K * found, len(dataset), D)

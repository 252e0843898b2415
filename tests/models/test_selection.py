"""The selection model: its sites, its gradients, what it is told, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from cm2pyro.api import CM2
from cm2pyro.data.dataset import Dataset
from cm2pyro.errors import ConfigError
from tests.models.selections import OBSERVED, D, K, config, latents, make, patterns, trace_of, whole
from tests.traces import conditioned

pytestmark = pytest.mark.slow


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
    trace = conditioned(program, batch, {"z_a": value})
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

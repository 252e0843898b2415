"""Auxiliary heads: what they score, what they leave alone."""

import pyro
import pytest
import torch
from pyro import poutine

from cm2pyro import sites
from cm2pyro.api import CM2
from cm2pyro.config import Config
from cm2pyro.models.auxiliary import AuxiliaryHeads
from cm2pyro.models.likelihoods import LIKELIHOODS

NAMES = ("a", "b")
D = 3


def heads(task: str, classes: int, weight: float = 0.3) -> AuxiliaryHeads:
    torch.manual_seed(0)
    return AuxiliaryHeads(NAMES, D, [LIKELIHOODS.get(task)(classes) for _ in NAMES], weight)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(4, 2, D, generator=torch.Generator().manual_seed(1))
    return z, torch.tensor([[True, True], [True, False], [False, True], [False, False]])


def scored(auxiliary: AuxiliaryHeads, *args: torch.Tensor) -> poutine.Trace:
    def program() -> None:
        with pyro.plate(sites.PLATE, len(args[0])):
            auxiliary(*args)

    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    return trace


def test_each_scores_the_labelled_rows_that_have_its_modality() -> None:
    auxiliary, (z, observed) = heads("binary", 2), rows()
    labels, labelled = torch.tensor([1, 0, 1, 1]), torch.tensor([True, True, False, True])
    trace = scored(auxiliary, z, observed, labels, labelled)
    for m, name in enumerate(NAMES):
        logit = auxiliary.heads[m](z[:, m])[:, 0]
        # log p(1) = -softplus(-logit), log p(0) = -softplus(logit)
        each = -torch.nn.functional.softplus(torch.where(labels > 0, -logit, logit))
        expected = 0.3 * torch.where(labelled & observed[:, m], each, 0.0)
        torch.testing.assert_close(trace.nodes[sites.auxiliary(name)]["log_prob"], expected)


def test_a_missing_latent_reaches_no_gradient() -> None:
    auxiliary, (z, observed) = heads("binary", 2), rows()
    z = torch.where(observed[..., None], z, torch.nan).requires_grad_()
    trace = scored(auxiliary, z, observed, torch.tensor([1, 0, 1, 1]), torch.ones(4, dtype=torch.bool))
    trace.log_prob_sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad[~observed], torch.zeros_like(z.grad[~observed]))
    assert bool((z.grad[observed] != 0).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in auxiliary.parameters() if p.grad is not None)


def test_several_labels_drop_out_one_by_one() -> None:
    auxiliary, (z, observed) = heads("multilabel", 2), rows()
    labels = torch.tensor([[1, -1], [0, 1], [-1, 1], [1, 1]])
    trace = scored(auxiliary, z, observed, labels, torch.ones(4, dtype=torch.bool))
    logits = auxiliary.heads[0](z[:, 0])
    each = -torch.nn.functional.softplus(torch.where(labels > 0, -logits, logits))
    expected = 0.3 * torch.where(observed[:, 0], torch.where(labels >= 0, each, 0.0).sum(1), 0.0)
    torch.testing.assert_close(trace.nodes[sites.auxiliary("a")]["log_prob"], expected)


def config(**fit: float) -> Config:
    modality = {"kind": "embedding", "encoder": "mlp", "hidden": 4}
    return Config.from_dict({"modalities": dict.fromkeys(NAMES, modality), "latent": {"dim": D}, "fit": fit})


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_only_where_asked_for_and_with_their_own_noise(task: str) -> None:
    from cm2pyro.inference.program import Program

    shapes = {name: {"vector": (5,)} for name in NAMES}
    with_task = {"task": {"type": task}}
    plain = Program(Config.from_dict(config().to_dict() | with_task), shapes, 2)
    asked = Program(Config.from_dict(config(auxiliary=0.3).to_dict() | with_task), shapes, 2)
    added = set(asked.state_dict()) - set(plain.state_dict())
    assert {name.split(".")[1] for name in added} == {"auxiliary"}
    assert len(asked.model.observation_scales()) == (3 if task == "regression" else 0)
    assert len(asked.regularised()) == len(plain.regularised()) + len(NAMES)


def test_refuses_a_negative_weight() -> None:
    from cm2pyro.errors import ConfigError

    with pytest.raises(ConfigError, match=r"fit\.auxiliary: Input should be greater than or equal to 0; found -1"):
        CM2.from_config({"modalities": {"a": {"kind": "embedding", "encoder": "mlp"}}, "fit": {"auxiliary": -1}})

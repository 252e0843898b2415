"""Fusion and likelihoods."""

import pytest
import torch

from cm2pyro.models import FUSIONS, LIKELIHOODS


@pytest.mark.parametrize("kind", FUSIONS.names())
def test_fusion_takes_any_leading_shape_and_reads_every_modality(kind: str) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS.get(kind)(3, 2).eval()
    z = torch.randn(4, 5, 3, 2)
    features = fusion(z)
    assert features.shape == (4, 5, fusion.width)
    torch.testing.assert_close(fusion(z[1, 2]), features[1, 2])
    for m in range(3):
        moved = z.clone()
        moved[..., m, :] += 1
        assert not torch.allclose(fusion(moved), features)


def test_mlp_without_layers_hands_the_latents_on() -> None:
    fusion = FUSIONS.get("mlp")(3, 2, layers=0)
    z = torch.randn(4, 3, 2)
    assert torch.equal(fusion(z), z.flatten(1))
    assert fusion.width == 6


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 4)])
def test_likelihoods(task: str, classes: int) -> None:
    likelihood = LIKELIHOODS.get(task)(classes)
    torch.manual_seed(0)
    outputs = torch.randn(3, 6, likelihood.outputs)
    probabilities = likelihood.probabilities(outputs)
    assert probabilities.shape == (3, 6, classes)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 6))
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    value = likelihood.labels(labels, outputs.dtype)
    picked = probabilities[..., torch.arange(6), labels]
    torch.testing.assert_close(likelihood.distribution(outputs).log_prob(value).exp(), picked)
    # Completions: the likelihood of the mean probability.
    log_weights = torch.randn(3, 6).log_softmax(0)
    mixed = likelihood.mixture(outputs, log_weights)
    assert mixed.batch_shape == (6,)
    torch.testing.assert_close(mixed.log_prob(value).exp(), (log_weights.exp() * picked).sum(0))

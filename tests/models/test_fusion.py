"""Fusion."""

import pytest
import torch

from cm2pyro.models import FUSIONS


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

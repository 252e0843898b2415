"""What a treatment of missing modalities is."""

from torch import Tensor, nn

from cm2pyro.distributions.mixture import CopulaMixture

Noise = tuple[Tensor, Tensor]  # uniform (..., M) for the choice of components, standard normal (..., M, D)
Represented = tuple[Tensor, Tensor]  # loc and scale of q(z_m | x_m), (B, M, D) each, 0 where the modality is missing


class Treatment(nn.Module):
    """Fills in the latents of the modalities that a row lacks.

    Those that have a density (`Guide.scores_missing` of the config) return it, and the model then scores every latent. The
    others return 0 and the model scores the observed latents alone, which is exact for draws from its own conditional, and
    for constants.

    Args:
        modalities: M. dim: latent width D.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.modalities, self.dim = modalities, dim

    def forward(
        self, mixture: CopulaMixture, z: Tensor, observed: Tensor, noise: Noise | None = None, represented: Represented | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fill in what is missing.

        Args:
            z: (..., M, D) latents, anything where not observed. observed: (..., M) bool. noise: drawn here if None.
            represented: of the rows; None where the observed latents are points, given by `z`.

        Returns:
            (..., M, D), the observed latents as given; and (..., M) log density of each missing one, 0 where observed.
        """
        raise NotImplementedError

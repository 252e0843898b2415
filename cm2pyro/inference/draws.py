"""What draws of the latents are made from: mixtures, and noise that every row of a data set shares."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.guides.imputation import Noise
from cm2pyro.inference.program import Program

_GLOBAL_DRAWS = 20  # mixtures drawn where the global sites have a posterior; the latents' draws are spread over them


@dataclass(frozen=True)
class Group:
    """S draws of the latents that share a program and a draw of its global sites.

    Attributes:
        mixture: at that draw. noise: of observed latents, (S, 1, M, D), the same for every row. first, second: of missing
            latents, two independent sets, uniform (S, 1, M) and standard normal (S, 1, M, D) each.
    """

    program: Program
    mixture: CopulaMixture
    noise: Tensor
    first: Noise
    second: Noise

    def __len__(self) -> int:
        return len(self.noise)

    def observed(self, represented: tuple[Tensor, Tensor]) -> Tensor:
        """Draws of observed latents from what `represent` gave, (S, B, M, D)."""
        return self.program.guide.draw_observed(*represented, self.noise)

    def complete(self, z: Tensor, observed: Tensor, noise: Noise) -> Tensor:
        """z (S, B, M, D) with the modalities that are not `observed` (B, M) drawn from noise like `first`, or one a row."""
        uniform, normal = noise
        shape = z.shape[:-1]
        return self.program.guide.treat(self.mixture, z, observed.expand(shape), (uniform.expand(shape), normal.expand(z.shape)))[0]

    def draw(self, represented: tuple[Tensor, Tensor], observed: Tensor) -> Tensor:
        """Draws of all latents, (S, B, M, D)."""
        return self.complete(self.observed(represented), observed, self.first)

    def expectation(self, z: Tensor) -> Tensor:
        """What is predicted at latents z (S, B, M, D): probabilities, of a number its mean; (S, B, C) float64."""
        model = self.program.model
        return model.likelihood.expectation(model.outputs(z)).double()


def drawn_groups(programs: Sequence[Program], draws: int, seed: int) -> list[Group]:
    """The groups of a prediction's draws, `draws` of each program, on its device."""
    found = []
    for program in programs:
        device = next(program.parameters()).device
        M, D = len(program.guide.names), program.structure.dim
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(draws, M, generator=generator)
        normal = torch.randn(draws, 2, M, D, generator=generator)
        again = torch.rand(draws, M, generator=generator), torch.randn(draws, M, D, generator=generator)
        if program.guide.globals.random:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                mixtures = [program.draw_mixture() for _ in range(min(draws, _GLOBAL_DRAWS))]
        else:
            mixtures = [program.mixture()]
        for mixture, rows in zip(mixtures, torch.arange(draws).tensor_split(len(mixtures)), strict=True):
            u, n, u2, n2 = (x[rows, None].to(device) for x in (uniform, normal, *again))
            found.append(Group(program, mixture, n[:, :, 0], (u, n[:, :, 1]), (u2, n2)))
    return found

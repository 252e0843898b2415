"""Draws of the latents given what is observed, and what each says about the outcome."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm2pyro.data.dataset import Batch, Dataset
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.guides.imputation import Noise
from cm2pyro.inference import distributed
from cm2pyro.inference.program import ROWS_AT_ONCE, Program, evaluating
from cm2pyro.models import Head, as_head

Alteration = Callable[[Program, Tensor, Tensor], Tensor]  # z (S, B, M, D) of all latents, observed (B, M) -> other draws like z

_GLOBAL_DRAWS = 20  # mixtures drawn where the global sites have a posterior; the latents' draws are spread over them


@dataclass(frozen=True)
class Member:
    """Draws of one fit for a batch.

    Attributes:
        program: the fit. mixtures: its prior, at one or several draws of the global sites. head: the outcome's head at the
            same draws, one for each of S, where it is a site.
        represented: loc and scale of the observed latents, (B, M, D) each. z: (S, B, M, D).
        parameters: (S, B, P), see `Likelihood.predictive`. log_weights: (S, B), summing to 1 over S; None: equal.
    """

    program: Program
    mixtures: list[CopulaMixture]
    represented: tuple[Tensor, Tensor]
    z: Tensor
    parameters: Tensor
    log_weights: Tensor | None
    head: Head | None = None


@dataclass(frozen=True)
class Draws:
    """Draws of all members of an ensemble for a batch; a single fit is an ensemble of one."""

    batch: Batch
    members: list[Member]

    @property
    def parameters(self) -> Tensor:
        """(S in all, B, P)."""
        return torch.cat([member.parameters for member in self.members])

    @property
    def log_weights(self) -> Tensor | None:
        """(S in all, B): members count alike."""
        if all(member.log_weights is None for member in self.members):
            return None
        each = [
            member.parameters.new_full(member.parameters.shape[:2], -math.log(len(member.parameters)))
            if member.log_weights is None
            else member.log_weights
            for member in self.members
        ]
        return torch.cat(each) - math.log(len(each))


def shared_noise(draws: int, modalities: int, dim: int, seed: int, device: torch.device) -> Noise:
    """Uniform (S, M) and standard normal (S, 2, M, D): the same for every row, and on every device."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(draws, modalities, generator=generator)
    return uniform.to(device), torch.randn(draws, 2, modalities, dim, generator=generator).to(device)


@dataclass(frozen=True)
class Globals:
    """Global sites at one or several draws of their posterior, or at their point estimate.

    Attributes:
        mixtures: the prior over the latents at each. heads: the outcome's head at each, where it is a site, else empty.
    """

    mixtures: list[CopulaMixture]
    heads: list[Head]

    def head(self, draws: int) -> Head | None:
        """The head of each of that many draws of the latents, (S, outputs, width) and (S, outputs)."""
        if not self.heads:
            return None
        sizes = torch.tensor([some.stop - some.start for some in groups_of(draws, self.heads)])
        weight, bias = (torch.stack(part) for part in zip(*self.heads, strict=True))
        sizes = sizes.to(weight.device)
        return weight.repeat_interleave(sizes, 0), bias.repeat_interleave(sizes, 0)


def globals_of(program: Program, draws: int, seed: int) -> Globals:
    """The global sites of a fit, for that many draws of the latents."""
    values = program.draw_globals(min(draws, _GLOBAL_DRAWS), seed) if program.random else [program.values()]
    heads = [as_head(value) for value in values]
    return Globals([program.build(value) for value in values], [head for head in heads if head is not None])


def posterior_draws(
    programs: Sequence[Program], dataset: Dataset, draws: int, seed: int, batch_size: int = ROWS_AT_ONCE, alter: Alteration | None = None
) -> Iterator[Draws]:
    """Draws for every row, batch by batch, `draws` for each member, passed through `alter` if that is given.

    Of several processes each draws for its own batches, see `distributed.batches`; where draws are altered for all.

    Every row uses the same noise: its numbers depend on the patient, the run, `draws` and `seed` alone.
    """
    device = next(programs[0].parameters()).device
    with evaluating(programs), torch.no_grad():
        globals_ = [globals_of(program, draws, seed) for program in programs]
        noise = shared_noise(draws, len(dataset.names), programs[0].structure.dim, seed, device)
        # What alters draws may count them: it sees all.
        for batch in dataset.batches(batch_size) if alter is not None else distributed.batches(dataset, batch_size):
            batch = batch.to(device)
            yield Draws(batch, [_member(*each, batch, noise, alter) for each in zip(programs, globals_, strict=True)])


def groups_of(draws: int, values: Sequence[object]) -> list[slice]:
    """Which of a member's draws of the latents belong to which draw of its global sites, of which there are as many as `values`."""
    ends = [len(part) for part in torch.arange(draws).tensor_split(len(values))]
    starts = [sum(ends[:i]) for i in range(len(ends))]
    return [slice(start, start + length) for start, length in zip(starts, ends, strict=True)]


def _member(program: Program, globals_: Globals, batch: Batch, noise: Noise, alter: Alteration | None) -> Member:
    represented = program.guide.represent(batch)  # once, whatever the number of mixtures: encoders are what costs
    mixtures = globals_.mixtures
    z = torch.cat(
        [
            program.guide.draw(batch, mixture, (noise[0][group], noise[1][group]), represented)
            for mixture, group in zip(mixtures, groups_of(len(noise[0]), mixtures), strict=True)
        ]
    )
    head = globals_.head(len(z))
    outputs, log_weights = program.model.predictive(z, batch.observed, head)
    if alter is not None:
        z = alter(program, z, batch.observed)
        outputs, _ = program.model.predictive(z, batch.observed, head)  # weights stay those of the draws as they came
    return Member(program, mixtures, represented, z, program.model.likelihood.predictive(outputs), log_weights, head)

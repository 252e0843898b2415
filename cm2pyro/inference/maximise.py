"""Maximum a posteriori estimates of global sites on latents that stand still."""

from collections.abc import Iterable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints

from cm2pyro.distributions.structure import MixtureStructure

_MOST_ROWS = 20_000  # more would not move the estimates by what matters


def maximise(
    structure: MixtureStructure,
    priors: dict[str, TorchDistribution],
    values: dict[str, Tensor],
    names: Iterable[str],
    z: Tensor,
    observed: Tensor,
    steps: int = 100,
    seed: int = 0,
    margins_only: bool = False,
) -> tuple[dict[str, Tensor], float]:
    """Maximise Σ_i log p(z_i,observed) + log prior over the named sites, the others held, by L-BFGS in float64.

    Args:
        values: of all global sites; the search starts there. z: (N, M, D). observed: (N, M) bool. Of more than 20,000 rows
            that many are drawn with `seed`. margins_only: maximise the composite likelihood of the margins, see `IndependentMargins`.

    Returns:
        all values, the named ones at the maximum; and the log likelihood there, for all N rows.
    """
    if len(z) > _MOST_ROWS:
        rows = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:_MOST_ROWS].to(z.device)
        share = len(z) / _MOST_ROWS
        z, observed = z[rows], observed[rows]
    else:
        share = 1.0
    z = z.detach().double()
    fixed = {name: value.detach().double() for name, value in values.items()}
    transforms = {name: biject_to(priors[name].support) for name in names}
    free = {
        # A copy: on the real line the transform gives back the caller's own tensor, and the search writes into it.
        name: t.inv(inside(fixed[name], priors[name].support)).detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        for name, t in transforms.items()
    }

    def at(free: dict[str, Tensor]) -> dict[str, Tensor]:
        return fixed | {name: transforms[name](x) for name, x in free.items()}

    def terms() -> tuple[Tensor, Tensor]:
        now = at(free)
        prior = torch.stack([priors[name].log_prob(now[name]).sum() for name in transforms]).sum()
        return share * structure.build(now, margins_only).log_prob(z, observed).sum(), prior

    if free:
        optimiser = torch.optim.LBFGS(
            list(free.values()), max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-6, tolerance_change=1e-10
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            likelihood, prior = terms()
            loss = -(likelihood + prior) / (share * len(z))
            loss.backward()
            return loss

        optimiser.step(closure)
    with torch.no_grad():
        likelihood = float(terms()[0]) if free else float(share * structure.build(fixed, margins_only).log_prob(z, observed).sum())
        found = at(free)
    return {name: found[name].detach().to(value.dtype) for name, value in values.items()}, likelihood


def inside(value: Tensor, support: constraints.Constraint | None) -> Tensor:
    """Away from the corners of a simplex, where its transform is infinite."""
    if support is not constraints.simplex:
        return value
    value = value.clamp_min(1e-8)
    return value / value.sum()

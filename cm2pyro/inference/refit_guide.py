"""Variational inference for the global sites on latents that stand still: the guide against the posterior that NUTS draws from."""

from collections.abc import Sequence

import pyro
import torch
from torch import Tensor

from cm2pyro.guides.globals import GlobalGuide
from cm2pyro.inference.mcmc import Potential, Values, approximation

_STEPS, _DRAWS = 300, 2  # of Adam; of the guide at each
_LR, _LAST = 0.01, 0.02  # on unconstrained values; share of it at the end
_JUDGED = 32  # draws by which start and end are compared


def log_ratio(guides: Sequence[GlobalGuide], potential: Potential) -> Tensor:
    """log p(sites, z_observed, y) − log q(sites) at one draw of q, (), on unconstrained values; its mean is the ELBO.

    Like the potential itself it takes Jacobians in float64: those of a guide in float32 saturate far out, and a guide would go there.
    """
    parts: dict[str, Tensor] = {}
    log_q = torch.zeros((), dtype=torch.float64, device=potential.z.device)
    for guide in guides:
        found, density = guide.rsample_free()
        parts |= found
        log_q = log_q + density.double()
    return -potential(torch.cat([parts[name].double() for name in potential.priors])) - log_q


def refit_guide(guides: Sequence[GlobalGuide], potential: Potential, start: Values, seed: int = 0, steps: int = _STEPS) -> float:
    """Fit guides of disjoint sites to p(sites | z_observed, y), and return the ELBO.

    They begin at the normal approximation at the mode next to `start`, as far as each can take it on, and climb by Adam. What has the
    greater ELBO, by the same draws, is kept: beginning or end.

    Args:
        start: values of all sites of the potential. seed: of the draws; the state of the caller's generator stays as it was.
    """
    mode, root = approximation(potential, potential.unconstrain(start))
    values = {name: value.detach() for name, value in potential.constrain(mode).items()}
    parts = dict(zip(potential.priors, torch.arange(potential.size).split(potential.sizes), strict=True))
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True):
        torch.manual_seed(seed)
        for guide in guides:
            own = torch.cat([parts[name] for name in guide.sites])
            like = next(guide.parameters())
            guide.start({name: values[name].to(like) for name in guide.sites})
            guide.spread((root @ root.mT)[own][:, own].to(like))
        before = _elbo(guides, potential, seed)
        kept = [{name: tensor.detach().clone() for name, tensor in guide.state_dict().items()} for guide in guides]
        optimiser = torch.optim.Adam([group for guide in guides for group in guide.parameter_groups(_LR)])
        decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, _LAST ** (1 / max(steps, 1)))
        for _ in range(steps):
            optimiser.zero_grad()
            loss = -sum((log_ratio(guides, potential) for _ in range(_DRAWS)), torch.zeros(())) / _DRAWS
            if bool(torch.isfinite(loss)):
                loss.backward()
                optimiser.step()
            decay.step()
        after = _elbo(guides, potential, seed)
        if after > before:
            return after
        for guide, state in zip(guides, kept, strict=True):
            guide.load_state_dict(state)
        return before


def _elbo(guides: Sequence[GlobalGuide], potential: Potential, seed: int) -> float:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return float(torch.stack([log_ratio(guides, potential) for _ in range(_JUDGED)]).mean().nan_to_num(-torch.inf))

"""Whether a prior's support is that of its site, and which distributions have one that is."""

import inspect
from collections.abc import Iterable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints, transform_to

from cm2pyro.errors import ConfigError

_CIRCULAR = (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)  # they call their support real; there they do not integrate to one


def check_support(site: str, made: TorchDistribution, needed: constraints.Constraint, known: Iterable[type[TorchDistribution]]) -> None:
    """Raises ConfigError unless the support is the one needed, element by element or as one event; it names those of `known` that fit."""
    found = _support(made)
    if found is not None and _fits(made, found, needed):
        return
    what = "no support" if found is None else f"support {_said(made, found)}"
    others = fitting(needed, known)
    remedy = f"one of {', '.join(others)}" if len(others) > 1 else others[0] if others else "another distribution"
    raise ConfigError(f"priors.{site}: {type(made).__name__} has {what}; the site needs {needed}; choose {remedy}")


def fitting(needed: constraints.Constraint, known: Iterable[type[TorchDistribution]]) -> list[str]:
    """Names of the distributions that fit whatever their arguments are, in order; each is tried in the middle of these."""
    found = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for cls in known:
            try:
                made = _example(cls).expand(torch.Size((2,)))
                support = _support(made)
                fits = support is not None and len(made.event_shape) == needed.event_dim and _fits(made, support, needed)
                if fits and made.log_prob(made.sample()).isfinite().all():
                    found.append(cls.__name__)
            except Exception:  # of any distribution there is: it asks for more than its constraints say, does not expand, has no density
                continue
    return sorted(set(found))


def base(support: Any) -> Any:
    """The constraint of one element."""
    return support.base_constraint if isinstance(support, constraints.independent) else support


def _example(cls: Any) -> TorchDistribution:
    arguments = {name: transform_to(own)(torch.zeros((2,) * own.event_dim)) for name, own in cls.arg_constraints.items()}
    sized = {"dim": 2} if "dim" in inspect.signature(cls.__init__).parameters else {}
    made: TorchDistribution = cls(**arguments, **sized, validate_args=True)
    return made


def _support(made: TorchDistribution) -> Any:
    try:
        return base(made.support)
    except NotImplementedError:
        return None


def _fits(made: TorchDistribution, found: Any, needed: constraints.Constraint) -> bool:
    if isinstance(made, (dist.Delta, *_CIRCULAR)):
        return False
    if needed is constraints.positive:
        # Exactly the positive half-line: a start outside a narrower support would end the fit in its first step.
        lower = getattr(found, "lower_bound", None)
        zero = lower is not None and bool((torch.as_tensor(lower) == 0).all())
        return zero and not hasattr(found, "upper_bound") and not found.is_discrete
    return type(found) is type(needed) and all(_bound(found, side) == _bound(needed, side) for side in ("lower_bound", "upper_bound"))


def _said(made: TorchDistribution, found: Any) -> str:
    return "a point" if isinstance(made, dist.Delta) else "a circle" if isinstance(made, _CIRCULAR) else str(found)


def _bound(support: constraints.Constraint, side: str) -> float | None:
    """A bound where it is one number; None where there is none."""
    value = getattr(support, side, None)
    if value is None:
        return None
    values = torch.as_tensor(value).unique()
    return float(values) if len(values) == 1 else float("nan")

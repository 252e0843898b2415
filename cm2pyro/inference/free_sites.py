"""All global sites of a mixture as one unconstrained vector."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import biject_to

from cm2pyro import sites
from cm2pyro.distributions.structure import MixtureStructure
from cm2pyro.inference.maximise import inside


class FreeSites:
    """All global sites as one unconstrained vector (P,), in float64; P counts free parameters.

    Args:
        values: of the sites. priors: of these, and perhaps of others.

    Attributes:
        vector: (P,) where `values` are. shapes: site -> shape of its unconstrained value.
    """

    def __init__(self, structure: MixtureStructure, priors: dict[str, TorchDistribution], values: dict[str, Tensor]) -> None:
        self.structure, self.priors = structure, {name: priors[name] for name in values}
        self.transforms = {name: biject_to(prior.support) for name, prior in self.priors.items()}
        parts = {
            name: self.transforms[name].inv(inside(value.detach().double(), self.priors[name].support)) for name, value in values.items()
        }
        self.shapes = {name: part.shape for name, part in parts.items()}
        self.vector = torch.cat([part.reshape(-1) for part in parts.values()])

    @property
    def places(self) -> dict[str, slice]:
        """Where each site lies in the vector."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            found[name] = slice(start, start + shape.numel())
            start += shape.numel()
        return found

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Values of the sites at x (P,)."""
        parts = x.split([shape.numel() for shape in self.shapes.values()])
        return {name: self.transforms[name](part.reshape(self.shapes[name])) for name, part in zip(self.shapes, parts, strict=True)}

    def log_prob(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """(N,) log density of every row."""
        return self.structure.build(self.values(x)).log_prob(z, observed)

    def log_prior(self, x: Tensor) -> Tensor:
        """On the constrained scale, as `maximise` has it."""
        return torch.stack([self.priors[name].log_prob(value).sum() for name, value in self.values(x).items()]).sum()

    def objective(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """() log likelihood + log prior."""
        return self.log_prob(x, z, observed).sum() + self.log_prior(x)

    def gradient(self, x: Tensor, z: Tensor, observed: Tensor) -> Tensor:
        """(P,) of the objective."""
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(self.objective(x, z, observed), x)[0]

    def speed(self, x: Tensor) -> Tensor:
        """(P,) the most that any value moves per unit of each coordinate: near zero where a value lies at a bound of its support."""
        found = []
        for name, place in self.places.items():
            part = x[place].reshape(self.shapes[name])
            if name == sites.LOCS or not part.numel():  # the real line has no bounds
                found.append(torch.ones(part.numel(), dtype=x.dtype))
                continue
            moved = jacobian(self.transforms[name], part, vectorize=True)
            found.append(moved.reshape(-1, part.numel()).abs().amax(0))
        return torch.cat(found)

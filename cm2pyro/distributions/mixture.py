"""The copula mixture: the joint prior over the latents of all modalities."""

from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cm2pyro.distributions.copulas.base import Copula, Shape
from cm2pyro.distributions.copulas.independence import IndependenceCopula
from cm2pyro.distributions.linalg import half_square
from cm2pyro.distributions.special import LOG_SQRT_2PI
from cm2pyro.noise import normal_like, uniform_like


class CopulaMixture(TorchDistribution):
    """Gaussian mixtures per modality, tied by a copula inside each joint component.

        t             ~ Categorical(w)
        (u_1j … u_Mj) ~ C_j                          independently over the latent dimensions j = 1…D
        z_mj          = loc + scale Φ⁻¹(u_mj)         of component a(t, m) of modality m

    The marginal of every modality is exactly its Gaussian mixture, and every subset of modalities has the same
    density with the other coordinates dropped (Sklar's theorem inside each component).

    Args:
        log_weights: (T,) log weights of the joint components; normalised here.
        assignment: (T, M) long, the component of each modality that joint component t uses.
        locs, scales: (M, K, D). copula: batch shape () or (D,), event shape (M,).

    Shapes: batch shape (), event shape (M, D).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_weights": constraints.real_vector,
        "locs": constraints.independent(constraints.real, 3),
        "scales": constraints.independent(constraints.positive, 3),
    }
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        log_weights: Tensor,
        assignment: Tensor,
        locs: Tensor,
        scales: Tensor,
        copula: Copula,
        validate_args: bool | None = None,
    ) -> None:
        self.log_weights = log_weights.log_softmax(-1)
        self.assignment = assignment
        self.locs = locs
        self.scales = scales
        self.copula = copula
        self._modality = torch.arange(locs.shape[0], device=locs.device)
        self._joint_locs = locs[self._modality, assignment]  # (T, M, D)
        self._joint_scales = scales[self._modality, assignment]
        super().__init__(torch.Size(), torch.Size((locs.shape[0], locs.shape[2])), validate_args)

    @property
    def joint_components(self) -> int:
        """T."""
        return self.log_weights.shape[-1]

    def expand(self, batch_shape: Shape, _instance: object = None) -> TorchDistribution:
        return dist.ExpandedDistribution(self, torch.Size(batch_shape))

    # --- density ------------------------------------------------------------------------------------------------

    def standardise(self, z: Tensor, observed: Tensor | None = None) -> list[Tensor]:
        """Normal scores of z (..., M, D) in every joint component: one (..., T, D) a modality; of 0 where not observed."""
        z = z if observed is None else _zero_missing(z, observed)
        inverse = self._joint_scales.reciprocal()
        return [(z[..., None, m, :] - self._joint_locs[:, m]) * inverse[:, m] for m in range(self.locs.shape[0])]

    def component_log_prob(self, z: Tensor, observed: Tensor | None = None) -> Tensor:
        """log p(z_observed | t): z (..., M, D), observed (..., M) bool -> (..., T). Nothing observed: 0."""
        # A modality apart: what the copula computes with, and nothing is copied.
        s = self.standardise(z, observed)
        squares = torch.stack([half_square(x) for x in s], -1)  # (..., T, M)
        constants = self._joint_scales.log().sum(-1) + LOG_SQRT_2PI * z.shape[-1]  # (T, M)
        if observed is None:
            return self.copula.log_prob_of(s).sum(-1) - squares.sum(-1) - constants.sum(-1)
        seen = observed.to(z.dtype)
        margins = (squares * seen[..., None, :]).sum(-1) + seen @ constants.mT
        return self.copula.log_prob_of(s, observed[..., None, None, :]).sum(-1) - margins

    def log_prob(self, z: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log density of the observed modalities; the others are marginalised exactly.

        Args:
            z: (..., M, D), anything (also NaN) where not observed. observed: (..., M) bool, each row with its own
                pattern; None means all.

        Returns:
            (...,); 0 where nothing is observed.
        """
        if self._validate_args and observed is None:
            self._validate_sample(z)
        return torch.logsumexp(self.log_weights + self.component_log_prob(z, observed), -1)

    def responsibilities(self, z: Tensor, observed: Tensor | None = None) -> Tensor:
        """log p(t | z_observed): (..., T)."""
        return (self.log_weights + self.component_log_prob(z, observed)).log_softmax(-1)

    def marginal(self, m: int) -> dist.MixtureSameFamily:
        """The Gaussian mixture of modality m, event shape (D,)."""
        log_weights = self.marginal_log_weights(m)
        normals = dist.Normal(self.locs[m], self.scales[m], validate_args=False).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=log_weights, validate_args=False), normals, validate_args=False)

    def alone(self, m: int) -> "CopulaMixture":
        """Modality m by itself, event shape (1, D): `marginal` with this class's draws and their gradients."""
        independent = IndependenceCopula(1, self.locs)
        one = slice(m, m + 1)
        return CopulaMixture(self.log_weights, self.assignment[:, one], self.locs[one], self.scales[one], independent, validate_args=False)

    def marginal_log_weights(self, m: int) -> Tensor:
        """(K,) log weights of the components of modality m."""
        used = torch.nn.functional.one_hot(self.assignment[:, m], self.locs.shape[1]).bool()  # (T, K)
        return torch.logsumexp(torch.where(used, self.log_weights[:, None], self.log_weights.new_tensor(-torch.inf)), 0)

    # --- draws --------------------------------------------------------------------------------------------------

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:
        """(*sample_shape, M, D), with gradients to every parameter, the weights included (see `conditional`)."""
        shape = torch.Size(sample_shape) + self.event_shape
        z = self.locs.new_zeros(shape)
        return self.conditional(z, torch.zeros(shape[:-1], dtype=torch.bool, device=z.device))

    def conditional(self, z: Tensor, observed: Tensor, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Draw the missing modalities given the observed ones, exactly: a component by its responsibility, then the copula.

        Gradients are kept: with respect to the observed latents, locs, scales, weights and the copula's parameter, by
        implicit reparameterisation of each coordinate through its conditional mixture CDF, one after the other
        (Graves 2016, arXiv 1607.05690). Where the outcome can be summed over components, `completions` has less variance.

        Args:
            z: (..., M, D), anything where not observed. observed: (..., M) bool.
            noise: uniform (...,) that picks the component and standard normal (..., M, D); drawn here if None.

        Returns:
            (..., M, D): observed modalities as given, the missing ones drawn.
        """
        z = _zero_missing(z, observed)
        uniform, normal = noise if noise is not None else (uniform_like(z[..., 0, 0], -1), normal_like(z, -3))
        with torch.no_grad():
            t = self._pick(self.responsibilities(z, observed), uniform)
            locs, scales = self._joint_locs[t], self._joint_scales[t]  # (..., M, D)
            drawn = self._given_component(z, observed, locs, scales, normal)
        if torch.is_grad_enabled() and self._needs_grad(z):
            return self._attach(z, drawn, observed)
        return drawn

    def choose(self, z: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """The draws of `conditional`, with the derivative given the drawn component only, and that component's log responsibility.

        For the score-function estimator: to the derivative of f(z) add that of log r_t times (f(z) − a baseline that does
        not depend on t). Cheaper than `conditional` by a factor of D, but noisier.

        Returns:
            (..., M, D) and log p(t | z_observed), (...,).
        """
        z = _zero_missing(z, observed)
        uniform, normal = uniform_like(z[..., 0, 0], -1), normal_like(z, -3)
        log_r = self.responsibilities(z, observed)
        t = self._pick(log_r, uniform)
        locs, scales = self._joint_locs[t], self._joint_scales[t]  # (..., M, D)
        return self._given_component(z, observed, locs, scales, normal), log_r.gather(-1, t[..., None])[..., 0]

    def completions(self, z: Tensor, observed: Tensor, normal: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One completion of z per joint component, and the components' log responsibilities.

        Summing a function over the completions with these weights gives its expectation over the discrete component
        exactly; what is left to chance is the standard normal noise, shared by the completions.

        Args:
            z, observed: as in `conditional`. normal: (..., M, D) noise, drawn here if None.

        Returns:
            (T, ..., M, D) differentiable draws given each component, and (T, ...) log p(t | z_observed).
        """
        z = _zero_missing(z, observed)
        normal = normal_like(z, -3) if normal is None else normal
        locs, scales = self._joint_locs, self._joint_scales
        shape = (self.joint_components, *[1] * (z.dim() - 2), *self.event_shape)
        locs, scales = locs.reshape(shape), scales.reshape(shape)
        return self._given_component(z, observed, locs, scales, normal), self.responsibilities(z, observed).movedim(-1, 0)

    def _given_component(self, z: Tensor, observed: Tensor, locs: Tensor, scales: Tensor, normal: Tensor) -> Tensor:
        """The missing modalities of z drawn given the observed ones, by the copula on the normal scores of one component."""
        scores = ((z - locs) / scales).mT  # (..., D, M)
        drawn = self.copula.conditional(scores, observed[..., None, :]).rsample(noise=normal.mT.expand_as(scores)).mT
        return torch.where(observed[..., None], z, locs + scales * drawn)

    def _pick(self, log_r: Tensor, uniform: Tensor) -> Tensor:
        """A joint component from its log responsibilities (..., T) by inversion of uniform (...,)."""
        cumulative = log_r.detach().exp().cumsum(-1)
        return (uniform[..., None] * cumulative[..., -1:] > cumulative).sum(-1).clamp_max(self.joint_components - 1)

    def _needs_grad(self, z: Tensor) -> bool:
        tensors = (z, self.log_weights, self.locs, self.scales, self.copula.theta_like)
        return any(tensor.requires_grad for tensor in tensors)

    def _attach(self, z: Tensor, drawn: Tensor, observed: Tensor) -> Tensor:
        """Give draws their implicit derivative: dz = -dF / p at each coordinate, in the order modality, dimension."""
        shape, M, D = z.shape, *self.event_shape
        z, drawn, observed = z.reshape(-1, M, D), drawn.reshape(-1, M, D), observed.expand(shape[:-1]).reshape(-1, M)
        column = [[z[:, m, j] for j in range(D)] for m in range(M)]
        locs, scales = self._joint_locs, self._joint_scales
        log_r = self.responsibilities(z, observed)  # (B, T), updated coordinate by coordinate
        known = observed
        copulas = [self.copula.select(j) for j in range(D)]
        for m in range(M):
            missing = ~known[:, m]
            if not bool(missing.any()):
                continue
            # Rows that have the modality are computed alongside and discarded; their pattern must not contain m.
            given = known & (self._modality != m)
            for j in range(D):

                def law(value: Tensor, m: int = m, j: int = j, given: Tensor = given) -> tuple[Tensor, Tensor]:
                    row = torch.stack([value if i == m else column[i][j] for i in range(M)], -1)  # (B, M)
                    scores = (row[:, None, :] - locs[:, :, j]) / scales[:, :, j]  # (B, T, M)
                    cdf, log_density = copulas[j].conditional_margin(scores, m, given[:, None, :])
                    return cdf, log_density - scales[:, m, j].log()

                value = drawn[:, m, j]
                cdf, log_density = law(value)
                F = (log_r.exp() * cdf).sum(-1)
                p = torch.logsumexp(log_r + log_density, -1).exp().detach()
                # Rows that have the modality may lie where p underflows; their quotient is discarded, its gradient must not be NaN.
                p = torch.where(missing, p, torch.ones_like(p)).clamp_min(torch.finfo(p.dtype).tiny)
                attached = value - (F - F.detach()) / p
                column[m][j] = torch.where(missing, attached, column[m][j])
                _, log_density = law(column[m][j])
                log_r = torch.where(missing[:, None], (log_r + log_density).log_softmax(-1), log_r)
            known = known | (self._modality == m)
        return torch.stack([torch.stack(column[m], -1) for m in range(M)], -2).reshape(shape)


class IndependentMargins(CopulaMixture):
    """The first step of inference for margins: the modalities' mixtures side by side, without their dependence.

    `log_prob` is the composite log density Σ_m log p_m(z_m) over observed modalities, whose maximum is consistent for
    locs, scales and weights whatever the copula is (Joe & Xu 1996, University of British Columbia, TR 166). Components stay
    aligned through the joint component t, by which draws and responsibilities go.
    """

    def log_prob(self, z: Tensor, observed: Tensor | None = None) -> Tensor:
        z = z if observed is None else _zero_missing(z, observed)
        terms = []
        for m in range(self.locs.shape[0]):
            own = self.marginal(m).log_prob(z[..., m, :])
            terms.append(own if observed is None else torch.where(observed[..., m], own, own.new_zeros(())))
        return torch.stack(terms).sum(0)


def _zero_missing(z: Tensor, observed: Tensor) -> Tensor:
    """z (..., M, D) with zeros where not observed (..., M): whatever stood there, such as NaN, reaches no value and no gradient."""
    return torch.where(observed[..., None], z, torch.zeros((), dtype=z.dtype, device=z.device))

"""The generative model as a Pyro program."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from cm2pyro import noise, sites
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions.latents import LatentChain
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.models.auxiliary import AuxiliaryHeads
from cm2pyro.models.decoders import Decoders
from cm2pyro.models.likelihoods import Likelihood
from cm2pyro.models.priors import unchecked
from cm2pyro.models.selection import Selection

Head = tuple[Tensor, Tensor]  # weights (…, outputs, width) and bias (…, outputs) of the outcome's head, where they are sites


class Model(nn.Module):
    """The generative story.

        weights, locs, scales, copula ~ priors                         (global sites, scaled by beta)
        head, head_bias ~ priors                                       if asked for: weights and bias of the outcome's linear head
        for i in plate("data", N, subsample=batch):
            z_i1 ~ p(z_1)                                               (scaled by beta)
            z_im ~ p(z_m | z_i1 … z_i(m−1))     for m = 2 … M            one site `z_<modality>` each, missing or not;
                                                                        together the copula mixture, its component t summed out
            y_i  ~ Likelihood(head(fusion(z_i1 … z_iM)))                where labelled
            x_im ~ Decoder_m(z_im)              for observed m           pooled features, if asked for (see `Decoders`)
            y_i  ~ Likelihood_m(head_m(z_im))   for observed m           auxiliary heads, if asked for (see `AuxiliaryHeads`)
            r_im ~ Bernoulli(sigmoid(g_m(z_i)))                         a selection model, if asked for (see `Selection`)

    Which latents are scored: with `scores_missing` all of them; otherwise those of the observed modalities, so that a
    row contributes log p(z_observed). That is exact for a guide that draws the missing ones from the model's own
    conditional (the two densities cancel), and for one that fills in a constant.

    With completions (see `CopulaMixture.completions`) latent sites carry a leading dimension of T S completions, S per joint
    component, and the outcome is the mixture of its likelihoods, weighted by the responsibilities p(t | z_observed): the
    discrete component is summed out, gradients to the weights included. The more draws, the nearer to log p(y | z_observed).

    Args:
        names: the modalities. build: values of the global sites -> mixture. priors: of the global sites.
        fusion: (..., M, D) -> (..., width), with attribute `width`. beta: weight of the latents' and global terms.
        decoders: of the pooled features of observed modalities, of some, all or none.
        auxiliary: heads of single modalities, or None.
        missingness: a model of what is observed, or None; like the outcome it is not scaled by beta.
        completions: draws of missing latents per component in training; None: as many as the likelihood needs.
        priors_of_head: priors of the outcome head's weights and bias; empty: they are parameters.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        build: Callable[[dict[str, Tensor]], CopulaMixture],
        priors: dict[str, TorchDistribution],
        fusion: nn.Module,
        likelihood: Likelihood,
        beta: float,
        scores_missing: bool,
        decoders: Decoders,
        auxiliary: AuxiliaryHeads | None = None,
        missingness: Selection | None = None,
        completions: int | None = None,
        priors_of_head: dict[str, TorchDistribution] | None = None,
    ) -> None:
        super().__init__()
        self.names = names
        self.build = build
        self.priors = priors
        self.fusion = fusion
        self.priors_of_head = dict(priors_of_head or {})
        self.head = None if self.priors_of_head else nn.Linear(int(fusion.width), likelihood.outputs)  # type: ignore[arg-type]
        self.likelihood = likelihood
        self.beta = beta
        self.scores_missing = scores_missing
        self.decoders = decoders
        self.auxiliary = auxiliary
        self.missingness = missingness
        self._completions = completions

    def sample_globals(self) -> dict[str, Tensor]:
        """The global sites alone; what global guides are built on."""
        return {name: pyro.sample(name, prior) for name, prior in self.priors.items()}

    def sample_head(self) -> dict[str, Tensor]:
        """The sites of the outcome's head, where it has any."""
        return {name: pyro.sample(name, prior) for name, prior in self.priors_of_head.items()}

    def trust_values(self) -> None:
        """From now on priors take values to lie in their supports."""
        self.priors = {name: unchecked(prior) for name, prior in self.priors.items()}
        self.priors_of_head = {name: unchecked(prior) for name, prior in self.priors_of_head.items()}

    def observation_scales(self) -> list[nn.Parameter]:
        """Parameters of the outcome's noise, where its likelihood has any."""
        auxiliary = [] if self.auxiliary is None else self.auxiliary.likelihoods.parameters()
        return [*self.likelihood.parameters(), *auxiliary]

    def outputs(self, z: Tensor, head: Head | None = None) -> Tensor:
        """Outputs of the outcome head: z (..., B, M, D) -> (..., B, outputs).

        Args:
            head: its values where it has a prior; leading dimensions are those of z before B.
        """
        with noise.own():
            features: Tensor = self.fusion(z)
        if self.head is not None:
            return self.head(features)
        if head is None:
            raise ValueError("the outcome's head has a prior: its values are needed")
        return features @ head[0].mT + head[1][..., None, :]

    @property
    def completions(self) -> int:
        """Draws of missing latents per component in training."""
        return max(self._completions or self.likelihood.completions, 0 if self.missingness is None else self.missingness.draws)

    def predictive(self, z: Tensor, observed: Tensor, head: Head | None = None) -> tuple[Tensor, Tensor | None]:
        """Outputs of the outcome head for draws z (S, B, M, D), and their log weights (S, B); None: all weigh the same."""
        outputs = self.outputs(z, head)
        return (outputs, None) if self.missingness is None else self.missingness.predictive(self.likelihood, z, outputs, observed)

    def log_selection(self, z: Tensor, observed: Tensor, head: Head | None = None) -> Tensor | None:
        """Log weights of draws z (S, B, M, D) of p(z | z_observed) as draws of p(z | z_observed, r), (S, B); None: all weigh the same."""
        return None if self.missingness is None else self.predictive(z, observed, head)[1]

    def outcome_dist(self, outputs: Tensor, log_weights: Tensor | None = None, known: Tensor | None = None) -> TorchDistribution:
        """p(y | z) for outputs (B, outputs), or the mixture over completions, outputs (L, B, outputs), with log weights (L, B).

        Of several labels those that are not `known` (see `Likelihood.known`) are left out of its density.
        """
        if log_weights is None:
            return self.likelihood.distribution(outputs, known)
        return self.likelihood.mixture(outputs, log_weights, known)

    def forward(self, batch: Batch, completions: int = 0) -> Tensor:
        """Run the program on a minibatch; returns the latents (B, M, D), or (T S, B, M, D) with S `completions` per component."""
        with poutine.scale(scale=self.beta):
            mixture = self.build(self.sample_globals())
        head = as_head(self.sample_head())
        scored = torch.ones_like(batch.observed) if self.scores_missing else batch.observed
        shape = torch.Size((mixture.joint_components * completions, len(batch)) if completions else (len(batch),))
        data = pyro.plate(sites.PLATE, batch.size, subsample=batch.rows, dim=-1)
        draws = pyro.plate(sites.DRAWS, shape[0], dim=-2) if completions else None
        chain = LatentChain(mixture, scored, shape)
        with data, poutine.scale(scale=self.beta * batch.weight):
            for name in self.names:
                with draws or nullcontext():
                    chain.values.append(pyro.sample(sites.latent(name), chain.factor()))
        z = torch.stack(chain.values, -2)
        log_weights = None
        if completions:
            log_weights = mixture.responsibilities(z[0], batch.observed).mT.repeat_interleave(completions, 0) - math.log(completions)
        with data, poutine.scale(scale=batch.weight):
            outputs = self.outputs(z, head)
            outcome = self.outcome_dist(outputs, log_weights, self.likelihood.known(batch.labels))
            labels = self.likelihood.labels(batch.labels, z.dtype)
            pyro.sample(sites.OUTCOME, outcome.mask(batch.labelled), obs=labels)
            self.decoders(z[0] if completions else z, batch)
            if self.auxiliary is not None:
                self.auxiliary(z[0] if completions else z, batch.observed, batch.labels, batch.labelled)
            if self.missingness is not None:
                # Without completions there is one, and it weighs all.
                several = (z, outputs, log_weights) if log_weights is not None else (z[None], outputs[None], z.new_zeros(1, len(batch)))
                self.missingness(self.likelihood, *several, batch)
        return z


def as_head(values: dict[str, Tensor]) -> Head | None:
    """The head among values of sites, if it is there."""
    return (values[sites.HEAD], values[sites.HEAD_BIAS]) if sites.HEAD in values else None

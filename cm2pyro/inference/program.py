"""Model and guide together, with the ELBO that trains them."""

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.encoders import Modules, Restored
from cm2pyro.guides import ALIGNMENTS, Guide, make_guide, penalty
from cm2pyro.inference.mcmc import Chains
from cm2pyro.models import Given, Head, Model, as_head, make_model, make_structure


@dataclass(frozen=True)
class Terms:
    """Parts of the ELBO, per sample of the data set.

    Attributes:
        outcome: log-likelihood of the outcome, where unlabelled samples count as 0.
        features: weighted log-likelihood of the pooled features, 0 without decoders.
        kl: per modality, log q − log p of its latents, in nats, before beta.
        missingness: log-likelihood of what is observed given the outcome, where a model has it.
    """

    outcome: float
    features: float
    kl: dict[str, float]
    missingness: float | None = None


class RecordedELBO(Trace_ELBO):
    """Trace_ELBO that keeps its last traces, so that the terms need no second pass.

    Where the guide has drawn components of the mixture, the derivative through that choice is added by the score function:
    ∇ log r_t (log p(y | z) − baseline), the baseline being the mean over the other labelled rows. The densities of the drawn latents
    cancel between model and guide, and with them the terms that Trace_ELBO itself would add.
    """

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        self.traces = super()._get_trace(model, guide, args, kwargs)
        return self.traces

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().differentiable_loss(model, guide, *args, **kwargs)
        choice = getattr(guide, "choice", None)
        if choice is None or not choice.requires_grad:
            return loss
        outcome = self.traces[0].nodes[sites.OUTCOME]
        gain = outcome["log_prob"].detach()
        labelled = args[0].labelled  # without a label there is nothing to gain, and a baseline would be noise alone
        n = labelled.sum()
        baseline = (gain.sum() - gain) / (n - 1).clamp_min(1) * (n > 1)
        # Zero in value: only the derivative is meant.
        return loss - ((choice - choice.detach()) * (gain - baseline) * labelled).sum()


class Program(nn.Module):
    """Model and guide of a config, for data of known shapes.

    Args:
        shapes: modality -> view -> shape of one row. classes: of the task. modules: encoders given from Python.
        restored: as for `make_encoder`, when the weights will be read from a checkpoint.
        priors: site -> prior given from Python, see `site_priors`.

    Attributes:
        chains: draws of the global sites, once they have been sampled (`guide.globals: nuts`); they take the guide's place.
    """

    elbo: nn.Module

    def __init__(
        self,
        config: Config,
        shapes: dict[str, dict[str, tuple[int, ...]]],
        classes: int,
        modules: Modules | None = None,
        restored: Restored | None = None,
        priors: Given | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.chains: Chains | None = None
        self.structure = make_structure(config)
        self.apart = False  # during the first step of inference for margins: the copula is left out
        # Parameters live in the modules, not in Pyro's global store: two fits in one process do not meet.
        with pyro.settings.context(module_local_params=True):
            self.model: Model = make_model(config, classes, self._build, shapes, priors)
            head = self.model.sample_head if self.model.priors_of_head else None
            self.guide: Guide = make_guide(config, shapes, self.model.sample_globals, self._build, modules or {}, restored, head)
            self.trace_elbo = RecordedELBO()
            # Not registered as a submodule: it holds the same parameters, and a checkpoint would store them twice.
            object.__setattr__(self, "elbo", self.trace_elbo(self.model, self.guide))

    def _build(self, values: dict[str, Tensor]) -> CopulaMixture:
        return self.structure.build(values, self.apart)

    def loss(self, batch: Batch) -> Tensor:
        """−ELBO of a minibatch per sample of the data set, plus the alignment penalty where asked for; differentiable."""
        # Summed over components where that is cheap and something is missing (see CopulaMixture.completions).
        summed = self.config.guide.missing == "conditional" and self.config.prior.coupling == "shared" and not bool(batch.observed.all())
        completions = self.model.completions if summed else 0
        with pyro.settings.context(module_local_params=True):
            loss: Tensor = self.elbo(batch, completions=completions) / batch.size
        alignment, represented = self.config.alignment, self.guide.represented
        if alignment.kind != "none" and represented is not None:
            loss = loss + alignment.weight * penalty(ALIGNMENTS.get(alignment.kind), *represented, batch.observed)
        return loss

    def terms(self, batch: Batch) -> Terms:
        """Terms of the last `loss`."""
        model, guide = self.trace_elbo.traces
        outcome = model.nodes[sites.OUTCOME]["log_prob_sum"].item() / batch.size
        beta = self.config.fit.beta
        kl = {}
        for name in self.guide.names:
            site = sites.latent(name)
            difference = guide.nodes[site]["log_prob_sum"] - model.nodes[site]["log_prob_sum"]
            kl[name] = difference.item() / batch.size / beta
        features = sum(model.nodes[sites.features(name)]["log_prob_sum"].item() for name in self.model.decoders.names) / batch.size
        observed = [model.nodes[site] for site in map(sites.observed, self.guide.names) if site in model.nodes]
        missingness = sum(node["log_prob_sum"].item() for node in observed) / batch.size if observed else None
        return Terms(outcome, features, kl, missingness)

    def mixture(self) -> CopulaMixture:
        """The copula mixture at the point estimate (or median) of the global sites."""
        return self.build(self.values())

    @property
    def random(self) -> bool:
        """Whether the global sites have a posterior, or only a point estimate."""
        return self.chains is not None or self.guide.globals.random

    def head(self) -> Head | None:
        """The outcome's head at its point estimate (or median), where it is a site."""
        return as_head(self.values())

    def draw_globals(self, draws: int) -> list[dict[str, Tensor]]:
        """Values of the global sites from their posterior, one dict a draw; of chains those that lie evenly in them.

        Where there are chains, at most as many as they hold.
        """
        if self.chains is not None:
            flat = {name: value.flatten(0, 1) for name, value in self.chains.values.items()}
            rows = torch.linspace(0, self.chains.draws - 1, min(draws, self.chains.draws)).round().long().tolist()
            like = next(self.parameters())
            return [{name: value[row].to(like) for name, value in flat.items()} for row in rows]
        with pyro.settings.context(module_local_params=True), torch.no_grad():
            return [self._draw() for _ in range(draws)]

    def _draw(self) -> dict[str, Tensor]:
        found = dict(self.guide.globals())
        return found if self.guide.head is None else found | self.guide.head()

    def build(self, values: dict[str, Tensor]) -> CopulaMixture:
        """The copula mixture for values of the global sites."""
        with torch.no_grad():
            return self._build(values)

    def values(self) -> dict[str, Tensor]:
        """Point estimates (or medians) of the global sites by the guide, those of the outcome's head included."""
        with pyro.settings.context(module_local_params=True), torch.no_grad():
            found = dict(self.guide.globals.median())
            found |= {} if self.guide.head is None else self.guide.head.median()
            return {name: value.detach() for name, value in found.items()}

    def start(self, values: dict[str, Tensor]) -> None:
        """Begin the global sites at these values; those left out stay where they are."""
        with pyro.settings.context(module_local_params=True):
            self.guide.globals.start(values)

    def architectures(self) -> dict[str, Any]:
        """Of the encoders that have one: with it and the weights of a checkpoint the source of pretrained weights is not needed."""
        encoders = zip(self.guide.names, self.guide.encoders(), strict=True)
        return {name: encoder.architecture for name, encoder in encoders if encoder.architecture is not None}

    def regularised(self) -> list[nn.Parameter]:
        """Matrices of encoders, networks and heads, to which weight decay applies; never global sites or biases."""
        modules: list[nn.Module] = [self.guide.locals, self.guide.treat, self.model.fusion, self.model.decoders]
        if self.model.head is not None:
            modules.append(self.model.head)
        if self.model.auxiliary is not None:
            modules.append(self.model.auxiliary.heads)
        return [p for module in modules for p in module.parameters() if p.dim() > 1]

    def l1(self) -> Tensor:
        """Sum of absolute first-layer weights of the encoders that name them."""
        weights = [w for encoder in self.guide.encoders() for w in encoder.first_layers()]
        return torch.stack([w.abs().sum() for w in weights]).sum() if weights else torch.zeros(())

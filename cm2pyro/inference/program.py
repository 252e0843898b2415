"""Model and guide together, with the ELBO that trains them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.distributions.mixture import CopulaMixture
from cm2pyro.encoders import Modules, Restored
from cm2pyro.guides import ALIGNMENTS, Guide, make_global_guides, make_guide, penalty
from cm2pyro.guides.globals import GlobalGuide, Sampler
from cm2pyro.inference import distributed
from cm2pyro.inference.mcmc import Chains
from cm2pyro.models import Given, Head, Model, as_head, make_model, make_structure

# Of Pyro's and torch's checks: they look at numbers, and so wait for the device.
_UNCHECKED = {f"validate_{what}": False for what in ("infer", "poutine", "distributions_pyro", "distributions_torch")}
ROWS_AT_ONCE = 256  # of a data set, where nothing is learned


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

    def over_processes(self) -> "Terms":
        """The mean over processes, each of which has the terms of its own rows."""
        if distributed.world() == 1:
            return self
        outcome, features, missingness, *kl = distributed.means([self.outcome, self.features, self.missingness or 0.0, *self.kl.values()])
        return Terms(outcome, features, dict(zip(self.kl, kl, strict=True)), None if self.missingness is None else missingness)


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
        loss = self._minus_elbo(model, guide, args, kwargs)
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

    def _minus_elbo(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        """What Trace_ELBO computes for draws that are all reparameterised, without reading a number for each site."""
        ((of_model, of_guide),) = self._get_traces(model, guide, args, kwargs)
        log_p = [node["log_prob_sum"] for node in of_model.nodes.values() if node["type"] == "sample"]
        nodes = [(name, node) for name, node in of_guide.nodes.items() if node["type"] == "sample"]
        for name, node in nodes:
            if not is_identically_zero(node["score_parts"].score_function):
                raise ValueError(f"site {name} of the guide has no reparameterised draws")
        log_q = [node["log_prob_sum"] for _, node in nodes]
        # Where a family leaves the density out of the derivative, its entropy term is zero.
        through = [node["score_parts"].entropy_term for _, node in nodes]
        surrogate = sum(log_p) - sum(term.sum() for term in through if not is_identically_zero(term))
        value = sum(log_p) - sum(log_q)
        return -(value.detach() + (surrogate - surrogate.detach()))


class Program(nn.Module):
    """Model and guide of a config, for data of known shapes.

    Args:
        shapes: modality -> view -> shape of one row. classes: of the task. modules: encoders given from Python.
        restored: as for `make_encoder`, when the weights will be read from a checkpoint.
        priors: site -> prior given from Python, see `site_priors`.

    Attributes:
        settled: whether the guides of `guide.globals` have taken the place of points, see `settle`.
        objective: what a fit descends on, once it has begun; it holds this program and is no part of it.
        chains: draws of the global sites, once they have been sampled (`guide.globals: nuts`); they take the guide's place.
    """

    elbo: nn.Module
    objective: nn.Module | None

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
        object.__setattr__(self, "objective", None)
        self.structure = make_structure(config)
        self.settled = False
        self._checked = False  # by Pyro, whose checks look at numbers and so wait for the device: at the first loss alone
        self.margins_only = False  # during the first step of inference for margins: the copula is left out
        # Parameters live in the modules, not in Pyro's global store: two fits in one process do not meet.
        with pyro.settings.context(module_local_params=True):
            self.model: Model = make_model(config, classes, self._build, shapes, priors)
            self.guide: Guide = make_guide(config, shapes, *self._samplers, self._build, modules or {}, restored)
            self.trace_elbo = RecordedELBO()
            # Not registered as a submodule: it holds the same parameters, and a checkpoint would store them twice.
            object.__setattr__(self, "elbo", self.trace_elbo(self.model, self.guide))

    @property
    def _samplers(self) -> tuple[Sampler, Sampler | None]:
        return self.model.sample_globals, self.model.sample_head if self.model.priors_of_head else None

    def settle(self) -> None:
        """Put the guides that `guide.globals` names in the place of the points that `fit.settle` has had so far; they begin at these."""
        name, device, values = self.config.guide.globals, next(self.parameters()).device, self.values()
        with pyro.settings.context(module_local_params=True), torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(self.config.fit.seed)  # of what a flow begins with
            self.guide.globals, self.guide.head = make_global_guides(name, *self._samplers)
            for guide in self.global_guides:
                guide.to(device).start({site: values[site] for site in guide.sites})
        self.settled = True

    def _build(self, values: dict[str, Tensor]) -> CopulaMixture:
        return self.structure.build(values, self.margins_only)

    def loss(self, batch: Batch) -> Tensor:
        """−ELBO of a minibatch per sample of the data set, plus the alignment penalty where asked for; differentiable."""
        # Summed over components where that is cheap and something is missing (see CopulaMixture.completions).
        summed = self.config.guide.missing == "conditional" and self.config.prior.coupling == "shared" and not batch.complete
        completions = self.model.completions if summed else 0
        with pyro.settings.context(module_local_params=True, **(_UNCHECKED if self._checked else {})):
            loss: Tensor = self.elbo(batch, completions=completions) / batch.size
        if not self._checked:
            self._checked = True
            self.model.trust_values()
        alignment, represented = self.config.alignment, self.guide.represented
        if alignment.kind != "none" and represented is not None:
            loss = loss + alignment.weight * batch.weight * penalty(ALIGNMENTS.get(alignment.kind), *represented, batch.observed)
        return loss

    def terms(self, batch: Batch) -> Terms:
        """Terms of the last `loss`."""
        return self.read_terms(self.term_sums().tolist(), batch)

    def term_sums(self) -> Tensor:
        """Sums of log densities in the last `loss` that `read_terms` takes, (n,), not waited for."""
        model, guide = self.trace_elbo.traces
        sums = [model.nodes[sites.OUTCOME]["log_prob_sum"]]
        for site in map(sites.latent, self.guide.names):
            sums.append(guide.nodes[site]["log_prob_sum"] - model.nodes[site]["log_prob_sum"])
        sums += [model.nodes[sites.features(name)]["log_prob_sum"] for name in self.model.decoders.names]
        sums += [model.nodes[site]["log_prob_sum"] for site in map(sites.observed, self.guide.names) if site in model.nodes]
        return torch.stack([value.detach() for value in sums])

    def read_terms(self, sums: list[float], batch: Batch) -> Terms:
        """The terms from the numbers of `term_sums`."""
        names, explained = self.guide.names, len(self.model.decoders.names)
        outcome, *rest = (value / batch.size for value in sums)
        kl = {name: value / self.config.fit.beta for name, value in zip(names, rest, strict=False)}
        features, missingness = rest[len(names) : len(names) + explained], rest[len(names) + explained :]
        return Terms(outcome, sum(features), kl, sum(missingness) if missingness else None)

    def mixture(self) -> CopulaMixture:
        """The copula mixture at the point estimate (or median) of the global sites."""
        return self.build(self.values())

    @property
    def random(self) -> bool:
        """Whether the global sites have a posterior, or only a point estimate."""
        return self.chains is not None or self.guide.globals.random

    @property
    def global_guides(self) -> list[GlobalGuide]:
        """Guides of the mixture's sites and, where it is a site, of the outcome's head."""
        return [guide for guide in (self.guide.globals, self.guide.head) if guide is not None]

    def head(self) -> Head | None:
        """The outcome's head at its point estimate (or median), where it is a site."""
        return as_head(self.values())

    def draw_globals(self, draws: int, seed: int = 0) -> list[dict[str, Tensor]]:
        """Values of the global sites from their posterior, one dict a draw; of chains those that lie evenly in them.

        Where there are chains, at most as many as they hold. The state of torch's own generator stays as it was.
        """
        like = next(self.parameters())
        if self.chains is not None:
            flat = {name: value.flatten(0, 1) for name, value in self.chains.values.items()}
            rows = torch.linspace(0, self.chains.draws - 1, min(draws, self.chains.draws)).round().long().tolist()
            return [{name: value[row].to(like) for name, value in flat.items()} for row in rows]
        devices = [like.device] if like.device.type == "cuda" else []
        with pyro.settings.context(module_local_params=True), torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
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
            # Gradients are summed over processes in the order of memory that parameters had when the fit began.
            self.guide.globals.start({name: value.contiguous() for name, value in values.items()})

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


@contextmanager
def evaluating(programs: Sequence[Program]) -> Iterator[None]:
    """The programs in evaluation mode for as long as the block runs."""
    modes = [program.training for program in programs]
    for program in programs:
        program.eval()
    try:
        yield
    finally:
        for program, mode in zip(programs, modes, strict=True):
            program.train(mode)

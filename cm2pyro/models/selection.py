"""Models of what is missing: why a modality was observed or not. A new model is one class and one line here."""

from collections.abc import Callable
from typing import Annotated, Literal

import pyro
import pyro.distributions as dist
import torch
from pydantic import Field
from torch import Tensor, nn

from cm2pyro import sites
from cm2pyro.config import Config
from cm2pyro.data.dataset import Batch
from cm2pyro.errors import ConfigError
from cm2pyro.models.likelihoods import Likelihood
from cm2pyro.registry import Registry

_CLASSES = ("binary", "multiclass")  # tasks whose outcome the mechanism may depend on: a sum over its values is short


class Selection(nn.Module):
    """The selection model, for data missing not at random.

        r_im ~ Bernoulli(sigmoid(g_m(z_i) + shift_m,y_i))      one site `observed_<modality>` each, known for every row

    z_i holds the latents of missing modalities too: that is what makes the missingness not ignorable. Of what is missing
    only this assumption tells, and no data can contradict it; with all slopes 0 (where a fit begins) missingness is ignorable.

    Where z has missing parts the joint density of outcome and missingness is a mixture over completions z_l with weights
    w_l, log Σ_l w_l p(y | z_l) Π_m p(r_m | z_l). By the chain rule it is a product of mixtures, one a site: y has weights w_l,
    r_1 has w_l p(y | z_l), r_2 has w_l p(y | z_l) p(r_1 | z_l), and so on. A bound that averages the log over completions
    instead would shrink the slopes of what is often missing; the more completions, the nearer to the likelihood itself.

    Args:
        names: the modalities. dim: D. classes: C of the task.
        draws: completions per joint component in training. depends: g_m reads all latents of the row, or m's own.
        hidden: width of a hidden layer of g_m; 0: linear. outcome: whether the log odds shift with the class.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        dim: int,
        classes: int,
        *,
        draws: Annotated[int, Field(ge=20)] = 20,
        depends: Literal["all", "own"] = "all",
        hidden: Annotated[int, Field(ge=0)] = 0,
        outcome: bool = False,
    ) -> None:
        super().__init__()
        self.names = names
        self.draws = draws
        self.own = depends == "own"
        self.outcome = outcome
        self.odds = nn.ModuleList(_odds(dim if self.own else dim * len(names), hidden) for _ in names)
        self.shift = nn.Parameter(torch.zeros(len(names), classes - 1)) if outcome else None

    def logits(self, z: Tensor) -> Tensor:
        """Log odds that each modality is observed: z (..., M, D) -> (C', ..., M), C' = C where they shift with the class, else 1."""
        inputs = z.unbind(-2) if self.own else [z.flatten(-2)] * len(self.names)
        logits = torch.cat([odds(x) for odds, x in zip(self.odds, inputs, strict=True)], -1)
        if self.shift is None:
            return logits[None]
        shift = nn.functional.pad(self.shift, (1, 0)).mT  # (C, M), class 0 unshifted
        return logits + shift.reshape(len(shift), *[1] * (logits.dim() - 1), len(self.names))

    def log_prob(self, z: Tensor, observed: Tensor) -> Tensor:
        """log p(r | z) of whole patterns: z (..., B, M, D), observed (B, M) bool -> (C', ..., B)."""
        each = dist.Bernoulli(logits=self.logits(z), validate_args=False)
        return each.log_prob(observed.to(z.dtype)).sum(-1)

    def weights(self, likelihood: Likelihood, outputs: Tensor, log_weights: Tensor, batch: Batch) -> Tensor:
        """Log weights of completion and class given the label, up to a constant of the row.

        Args:
            outputs: of the outcome head, (L, B, outputs). log_weights: of the completions, (L, B).

        Returns:
            (C', L, B): all classes where there is no label, else −inf for every class but the row's own.
        """
        if not self.outcome:
            each = likelihood.distribution(outputs, likelihood.known(batch.labels))
            log_y = each.log_prob(likelihood.labels(batch.labels, outputs.dtype))
            return (log_weights + torch.where(batch.labelled, log_y, log_y.new_zeros(())))[None]
        classes, log_y = _by_class(likelihood, outputs)
        return torch.where(~batch.labelled | (batch.labels == classes), log_weights + log_y, log_y.new_tensor(-torch.inf))

    def forward(self, likelihood: Likelihood, z: Tensor, outputs: Tensor, log_weights: Tensor, batch: Batch) -> None:
        """Sample what is observed, in the data plate: z (L, B, M, D), the rest as for `weights`."""
        weights = self.weights(likelihood, outputs, log_weights, batch).flatten(0, 1)  # (C' L, B)
        logits = self.logits(z).flatten(0, 1)  # (C' L, B, M)
        for m, name in enumerate(self.names):
            each = dist.Bernoulli(logits=logits[..., m].mT, validate_args=False)
            picked = dist.Categorical(logits=weights.mT, validate_args=False)
            mixed = dist.MixtureSameFamily(picked, each, validate_args=False)
            r = pyro.sample(sites.observed(name), mixed, obs=batch.available[:, m].to(z.dtype))
            weights = weights + each.log_prob(r[:, None]).mT

    def predictive(self, likelihood: Likelihood, z: Tensor, outputs: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Draws given what was observed at all: p(y | z_observed, r) = Σ_s v_s p(y | z_s, r), v_s ∝ p(r | z_s).

        Args:
            z: (S, B, M, D) draws of p(z | z_observed). outputs: of the outcome head, (S, B, outputs). observed: (B, M) bool.

        Returns:
            outputs that give p(y | z_s, r), (S, B, outputs); they differ from those of p(y | z_s) only where the log odds shift with
            the class. log v, (S, B), normalised over draws.
        """
        log_r = self.log_prob(z, observed)
        if not self.outcome:
            return outputs, log_r[0].log_softmax(0)
        _, log_y = _by_class(likelihood, outputs)
        by_class = log_r.movedim(0, -1)
        # One number of the head is the log odds of class 1 against class 0.
        moved = outputs + (by_class.diff(dim=-1) if likelihood.outputs == 1 else by_class)
        return moved, torch.logsumexp(log_y + log_r, 0).log_softmax(0)


def _by_class(likelihood: Likelihood, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The classes (C, 1, 1), and log p(y = class | z) of each: outputs (L, B, outputs) -> (C, L, B)."""
    classes = torch.arange(likelihood.columns, device=outputs.device)[:, None, None]
    return classes, likelihood.distribution(outputs).log_prob(likelihood.labels(classes, outputs.dtype))


def _odds(width: int, hidden: int) -> nn.Module:
    """(..., width) -> (..., 1), zero to begin with."""
    last = nn.Linear(hidden or width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), last) if hidden else last


def ignorable(names: tuple[str, ...], dim: int, classes: int) -> None:
    """Nothing is said of why something is missing: right where it is missing at random."""


MISSINGNESS: Registry[Callable[..., Selection | None]] = Registry("model of missingness")
MISSINGNESS.register("ignorable", ignorable)
MISSINGNESS.register("selection", Selection)


def missingness_options(config: Config) -> dict[str, object]:
    """Checked options of the config's model of missingness. Raises ConfigError, also for what the selection model does not go with."""
    section, where = config.missingness, "missingness"
    MISSINGNESS.get(section.model, f"{where}.model")
    options = MISSINGNESS.options(section.model, section.options, where, type(section).model_fields)
    if section.model != "selection":
        return options
    needed = (
        ("guide.missing", config.guide.missing, "conditional", "its likelihood is a mean over draws of the model's own conditional"),
        ("prior.coupling", config.prior.coupling, "shared", "its likelihood is a sum over joint components"),
        ("prior.copula.update", config.prior.copula.update, "joint", "a second step would leave the missingness out"),
        ("fit.settle", config.fit.settle, False, "the last step would leave the missingness out"),
    )
    for key, found, expected, why in needed:
        if found != expected:
            raise ConfigError(
                f"{key}: found {found}, the selection model needs {expected} ({why}); set it, or missingness.model to ignorable"
            )
    if options["outcome"] and config.task.type not in _CLASSES:
        raise ConfigError(
            f"missingness.outcome: found true with a task of type {config.task.type}, expected one of type {' or '.join(_CLASSES)}, "
            "which has classes to shift by; set it to false"
        )
    return options

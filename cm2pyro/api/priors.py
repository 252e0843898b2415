"""What the priors imply before a fit, and how much they decide after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cm2pyro.api.base import Source
from cm2pyro.api.fitted import Fitted
from cm2pyro.config import Config
from cm2pyro.config_file import read_yaml
from cm2pyro.data.dataset import Dataset
from cm2pyro.data.labels import classes_of, label_scaling, read_labels, standardised
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.data.prepared import Preparation
from cm2pyro.encoders import ENCODERS, check_encoders
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference import prior_predictive as predictive
from cm2pyro.inference.frozen import frozen_potential
from cm2pyro.inference.mixture_draws import densities, named_quantities, site_draws
from cm2pyro.inference.power_scaling import MOST_K, PowerScaling, power_scaling
from cm2pyro.inference.refits import FITTED, OWN, refits
from cm2pyro.inference.start import standard_values
from cm2pyro.models import LIKELIHOODS, head_priors, make_fusion, make_structure, site_priors

_PRIORS = "priors"  # the key of a file of priors


@dataclass(frozen=True)
class PriorSensitivity:
    """How a fit's quantities depend on its priors.

    Attributes:
        scaling: by power-scaling; None where the fit has point estimates. refits: see `refits`; None where none were asked for.
        notes: what is assumed, and what the numbers are about.
    """

    scaling: PowerScaling | None
    refits: pd.DataFrame | None
    notes: list[str]


class PriorChecks(Fitted):
    """Prior predictive checks and prior sensitivity. See `CM2`."""

    def prior_predictive(self, data: Source, draws: int = 200, rows: int = 500) -> predictive.PriorPredictive:
        """Latents and outcomes that the priors expect, beside what the training rows of a manifest show; needs no fit.

        Latents of the data are compared where they are given (every modality with `encoder: identity`, each by itself); outcomes
        are drawn where the head has a prior.

        Args:
            draws: models drawn from the priors. rows: of each drawn data set, all of them complete.

        Raises:
            ConfigError: draws below 2 or rows below 10. DataError: no row to compare with.
        """
        if draws < 2 or rows < 10:
            raise ConfigError(f"draws, rows: found {draws} and {rows}, expected at least 2 and 10; ask for more")
        config, seed = self.config, self.config.fit.seed
        manifest = read_manifest(data)
        manifest = self._rows(manifest, "train") if "split" in manifest.frame else self._rows(manifest, None)
        if not len(manifest):
            raise DataError(f"{manifest.name}: has no rows; expected some to compare with; give another manifest")
        structure, names, notes = make_structure(config), tuple(config.modalities), []
        priors: Mapping[str, Any] = site_priors(structure, config.priors, self.priors)
        if config.prior.kind == "standard":
            priors = standard_values(structure)
            notes.append("prior.kind: standard: the mixture is N(0, I) in every draw, its sites' priors act on nothing")
        outcome, observed = self._outcome(manifest, notes)
        if outcome is None:
            notes.append("the outcome is left out: its head has no prior; give one with priors.head")
        elif any(True for _ in outcome.fusion().parameters()):
            notes.append("the fusion network has no prior: it is drawn from its random start")
        found = predictive.prior_predictive(structure, priors, names, outcome, draws, rows, seed)
        seen = observed | self._given_latents(manifest, notes)
        quantities = [predictive.Quantity(*key, value, seen.get(key)) for key, value in found.items()]
        order = (predictive.INSIDE, predictive.OVERALL, predictive.SD, predictive.COMPONENTS, predictive.OUTCOME, predictive.SURE)
        return predictive.PriorPredictive(sorted(quantities, key=lambda q: order.index(q.kind)), draws, rows, notes)

    def _outcome(
        self, manifest: Manifest, notes: list[str]
    ) -> tuple[predictive.OutcomeModel | None, dict[predictive.Key, predictive.Array]]:
        """What draws outcomes, and what the labels of the manifest say; None and nothing where the head has no prior."""
        config = self.config
        if config.priors.head is None and "head" not in self.priors:
            return None, {}
        manifest.require(config.task.columns, "a comparison of outcomes needs it")
        classes = classes_of(manifest, config.task)
        labels = read_labels(manifest, config.task, classes)
        if config.task.type == "regression":
            labels = standardised(manifest, config.task, labels, label_scaling(labels))
            notes.append(
                "outcomes are in standard deviations of the training labels; the observation noise has no prior: it is at its start"
            )
        likelihood = LIKELIHOODS.get(config.task.type)(len(classes))
        heads = head_priors(config.priors, likelihood.outputs, int(make_fusion(config).width), self.priors)  # type: ignore[arg-type]
        model = predictive.OutcomeModel(likelihood, heads, classes, lambda: make_fusion(config))
        return model, predictive.outcome_quantities(torch.from_numpy(labels), likelihood, classes)

    def _given_latents(self, manifest: Manifest, notes: list[str]) -> dict[predictive.Key, predictive.Array]:
        """Quantities of the latents that stand in the data, as the model sees them; others are learned, and cannot be compared with."""
        views = check_encoders(self.config, self.encoders)
        preparation = Preparation.from_config(self.config, views)
        given = {
            name: kind
            for name, kind in preparation.kinds.items()
            if name not in self.encoders and ENCODERS.get(self.config.modalities[name].encoder).given
        }
        learned = [name for name in preparation.kinds if name not in given]
        if learned:
            notes.append(f"latents of {', '.join(learned)} are learned: the data have nothing to compare with before a fit")
        if not given:
            return {}
        dataset = Preparation(self.config.task, given).fit(manifest, np.arange(len(manifest)))
        z = torch.stack([torch.as_tensor(dataset.inputs[name]["vector"][torch.arange(len(dataset))]) for name in given], 1)
        return predictive.latent_quantities(z, dataset.observed, tuple(given))

    def prior_sensitivity(
        self, data: Source, draws: int = 1000, refit: Mapping[str, str | Path | Mapping[str, Any]] | None = None
    ) -> PriorSensitivity:
        """How far the mixture of this fit, Kendall's tau included, depends on its priors: by power-scaling and by refits.

        Power-scaling needs draws of the global sites (`guide.globals: normal | lowrank | fullrank | flow | nuts`); refits take the latents
        as they are and move the mixture alone. Of an ensemble the first member.

        Args:
            data: the manifest of the fit. draws: of the global sites; those of chains are all taken.
            refit: name -> a YAML file with a mapping `priors`, or that mapping; sites that it does not name keep the run's prior.

        Raises:
            ConfigError: point estimates and no refit; a model that power-scaling does not cover; a prior that does not fit its site.
        """
        program, config = self.program, self.config
        if config.prior.kind == "standard":
            raise ConfigError("priors sensitivity: found prior.kind standard, whose sites are held; expected mixture; fit one")
        if not program.random and not refit:
            raise ConfigError(
                f"priors sensitivity: found guide.globals: {config.guide.globals} without draws, and power-scaling needs some; "
                "fit with guide.globals: normal, lowrank, fullrank, flow or nuts, or give --refit FILE"
            )
        if draws < 100:
            raise ConfigError(f"draws: found {draws}, expected at least 100; ask for more")
        sets = {name: self._changed(source, name) for name, source in (refit or {}).items()}
        clash = {FITTED, OWN} & set(sets)
        if clash:
            raise ConfigError(f"--refit {clash.pop()}: the table has a column of that name already; rename the file")
        dataset, notes = self._training(data), self._notes()
        scaling = None
        if program.random:
            potential = frozen_potential(program, dataset, config.fit.seed, "power-scaling")
            values = site_draws(program, draws, config.fit.seed)
            log_priors, log_likelihood = densities(potential, values)
            quantities = named_quantities(program.structure, values, dataset.names)
            scaling = power_scaling(_numpy(quantities), _numpy(log_priors), log_likelihood.cpu().numpy())
            worst = max(scaling.k_hat.values())
            notes.append(
                f"largest Pareto k-hat of the weights {worst:.2f}" + ("" if worst <= MOST_K else f", above {MOST_K}: do not trust them")
            )
        else:
            notes.append("no power-scaling: the fit has point estimates of the global sites")
        return PriorSensitivity(scaling, refits(program, dataset, sets, config.fit.seed) if sets else None, notes)

    def _notes(self) -> list[str]:
        """What the numbers are about."""
        config, program = self.config, self.program
        notes = []
        learned = not all(encoder.given for encoder in program.guide.encoders())
        if learned:
            notes.append("latents are held at one draw of what the encoders make of the training rows: tau and components describe these")
        if config.fit.beta < 1 and learned:
            notes.append(
                f"fit.beta is {config.fit.beta:g}: a posterior of the global sites is tempered; sensitivities are published at beta 1"
            )
        if program.random and program.chains is None:
            notes.append(
                f"draws are of the guide ({config.guide.globals}), taken as if they were of the posterior; guide.globals: nuts draws that"
            )
        return notes

    def _training(self, data: Source) -> Dataset:
        """The rows that taught the fit, under its mask."""
        manifest = read_manifest(data)
        held = set(self.holdout.get("samples", []))
        train = self._rows(manifest, "train" if "split" in manifest.frame else None)
        train = train.take([i for i, name in enumerate(train.ids) if name not in held])
        dataset = self._dataset(train)
        if self.mask is None:
            return dataset
        rows = {name: i for i, name in enumerate(self.mask["sample_id"])}
        kept = torch.from_numpy(self.mask[list(self.names)].to_numpy(dtype=bool))
        mask = torch.stack([kept[rows[name]] if name in rows else torch.ones(len(self.names), dtype=torch.bool) for name in dataset.ids])
        return dataset.with_observed(dataset.observed & mask)

    def _changed(self, source: str | Path | Mapping[str, Any], name: str) -> dict[str, Any]:
        """The priors of all sites of the mixture, with those of a file in place of the run's."""
        raw = dict(source) if isinstance(source, Mapping) else read_yaml(source).get(_PRIORS)
        where = name if isinstance(source, Mapping) else str(source)
        if not isinstance(raw, dict) or not raw:
            raise ConfigError(
                f"{where}: priors: found {'nothing' if not raw else type(raw).__name__}, expected a mapping from sites to priors; write one"
            )
        whole = self.config.to_dict()
        try:
            config = Config.from_dict(whole | {_PRIORS: {**(whole.get(_PRIORS) or {}), **raw}})
            # A prior given from Python stands, unless the set names its site.
            given = {site: prior for site, prior in self.priors.items() if site not in raw}
            made = site_priors(make_structure(config), config.priors, given)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        unused = sorted(set(raw) - set(made))
        if unused:
            raise ConfigError(f"{where}: priors.{unused[0]}: a refit moves the mixture alone ({', '.join(made)}); remove it")
        return made


def _numpy(values: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: value.cpu().numpy() for name, value in values.items()}

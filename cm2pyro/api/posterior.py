"""The posterior of a fit as ArviZ sees it."""

from pathlib import Path
from typing import Any

import numpy as np

from cm2pyro.api.base import Source
from cm2pyro.api.fitted import Fitted
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.diagnostics.inference_data import Groups, Rows, inference_groups, to_arviz, whole_posterior, write_groups
from cm2pyro.diagnostics.report.parts import Section
from cm2pyro.errors import ConfigError
from cm2pyro.inference import run
from cm2pyro.inference.frozen import frozen_potential

_KHAT_DRAWS = 200


class Posterior(Fitted):
    """A fitted model with its posterior. See `CM2`."""

    def posterior_groups(self, data: Source, split: str | None = None, draws: int = 200, completions: int = 8) -> Groups:
        """Posterior, prior, predictive and likelihood of a fit, see `inference_groups`; of an ensemble the first member's.

        Args:
            data: a manifest; labels, splits, subjects and whole modalities may be absent. split: only these rows.
            draws: kept of the global sites. completions: draws of the latents for each, over which the outcome's likelihood is averaged.

        Raises:
            ConfigError, DataError.
        """
        for name, value in (("draws", draws), ("completions", completions)):
            if value < 1:
                raise ConfigError(f"{name}: found {value}, expected 1 or more")
        rows = self._known(self._rows(read_manifest(data), split))
        fit = self.config.fit
        attributes: dict[str, Any] = {"seed": fit.seed, "beta": fit.beta, "completions": completions, **run.versions()}
        attributes["tempered"] = str(self._tempered())
        return inference_groups(self.program, rows, draws, completions, fit.seed, attributes)

    def to_arviz(self, data: Source, split: str | None = None, draws: int = 200, completions: int = 8) -> Any:
        """`posterior_groups` as ArviZ's own object: InferenceData (ArviZ 0.x) or a DataTree (1.x)."""
        return to_arviz(self.posterior_groups(data, split, draws, completions))

    def diagnose_posterior(self, data: Source, groups: Groups) -> Section:
        """The report's section on the posterior; k-hat is taken on the rows that the fit learned from, where they are in the data."""
        from cm2pyro.diagnostics.khat import khat  # imports arviz, which is slow
        from cm2pyro.diagnostics.report.posterior import section

        program, k = self.program, None
        if program.random and program.chains is None:
            known = self._known(read_manifest(data))
            trained = np.flatnonzero(known.trained).tolist()
            eligible = self.config.guide.missing == "conditional" and self.config.prior.coupling == "shared"
            if trained and eligible and program.model.missingness is None:
                potential = frozen_potential(program, known.dataset.take(trained), self.config.fit.seed)
                k = khat(program.global_guides, potential, _KHAT_DRAWS)
        if program.chains is None:
            return section(groups, k, None, self._tempered())
        return section(groups, None, program.chains.divergences, self._tempered(), whole_posterior(program))

    def write_posterior(self, groups: Groups, folder: str | Path) -> Path:
        """Write FOLDER/posterior.nc."""
        path = Path(folder) / run.POSTERIOR
        write_groups(groups, path)
        return path

    def _known(self, manifest: Manifest) -> Rows:
        splits = self._splits(manifest)
        return Rows(self._dataset(manifest), splits, splits == "train", self.classes, self.preparation.scaling)

    def _tempered(self) -> bool:
        learned = any(not encoder.given for encoder in self.program.guide.encoders())
        return learned and self.config.fit.beta < 1

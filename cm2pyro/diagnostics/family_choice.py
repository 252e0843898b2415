"""What `select` recommends: the table, the words and the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from cm2pyro.config import Config
from cm2pyro.diagnostics.paired_elpd import TIE, PairedElpd, paired_elpd
from cm2pyro.diagnostics.resampling import Array
from cm2pyro.distributions.copulas.learned import MIXTURE
from cm2pyro.errors import ConfigError
from cm2pyro.inference.select import Candidate, without_copula
from cm2pyro.models.priors import site_priors

_SMALL = 4.0  # nats below which the standard error of a difference is too small itself
_FEW = 6  # candidates that a sentence names


@dataclass(frozen=True)
class FamilyChoice:
    """Candidates fitted to the same latents, compared.

    Attributes:
        candidates: C of them. comparison: of their elpd, see `paired_elpd`. config: with the chosen family and number of components.
    """

    candidates: tuple[Candidate, ...]
    comparison: PairedElpd
    config: Config

    @classmethod
    def of(cls, candidates: Sequence[Candidate], config: Config, seed: int) -> "FamilyChoice":
        elpd = torch.stack([candidate.fit.elpd for candidate in candidates], 1).numpy()
        comparison = paired_elpd(elpd, [candidate.simplicity for candidate in candidates], seed)
        return cls(tuple(candidates), comparison, _filled(config, candidates[comparison.chosen]))

    @property
    def chosen(self) -> Candidate:
        """The recommended one."""
        return self.candidates[self.comparison.chosen]

    def frame(self) -> pd.DataFrame:
        """A line per candidate, the greatest elpd first.

        `family, components, parameters` (free ones), `elpd, se`, `difference, se_difference` (to the greatest elpd, paired over
        subjects), `weight` (pseudo-BMA+), `effective_parameters`, `picked` (share of bootstraps in which it is the choice), `refits`
        (subjects whose part of elpd comes from refits), `local_optima` (others that starts ended in), `chosen` (0 or 1).
        """
        c = self.comparison
        table = pd.DataFrame(
            {
                "family": [candidate.family for candidate in self.candidates],
                "components": [candidate.components for candidate in self.candidates],
                "parameters": [candidate.parameters for candidate in self.candidates],
                "elpd": c.elpd,
                "se": c.se,
                "difference": c.difference,
                "se_difference": c.se_difference,
                "weight": c.weights,
                "effective_parameters": [candidate.fit.effective for candidate in self.candidates],
                "picked": c.picked,
                "refits": [candidate.fit.refits for candidate in self.candidates],
                "local_optima": [candidate.local_optima for candidate in self.candidates],
                "chosen": [int(i == c.chosen) for i in range(len(self.candidates))],
            }
        )
        return table.sort_values("elpd", ascending=False, kind="stable").reset_index(drop=True)

    def lines(self) -> list[str]:
        """What the terminal shows: the choice first."""
        lines = [f"recommended: {self._name(self.comparison.chosen)}. {self._why()}", self._alternatives(), self._families(), self._sizes()]
        return [line for line in [*lines, *self._cautions()] if line]

    def text(self) -> str:
        """recommendation.md."""
        c, chosen = self.comparison, self.chosen
        subjects = len(chosen.fit.elpd)
        parts = [
            "# Copula family and number of components",
            f"**Recommended: {self._name(c.chosen)}** ({chosen.parameters} free parameters). {self._why()}",
            "## How sure is that",
            self._alternatives(),
            f"Over 1,000 bootstraps of the {subjects:,} subjects the same rule picks: {self._shares(c.picked)}. "
            f"Weights for averaging (pseudo-BMA+): {self._shares(c.weights)}.",
            "## Families",
            self._families(),
            "## Number of components",
            self._sizes() or f"Tried: {', '.join(map(str, sorted({x.components for x in self.candidates})))}.",
            "## What to mind",
            "\n".join(f"- {line}" for line in [*self._cautions(), *_ALWAYS]),
        ]
        return "\n\n".join(parts) + "\n"

    def draw(self, path: str | Path, title: str) -> None:
        """Write the picture, see `elpd_by_family`."""
        from cm2pyro.diagnostics.plots_family_choice import elpd_by_family

        elpd_by_family(self, path, title)

    # --- sentences ----------------------------------------------------------------------------------------------

    def _name(self, i: int) -> str:
        candidate = self.candidates[i]
        family = f"mixture of {', '.join(candidate.structure.families)}" if candidate.family == MIXTURE else candidate.family
        return f"{family}, K = {candidate.components}"

    def _listed(self, indices: list[int]) -> str:
        named = ", ".join(f"{self.candidates[i].family} K = {self.candidates[i].components}" for i in indices[:_FEW])
        return named + (f" and {len(indices) - _FEW} more" if len(indices) > _FEW else "")

    def _gap(self, i: int) -> str:
        return f"{abs(self.comparison.difference[i]):.1f} ± {self.comparison.se_difference[i]:.1f}"

    def _why(self) -> str:
        c = self.comparison
        if c.best == c.chosen:
            return "It has the greatest expected log predictive density (elpd) of subjects left out of the fit."
        return (
            f"{self._name(c.best)} has the greatest expected log predictive density (elpd) of subjects left out of the fit, but is only "
            f"{self._gap(c.chosen)} nats ahead (± one standard error): within {TIE:g} standard errors the simpler is taken."
        )

    def _alternatives(self) -> str:
        c = self.comparison
        others = sorted((i for i in range(len(self.candidates)) if c.plausible[i] and i != c.chosen), key=lambda i: -c.elpd[i])
        if not others:
            second = max((i for i in range(len(self.candidates)) if i != c.chosen), key=lambda i: c.elpd[i])
            next_best = f"next is {self._name(second)}, {self._gap(second)} nats behind"
            return f"No other is within {TIE:g} standard errors of the greatest elpd; {next_best}."
        named = "; ".join(f"{self._name(i)} ({self._gap(i)} nats behind)" if i != c.best else self._name(i) for i in others[:_FEW])
        more = f"; and {len(others) - _FEW} more" if len(others) > _FEW else ""
        return f"Also plausible, within {TIE:g} standard errors of the greatest elpd: {named}{more}."

    def _families(self) -> str:
        """Whether the data tell families apart at all: each family at its best K."""
        c = self.comparison
        top: dict[str, int] = {}
        for i in sorted(range(len(self.candidates)), key=lambda i: -c.elpd[i]):
            top.setdefault(self.candidates[i].family, i)
        families = [name for name in top if name != MIXTURE]
        if len(families) < 2:
            return f"Only {families[0]} was tried."
        left = [name for name in families if c.plausible[top[name]]]
        said = "The data tell none of these families apart: each, at its best K, is within reach of the greatest elpd."
        if not left:
            said = "No single family is within reach of the greatest elpd: only their mixture is."
        elif len(left) < len(families):
            nearest = top[next(name for name in families if name not in left)]
            told = f"The data tell the family: {left[0]}" if len(left) == 1 else f"The data leave these families: {', '.join(left)}"
            said = f"{told}. Of the others {self._name(nearest)} comes nearest, {self._gap(nearest)} nats behind."
        if left and MIXTURE in top and c.plausible[top[MIXTURE]]:
            said += " Their mixture, which holds each of them, does as well, and needs more parameters."
        return said

    def _sizes(self) -> str:
        tried = [candidate.components for candidate in self.candidates]
        if min(tried) == max(tried) or self.chosen.components < max(tried):
            return ""
        return (
            f"K = {max(tried)} is the largest number tried, and more may fit better still: run again with larger numbers in --components."
        )

    def _cautions(self) -> list[str]:
        c, found = self.comparison, []
        astray = [i for i, candidate in enumerate(self.candidates) if candidate.local_optima]
        if astray:
            also = ", the recommended one among them" if c.chosen in astray else ""
            found.append(
                f"Starts ended in different optima for {self._listed(astray)}{also}: the highest is used, a higher one may exist; "
                "raise fit.restarts."
            )
        folded = [i for i, candidate in enumerate(self.candidates) if candidate.fit.in_folds]
        if folded:
            found.append(
                f"elpd by refits in folds, where the approximation does not hold: {self._listed(folded)}. "
                "Folds lie lower, which counts against their K."
            )
        close = [i for i in range(len(self.candidates)) if i != c.best and abs(c.difference[i]) < _SMALL and not c.plausible[i]]
        if close:
            named = ", ".join(self._name(i) for i in close[:_FEW])
            found.append(
                f"Ruled out by less than {_SMALL:g} nats, where standard errors of differences are too small (Sivula et al. 2020): {named}."
            )
        return found

    def _shares(self, shares: Array) -> str:
        order = sorted(range(len(self.candidates)), key=lambda i: -shares[i])
        return "; ".join(f"{self._name(i)} {shares[i]:.0%}" for i in order[:_FEW] if shares[i] >= 0.005)


_ALWAYS = (
    "All candidates were fitted to the same latents. Latents of another fit give other densities: never compare elpd between them.",
    "Latents that an encoder has learned describe that encoder as much as patients; its fit assumed a copula and a K of its own.",
    "elpd is about the density of latents. Whether predictions of the outcome gain is another question: fit config.yaml and evaluate it.",
    "The standard errors are over subjects, for these encoders and one draw of the latents; another seed of the fit adds to them.",
)


def _filled(config: Config, chosen: Candidate) -> Config:
    """The config with the chosen family and K; priors of the copula's sites that this family does not have are left out."""
    mixture = list(chosen.structure.families) or None
    copula = config.prior.copula.model_copy(update={"family": chosen.family, "families": mixture})
    prior = config.prior.model_copy(update={"kind": "mixture", "components": chosen.components, "copula": copula})
    filled = config.model_copy(update={"prior": prior})
    try:
        site_priors(chosen.structure, filled.priors)
    except ConfigError:
        filled = filled.model_copy(update={"priors": without_copula(filled.priors)})
    return filled

"""What an epoch adds up over its steps."""

from dataclasses import dataclass, field
from typing import Any

from cm2pyro.inference.program import Terms


@dataclass
class Sums:
    """Running sums of an epoch; plain numbers, which a checkpoint keeps exactly.

    Attributes:
        outcome, features, missingness, kl: of `Terms`, times the rows of each step. seen: those rows. gradient, gradients: sum and
            number of the copula's gradient norms. skipped: steps left out since they were not finite. seconds: spent before
            the fit was last resumed.
    """

    outcome: float = 0.0
    features: float = 0.0
    missingness: float = 0.0
    kl: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    gradient: float = 0.0
    gradients: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, terms: Terms, rows: int, gradient: float | None) -> None:
        """One step."""
        self.outcome += terms.outcome * rows
        self.features += terms.features * rows
        self.missingness += (terms.missingness or 0.0) * rows
        self.kl = {name: self.kl.get(name, 0.0) + value * rows for name, value in terms.kl.items()}
        self.seen += rows
        if gradient is not None:
            self.gradient += gradient
            self.gradients += 1

    def means(self, beta: float) -> dict[str, Any]:
        """Per row: elbo, outcome, features, kl (all modalities), kl_per_modality, missingness, copula_gradient (per step, or None)."""
        outcome, features, missingness = (x / self.seen for x in (self.outcome, self.features, self.missingness))
        kl = {name: value / self.seen for name, value in self.kl.items()}
        total = sum(kl.values())
        return {
            "elbo": outcome + features + missingness - beta * total,
            "outcome": outcome,
            "features": features,
            "kl": total,
            "kl_per_modality": kl,
            "missingness": missingness,
            "copula_gradient": self.gradient / self.gradients if self.gradients else None,
        }

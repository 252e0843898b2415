"""Delta-adjusted sensitivity analysis: what if the unseen modalities look worse, or better, than the model expects?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cm2pyro.diagnostics.evaluation import Evaluation, Measures
from cm2pyro.diagnostics.resampling import Array, Metric, measured, subject_codes
from cm2pyro.errors import ConfigError, DataError
from cm2pyro.inference.program import Program

CHANGED = 0.05
"""Share of incomplete rows with another decision than at delta 0 beyond which decisions have tipped."""


class Shift:
    """Move drawn latents of missing modalities by `delta` standard deviations along the gradient of the outcome's logit.

    The pattern-mixture model of Rubin (1977), with the delta adjustment of imputed values (van Buuren 2018, section 3.8; Cro et
    al. 2020): a row's missing latents are drawn from p(z_missing | z_observed) and then z_m becomes z_m + δ σ_m ∘ u, where σ_m
    is the root mean square scale of the modality's components and u the unit vector along σ_m ∘ ∂ logit / ∂ z_m at the draw. So
    δ = 1 says that what was not seen stands one standard deviation nearer to the outcome than its relatives that were. Every
    missing modality moves, each along its own direction; where the gradient is 0 nothing does.

    Attributes:
        logits: mean change of the logit over draws and incomplete rows seen so far; NaN before there are any.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self._sum, self._count = 0.0, 0

    def __call__(self, program: Program, z: Tensor, observed: Tensor) -> Tensor:
        """z (S, B, M, D) draws of all latents, observed (B, M) -> the shifted draws."""
        mixture, head = program.mixture(), program.head()
        weights = torch.stack([mixture.marginal_log_weights(m).exp() for m in range(z.shape[2])])
        sd = (weights[..., None] * mixture.scales**2).sum(1).sqrt()  # (M, D)
        # cuDNN has no backward pass for recurrent layers in evaluation mode.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            point = z.detach().requires_grad_()
            before = program.model.outputs(point, head)[..., 0]
            (gradient,) = torch.autograd.grad(before.sum(), point)
        uphill = torch.nn.functional.normalize(sd * gradient, dim=-1)
        moved = torch.where(observed[..., None], z, z + self.delta * sd * uphill)
        incomplete = ~observed.all(1)
        change = (program.model.outputs(moved, head)[..., 0] - before.detach())[:, incomplete]
        self._sum += float(change.detach().double().sum())
        self._count += change.numel()
        return moved

    @property
    def logits(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def parse_delta(text: str) -> tuple[float, ...]:
    """`-1,0,1` -> numbers. Raises ConfigError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--delta {text}: not a list of numbers; write for example --delta -1,-0.5,0,0.5,1") from error


def check_delta(delta: Sequence[float], threshold: float | None, bootstrap: int, task: str) -> None:
    """Raises ConfigError for what a sensitivity analysis cannot do."""
    if task != "binary":
        raise ConfigError(f"--delta: the task is {task}; the analysis shifts one logit and needs a binary task; leave --delta out")
    bad = [value for value in delta if not np.isfinite(value)]
    if bad:
        raise ConfigError(f"--delta: found {bad[0]:g}; finite numbers are expected")
    if not any(delta):
        raise ConfigError("--delta: only 0 was given, which shifts nothing; name other numbers too, such as -1,0,1")
    if threshold is not None and not 0 < threshold < 1:
        raise ConfigError(f"--threshold: found {threshold:g}; a probability between 0 and 1 is expected")
    if bootstrap < 1:
        raise ConfigError("--delta: the tipping point needs the interval of the observed rate; give --bootstrap 1 or more")


@dataclass(frozen=True)
class Sensitivity:
    """What predictions of incomplete rows become as their missing latents are shifted.

    Attributes:
        delta: (d,) rising, with 0. risk: (d, n) predicted probability of the n incomplete rows. rate: their observed rate of
            the outcome, with its 95% bootstrap interval over subjects. threshold: of decisions. ids, missing: of the n rows.
        metrics: the key `delta` of metrics.json.
    """

    delta: Array
    risk: Array
    rate: Metric
    threshold: float
    ids: list[str]
    missing: list[str]
    metrics: dict[str, Any]

    @classmethod
    def of(
        cls,
        plain: Evaluation,
        shifted: Mapping[float, Evaluation],
        logits: Mapping[float, float],
        threshold: float | None,
        bootstrap: int,
        seed: int,
    ) -> Self:
        """Compare evaluations of the same rows.

        Args:
            plain: at delta 0. shifted: at other deltas. logits: mean change of the logit at these.
            threshold: of decisions; None: prevalence among all the rows.

        Raises:
            DataError: no row lacks a modality.
        """
        observed = plain.dataset.observed.numpy()
        rows = np.flatnonzero(~observed.all(1))
        if not len(rows):
            raise DataError(
                f"--delta: none of the {len(observed)} labelled rows lacks a modality, nothing can be shifted; leave --delta out"
            )
        at = {0.0: plain, **shifted}
        delta = np.array(sorted(at))
        risk = np.stack([at[value].probabilities[rows] for value in delta])
        y = plain.labels.astype(float)
        codes = subject_codes(np.array(plain.dataset.subjects)[rows], len(rows))
        sums = np.column_stack([np.bincount(codes, weights=column) for column in (y[rows], np.ones(len(rows)))])

        def under(counts: Array) -> Array:
            totals = counts @ sums
            return totals[:, :1] / totals[:, 1:]

        (rate,) = measured(under, len(rows), len(sums), bootstrap, seed)
        cut = float(y.mean()) if threshold is None else threshold
        names = np.array(plain.dataset.names)
        made = cls(delta, risk, rate, cut, [plain.dataset.ids[i] for i in rows], [";".join(names[~observed[i]]) for i in rows], {})
        at_delta = [
            {
                "delta": float(value),
                "risk": float(risk[i].mean()),
                "logit_shift": 0.0 if value == 0 else float(logits[value]),
                "changed": float(made.changed[i]),
                **(plain.metrics if value == 0 else at[value].measure(Measures(bootstrap, seed))),
            }
            for i, value in enumerate(delta)
        ]
        for entry in at_delta:
            entry.pop("patterns", None)
        made.metrics.update(
            {"n": len(rows), "rate": rate, "threshold": cut, "changed": CHANGED, "at": at_delta, "tipping_point": made.tipping_points()}
        )
        return made

    @property
    def changed(self) -> Array:
        """(d,) share of incomplete rows whose decision differs from that at delta 0."""
        decided = self.risk >= self.threshold
        return (decided != decided[self._zero]).mean(1)

    @property
    def _zero(self) -> int:
        return int(np.flatnonzero(self.delta == 0)[0])

    def tipping_points(self) -> dict[str, dict[str, float | None]]:
        """Smallest |delta| downwards and upwards at which the mean risk leaves the interval of the observed rate (`risk`), and
        at which more than 5% of decisions have changed (`decision`): interpolated between deltas, None where there is none, 0
        where the mean risk is outside already."""
        low, high, mean = self.rate["low"], self.rate["high"], self.risk.mean(1)
        outside = np.full(len(mean), -np.inf) if low is None or high is None else np.maximum(low - mean, mean - high)
        measures = {"risk": outside, "decision": self.changed - CHANGED}
        return {what: {"down": self._first(value, -1), "up": self._first(value, 1)} for what, value in measures.items()}

    def of_rows(self) -> Array:
        """(n,) the delta of least size at which a row's risk crosses the threshold, interpolated; NaN where none does."""
        found = np.full(len(self.ids), np.nan)
        for i, risk in enumerate(self.risk.T):
            beyond = (self.threshold - risk) if risk[self._zero] >= self.threshold else (risk - self.threshold)
            both = [value for value in (self._first(beyond, -1), self._first(beyond, 1)) if value is not None]
            if both:
                found[i] = min(both, key=abs)
        return found

    def _first(self, beyond: Array, sign: int) -> float | None:
        """Where `beyond` (d,) first rises above 0 on the way from delta 0 in the direction of `sign`."""
        if beyond[self._zero] > 0:
            return 0.0
        path = range(self._zero, len(self.delta)) if sign > 0 else range(self._zero, -1, -1)
        for here, there in pairwise(path):
            if beyond[there] > 0:
                share = -beyond[here] / (beyond[there] - beyond[here]) if np.isfinite(beyond[here]) else 1.0
                return float(self.delta[here] + share * (self.delta[there] - self.delta[here]))
        return None

    def frame(self) -> pd.DataFrame:
        """A line per incomplete row: `sample_id, missing, probability` (at delta 0), `tipping_delta`, empty where none."""
        columns = {"sample_id": self.ids, "missing": self.missing, "probability": self.risk[self._zero]}
        return pd.DataFrame(columns | {"tipping_delta": self.of_rows()})

    def lines(self) -> list[str]:
        """What the terminal shows."""
        found = []
        for entry in self.metrics["at"]:
            shown = ", ".join(f"{name} {_number(entry[name]['value'])}" for name in ("auroc", "auprc", "log_loss", "brier"))
            found.append(f"delta {entry['delta']:g}: mean risk of incomplete rows {entry['risk']:.3f}, {shown}")
        says = {
            "risk": f"mean risk outside the observed rate's interval ({_number(self.rate['low'])}–{_number(self.rate['high'])})",
            "decision": f"more than {CHANGED:.0%} of decisions at {self.threshold:.3f} changed",
        }
        for what, points in self.metrics["tipping_point"].items():
            there = "at delta 0 already" if points["down"] == points["up"] == 0 else None
            found.append(f"tipping point, {says[what]}: " + (there or f"down {_number(points['down'])}, up {_number(points['up'])}"))
        return found

    def draw(self, path: str | Path, title: str) -> None:
        """Write the picture, see `risk_against_delta`."""
        from cm2pyro.diagnostics.plots_sensitivity import risk_against_delta

        risk_against_delta(self, path, title)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"

"""The report's section on the posterior of the global sites."""

from typing import Any

import numpy as np
import xarray as xr

from cm2pyro.diagnostics.inference_data import Groups
from cm2pyro.diagnostics.khat import BAD, KHat
from cm2pyro.diagnostics.report.parts import Cell, Finding, Section, Table

_MOST = 40  # rows of the table
_RHAT, _ESS = 1.01, 100  # per chain; Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021


def section(groups: Groups, k: KHat | None, divergences: list[int] | None, tempered: bool, whole: xr.Dataset | None = None) -> Section:
    """What the posterior says of label-free quantities, and whether it can be believed.

    Args:
        groups: see `inference_groups`. k: of a variational guide, else None. divergences: per chain of NUTS, else None.
        tempered: whether the latents of learned encoders were weighted by beta below 1. whole: every draw of the chains, of which `groups`
            has a part: effective draws of a part would say that chains have not mixed, however long they are.
    """
    import arviz as az

    kept = groups["posterior"]
    posterior, said = kept if whole is None else whole, str(kept.attrs["inference"])
    findings: list[Finding] = []
    shown = [name for name in ("tau", "head_bias", "head") if name in posterior]
    total, saved = (one.sizes["chain"] * one.sizes["draw"] for one in (posterior, kept))
    which = "The draws are" if saved == total else f"Of {total} draws {saved}, evenly spaced, are"
    parts: list[str | Table] = [f"Global sites by {said}. {which} in posterior.nc, which ArviZ opens."]
    if total == 1:
        parts.append(
            "Point estimates have no spread: intervals of predictions come from the latents alone. For a posterior set guide.globals."
        )
    if divergences is not None:
        parts.append(f"{len(divergences)} chains, encoders held; divergent transitions: {sum(divergences)}.")
        if sum(divergences):
            findings.append(Finding(f"{sum(divergences)} transitions of NUTS diverged: parts of the posterior may not have been reached."))
    if k is not None:
        against = f"PSIS k-hat of the guide against the posterior given frozen latents: {k.k:.2f} from {k.draws} draws"
        parts.append(f"{against}, {k.verdict} (good below 0.5, usable below 0.7).")
        if k.k >= BAD:
            findings.append(
                Finding(f"k-hat {k.k:.2f}: the guide of the global sites misses part of their posterior; try nuts (or fit.settle, if off).")
            )
    if tempered and total > 1:  # a point has no interval that could be misread
        findings.append(
            Finding(
                "beta is below 1 behind learned encoders: intervals of global sites are tempered, and describe learned latents.", "note"
            )
        )
    if shown and total > 1:
        chains = posterior.sizes["chain"] > 1
        table: Any = az.summary(posterior[shown], hdi_prob=0.9, round_to="none", kind="all" if chains else "stats")
        columns = ["mean", "sd", "hdi_5%", "hdi_95%"] + (["r_hat", "ess_bulk"] if chains else [])
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (str(name), *(float(row[column]) for column in columns)) for name, row in table[columns].head(_MOST).iterrows()
        )
        more = ("R-hat", "effective draws") if chains else ()
        parts.append(Table(("quantity", "mean", "sd", "from", "to", *more), rows, _caption(len(table))))
        if chains:
            worst, least = float(table["r_hat"].max()), float(table["ess_bulk"].min())
            if np.isfinite(worst) and (worst > _RHAT or least < _ESS * posterior.sizes["chain"]):
                findings.append(
                    Finding(f"chains have not mixed: R-hat up to {worst:.3f}, effective draws down to {least:.0f}; sample longer.")
                )
    return Section("posterior", "Posterior of the global sites", tuple(parts), tuple(findings))


def _caption(rows: int) -> str:
    more = f" (the first {_MOST} of {rows})" if rows > _MOST else ""
    interval = f"Mean, sd and 90% highest-density interval (from, to){more}."
    return (
        f"{interval} Latent dimensions count from 0 here, as in posterior.nc. "
        "Tau knows no labels; sites with components are in posterior.nc, in order of location."
    )

"""The report's section on the posterior of the global sites."""

from typing import Any

import numpy as np

from cm2pyro.diagnostics.inference_data import Groups
from cm2pyro.diagnostics.khat import BAD, KHat
from cm2pyro.diagnostics.report.parts import Cell, Finding, Section, Table

_MOST = 40  # rows of the table
_RHAT, _ESS = 1.01, 100  # per chain; Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021


def section(groups: Groups, k: KHat | None, divergences: list[int] | None, tempered: bool) -> Section:
    """What the posterior says of label-free quantities, and whether it can be believed.

    Args:
        groups: see `inference_groups`. k: of a variational guide, else None. divergences: per chain of NUTS, else None.
        tempered: whether the latents of learned encoders were weighted by beta below 1.
    """
    import arviz as az

    posterior = groups["posterior"]
    said = str(posterior.attrs["inference"])
    findings: list[Finding] = []
    shown = [name for name in ("tau", "head_bias", "head") if name in posterior]
    single = posterior.sizes["chain"] * posterior.sizes["draw"] == 1
    parts: list[str | Table] = [f"Global sites by {said}. The draws are in posterior.nc, which ArviZ opens."]
    if single:
        parts.append(
            "Point estimates have no spread: intervals of predictions come from the latents alone. For a posterior set guide.globals."
        )
    if divergences is not None:
        parts.append(f"{len(divergences)} chains, encoders held; divergent transitions: {sum(divergences)}.")
        if sum(divergences):
            findings.append(Finding(f"{sum(divergences)} transitions of NUTS diverged: parts of the posterior may not have been reached"))
    if k is not None:
        against = f"PSIS k-hat of the guide against the posterior given frozen latents: {k.k:.2f} from {k.draws} draws"
        parts.append(f"{against}, {k.verdict} (good below 0.5, usable below 0.7).")
        if k.k >= BAD:
            findings.append(
                Finding(f"k-hat {k.k:.2f}: the guide of the global sites misses part of their posterior; try nuts (or fit.settle, if off)")
            )
    if tempered:
        findings.append(
            Finding("beta is below 1 behind learned encoders: intervals of global sites are tempered, and describe learned latents", "note")
        )
    if shown and not single:
        chains = posterior.sizes["chain"] > 1
        table: Any = az.summary(posterior[shown], hdi_prob=0.9, round_to="none", kind="all" if chains else "stats")
        columns = ["mean", "sd", "hdi_5%", "hdi_95%"] + (["r_hat", "ess_bulk"] if chains else [])
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (str(name), *(float(row[column]) for column in columns)) for name, row in table[columns].head(_MOST).iterrows()
        )
        parts.append(Table(("quantity", "mean", "sd", "5%", "95%", *columns[4:]), rows, _caption(len(table))))
        if chains:
            worst, least = float(table["r_hat"].max()), float(table["ess_bulk"].min())
            if np.isfinite(worst) and (worst > _RHAT or least < _ESS * posterior.sizes["chain"]):
                findings.append(
                    Finding(f"chains have not mixed: R-hat up to {worst:.3f}, effective draws down to {least:.0f}; sample longer")
                )
    return Section("posterior", "Posterior of the global sites", tuple(parts), tuple(findings))


def _caption(rows: int) -> str:
    more = f" (the first {_MOST} of {rows})" if rows > _MOST else ""
    interval = f"Mean, sd and 90% highest-density interval{more}."
    return f"{interval} Tau knows no labels; sites with components are in posterior.nc, in order of location."

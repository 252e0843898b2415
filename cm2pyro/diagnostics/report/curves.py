"""The fit over its epochs: objective, dependence, components, and what went wrong on the way."""

import math
from typing import Any

from matplotlib.ticker import MaxNLocator

from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Figure, Finding, Picture, Section
from cm2pyro.diagnostics.report.pictures import GREY, legend, lines, panel, titled
from cm2pyro.inference import monitor


def section(m: Material) -> Section:
    """Objective and validation; KL, components and smallest sd per modality."""
    if not m.history:
        return Section("curves", "The fit over its epochs", ("The run has no history.",))
    components = m.config.prior.components
    pictures = [
        _curve(
            m, "Outcome, nats a row", {"training": _column(m, "outcome", -1), "validation log-loss": _column(m, "val_log_loss")}, "nats"
        ),
        _curve(m, "Objective", {"−ELBO": _column(m, "elbo", -1)}, "nats a row"),
        _curve(m, "Validation AUROC", {"AUROC": _column(m, "val_auroc")}, "AUROC"),
        _curve(m, "KL of the latents", _columns(m, "kl_per_modality"), "nats a row"),
        _curve(m, "Effective components", _columns(m, "effective_components"), f"of {components}", span=(1.0, max(2.0, components))),
        _curve(m, "Smallest sd of a latent", _columns(m, "latent_sd"), "sd over rows", log=True),
    ]
    figure = Figure(
        tuple(picture for picture in pictures if picture is not None),
        "From the run's own records. The dotted line is the epoch whose weights are kept. Training outcome: minus the log-likelihood, rows "
        "without a label counting 0. Effective components: exp(entropy of the mean responsibilities) of a modality. KL: where latents are "
        "points, minus their log density, which may be negative. Smallest sd: of the modality's latent dimensions, over rows.",
        "a validation loss that rises while training falls (overfitting), or that still falls at the last epoch (too few epochs); "
        "effective components near 1 (collapse); a KL or an sd near 0 (unused or collapsed latents).",
    )
    return Section("curves", "The fit over its epochs", (figure,), tuple(_findings(m)))


def dependence(m: Material) -> Section:
    """Kendall's tau and the gradient of the copula's parameter over epochs."""
    pictures = [
        _curve(m, "Kendall's tau inside components", _columns(m, "tau"), "mean over dimensions", span=(-0.05, 0.05)),
        _curve(m, "Gradient of the copula's parameter", {"norm, mean over steps": _column(m, "copula_gradient")}, "norm", log=True),
    ]
    shown = tuple(picture for picture in pictures if picture is not None)
    if not shown:
        return Section(
            "dependence", "Dependence over the epochs", ("The copula has no parameter that moves, or the run has no record of it.",)
        )
    figure = Figure(
        shown,
        "Left, per pair of modalities, the mean of Kendall's tau over latent dimensions inside components (clusters left out). Right, how "
        "hard the objective pulls at the copula's unconstrained parameter.",
        "tau that still drifts at the end; tau at 0 with a gradient near 0 from the first epoch (a dead copula); tau near ±0.99 (its "
        "bound).",
    )
    return Section("dependence", "Dependence over the epochs", (figure,))


def _column(m: Material, key: str, sign: int = 1) -> list[float | None]:
    return [None if record.get(key) is None else sign * record[key] for record in m.history]


def _columns(m: Material, key: str) -> dict[str, list[float | None]]:
    names = next((list(record[key]) for record in m.history if record.get(key)), [])
    return {name: [(record.get(key) or {}).get(name) for record in m.history] for name in names}


def _curve(
    m: Material, title: str, series: dict[str, Any], y: str, log: bool = False, span: tuple[float, float] | None = None
) -> Picture | None:
    """None where there is nothing to draw. span: what the axis shows at least, so that noise does not fill it."""
    series = {name: values for name, values in series.items() if any(value is not None and (value > 0 or not log) for value in values)}
    if not series:
        return None
    epochs = [float(record["epoch"]) for record in m.history]
    last = "; ".join(f"{name} {next(v for v in reversed(values) if v is not None):.3g}" for name, values in series.items())
    with panel(f"{title} over {len(epochs)} epochs; at the last: {last}") as drawn:
        axes = drawn.axes
        lines(axes, epochs, series)
        axes.axvline(m.kept_epoch, color=GREY, linewidth=1, linestyle=":")
        if log:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, high / 10), max(high, 3 * low))
        elif span is not None:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, span[0] - 0.05), max(high, span[1] + 0.05))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        titled(axes, title, "epoch", y)
        if len(series) > 1:
            legend(axes)
    return drawn.picture


def _findings(m: Material) -> list[Finding]:
    """What `monitor.warnings` says of every epoch, and signs of an end that came too early."""
    seen: dict[str, list[int]] = {}
    messages: dict[str, str] = {}
    for record in m.history:
        sd = {name: math.nan if value is None else value for name, value in record.get("latent_sd", {}).items()}
        state = monitor.Health(record.get("effective_components", {}), record.get("tau", {}), sd)
        gradient = record.get("copula_gradient")
        # The first epochs are given to settle; what a run keeps must have settled, however short it was.
        epoch = len(m.history) + 100 if record["epoch"] == m.kept_epoch else record["epoch"]
        for key, message in monitor.warnings(m.config, epoch, state, record.get("kl_per_modality", {}), gradient).items():
            seen.setdefault(key, []).append(record["epoch"])
            if record["epoch"] <= m.kept_epoch or key not in messages:
                messages[key] = message
    found = []
    for key, epochs in seen.items():
        text = messages[key][0].upper() + messages[key][1:]
        if m.kept_epoch in epochs:
            found.append(Finding(f"{text} (epoch {m.kept_epoch}, whose weights are kept)."))
        else:
            found.append(Finding(f"{text} (epochs {epochs[0]} to {epochs[-1]}, not at epoch {m.kept_epoch}, which is kept).", "note"))
    scored = [record["val_log_loss"] for record in m.history if record.get("val_log_loss") is not None]
    if not scored:
        found.append(Finding("No labelled validation row: nothing stopped this fit, and all its epochs were run.", "note"))
    elif len(m.history) >= m.config.fit.epochs and m.kept_epoch == m.history[-1]["epoch"]:
        text = "The validation log-loss was lowest at the last epoch: more epochs (fit --resume --set fit.epochs=…) may give less."
        found.append(Finding(text, "note"))
    return found

"""What was fitted, and how its numbers are to be taken."""

from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Finding, Section, Table


def section(m: Material) -> Section:
    """The config in words, and the notes that hold for everything below."""
    config, prior, fit = m.config, m.config.prior, m.config.fit
    copula = prior.copula
    family = f"{copula.family} of {', '.join(copula.families)}" if copula.families else copula.family
    rows: list[tuple[Cell, ...]] = [
        ("outcome", f"{config.task.type}, {', '.join(config.task.columns)}" + (f" (classes {', '.join(m.classes)})" if m.classes else "")),
        ("latent dimensions per modality", str(m.dim)),
        (
            "mixture",
            f"{prior.components} components per modality, coupling {prior.coupling}: {m.mixture.joint_components} joint components",
        ),
        ("copula", f"{family}, {'one for all latent dimensions' if copula.tied else 'one per latent dimension'}, update {copula.update}"),
        ("guide", f"local {config.guide.local}, missing {config.guide.missing}, globals {config.guide.globals}"),
        ("fusion", config.fusion.kind),
        ("missingness", config.missingness.model),
        ("beta, weight of the KL", f"{fit.beta:g}"),
        ("epochs", f"{len(m.history)} of {fit.epochs}; the weights of epoch {m.kept_epoch} are kept"),
        ("seed", str(fit.seed)),
    ]
    if m.source.versions:
        rows.append(("versions", ", ".join(f"{name} {value}" for name, value in m.source.versions.items())))
    modalities = tuple(
        (name, own.kind, own.encoder, int(m.observed[:, i].sum()), f"{float(m.observed[:, i].float().mean()):.0%}" if len(m.z) else "–")
        for i, (name, own) in enumerate(zip(m.names, config.modalities.values(), strict=True))
    )
    parts = (
        Table(("", "value"), tuple(rows), "The fit."),
        Table(
            ("modality", "kind", "encoder", "rows that have it", "share"),
            modalities,
            f"Modalities, in the {len(m.z):,} rows of this report.",
        ),
    )
    return Section("fit", "What was fitted", parts, tuple(_notes(m)))


def _notes(m: Material) -> list[Finding]:
    config, fit = m.config, m.config.fit
    found: list[Finding] = []

    def note(text: str) -> None:
        found.append(Finding(text, "note"))

    if not m.source.complete:
        found.append(Finding("The fit was cut before its end: what is shown are its best weights so far; cm2pyro fit --resume goes on."))
    if m.source.members > 1:
        note(
            f"An ensemble of {m.source.members} fits: latents, mixture, copula and curves are those of the first, whose latent space is "
            "its own; predictions are those of all."
        )
    if fit.beta < 1:
        note(
            f"beta is {fit.beta:g}, below 1: the latents of n rows inform mixture and copula as {fit.beta:g} n would. Intervals of these "
            "global parameters are tempered, not posterior intervals given the data."
        )
    learned = [name for name in m.names if name not in m.given]
    if learned:
        note(
            f"The latents of {', '.join(learned)} are what encoders have learned: tau and components describe these representations, "
            "not nature. Another seed gives others."
        )
    if fit.settle:
        note("fit.settle: after the last epoch the mixture moved to the greatest density of the latents; the curves show it before that.")
    if config.prior.copula.update == "ifm":
        note("The copula was estimated in a second step, after the epochs: over the epochs its parameter stands at its start.")
    if config.missingness.model != "ignorable":
        note("The selection model is identified by its assumption alone: no data can tell whether missingness depends on latents so.")
    return found

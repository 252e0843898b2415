"""Which modalities the rows have."""

import numpy as np

from cm2pyro.diagnostics.report.material import Material
from cm2pyro.diagnostics.report.parts import Cell, Finding, Section, Table
from cm2pyro.diagnostics.resampling import pattern_keys, patterns

PATTERNS = 16
_FEW = 20  # rows of a pattern below which its figures say little


def section(m: Material) -> Section:
    """A table of patterns with outcome and prediction, and one of pairs."""
    n = len(m.z)
    keys = pattern_keys(m.observed.numpy(), m.names, n)
    found, place = patterns(keys)
    counts = np.bincount(place, minlength=len(found))
    columns = ["observed", "rows", "share", *_outcome_columns(m)]
    rows: list[tuple[Cell, ...]] = []
    for k, pattern in enumerate(found[:PATTERNS]):
        rows.append((_text(pattern, m.names), int(counts[k]), f"{counts[k] / n:.1%}", *_outcome(m, np.flatnonzero(place == k))))
    if len(found) > PATTERNS:
        rest = place >= PATTERNS
        text = f"{len(found) - PATTERNS} other patterns"
        rows.append((text, int(rest.sum()), f"{rest.mean():.1%}", *_outcome(m, np.flatnonzero(rest))))
    caption = "Rows by what is observed, the most frequent first. " + _said(m)
    seen = m.observed.double()
    together = (seen.T @ seen).long().tolist()
    pairs = Table(
        ("rows with", *m.names),
        tuple((name, *together[i]) for i, name in enumerate(m.names)),
        "Rows that have both modalities; on the diagonal, rows that have the one.",
    )
    table = Table(tuple(columns), tuple(rows), caption)
    findings = _findings(dict(zip(found, counts.tolist(), strict=True)))
    return Section("missingness", "Missingness patterns", (table, pairs) if len(m.names) > 1 else (table,), tuple(findings))


def _text(key: str, names: tuple[str, ...]) -> str:
    if key == "none":
        return "nothing observed"
    there = key.split(";")
    if len(there) == len(names) > 1:
        return "all modalities"
    return " + ".join(there)


def _outcome_columns(m: Material) -> list[str]:
    if m.evaluation is None:
        return []
    return {
        "binary": ["labelled", "outcome, mean", "predicted, mean", "sd of the probability"],
        "regression": ["labelled", "outcome, mean", "predicted, mean", "sd of the prediction"],
    }.get(m.config.task.type, ["labelled", "sd of the probabilities"])


def _outcome(m: Material, rows: np.ndarray) -> list[Cell]:
    """Of the labelled among these rows (positions)."""
    e = m.evaluation
    if e is None:
        return []
    own = np.flatnonzero(np.isin(m.labelled, rows))
    if not len(own):
        return [0, *[None] * (len(_outcome_columns(m)) - 1)]
    if m.config.task.type == "binary":
        return [len(own), float(e.labels[own].mean()), float(e.probabilities[own].mean()), float(e.prediction.sd[own, 1].mean())]
    if m.config.task.type == "regression":
        return [len(own), float(e.labels[own].mean()), float(e.prediction.mean[own, 0].mean()), float(e.prediction.sd[own, 0].mean())]
    return [len(own), float(e.prediction.sd[own].mean())]


def _said(m: Material) -> str:
    if m.evaluation is None:
        return "No row has a label."
    return (
        "Of the labelled ones: the mean outcome beside the mean prediction, and the mean sd of predictions over draws, which should grow "
        "with what is missing. Outcome and prediction of a pattern apart: the model is wrong for such rows."
    )


def _findings(counts: dict[str, int]) -> list[Finding]:
    found = []
    few = {key: n for key, n in counts.items() if n < _FEW}
    if few:
        found.append(
            Finding(
                f"{len(few)} of {len(counts)} missingness patterns have fewer than {_FEW} rows ({sum(few.values())} rows together): what "
                "is said of such rows one by one rests on the model rather than on others like them.",
                "note",
            )
        )
    nothing = counts.get("none", 0)
    if nothing:
        found.append(Finding(f"{nothing:,} rows have no modality at all: their prediction is that of the prior.", "note"))
    return found

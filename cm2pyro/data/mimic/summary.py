"""What `cm2pyro prepare mimic3|mimic4` did, as lines for a person and as JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cm2pyro.data.mimic.cohort import Step
from cm2pyro.data.mimic.values import Counts

__all__ = ["Summary"]

_MOST_CODES = 5  # named in a line; all are in prepared.json


@dataclass(frozen=True)
class Summary:
    """Counts of everything that was kept and left out.

    Attributes:
        steps: the exclusions in order. notes: lines about single rows. labels: positive stays by label. flags_differ: stays whose
            HOSPITAL_EXPIRE_FLAG says otherwise than label_mortality. unknown_codes: rows by diagnosis code ('' where it is absent) that
            is in no category, and so teaches no phenotype. counts: of the events. coverage: stays that have a variable.
        modalities: counts of the linked modalities. files: what these wrote.
    """

    out: Path
    source: str
    hours: float
    pairs: str
    splits: dict[str, int]
    patients: int
    steps: list[Step]
    notes: list[str]
    labels: dict[str, int]
    flags_differ: int
    unknown_codes: dict[str, int]
    counts: Counts
    coverage: dict[str, int]
    modalities: dict[str, dict[str, int]]
    files: list[str]

    @property
    def stays(self) -> int:
        """Rows of the manifest."""
        return sum(self.splits.values())

    def lines(self) -> list[str]:
        """Plain lines for a person."""
        n, counts = self.stays, self.counts
        shares = {name: f"{count:,} ({count / n:.1%})" for name, count in self.labels.items()}
        phenotypes = [count for name, count in self.labels.items() if name not in ("label_mortality", "label_readmission")]
        read = sum(counts.read.values())
        lines = [
            f"wrote {self.out}: manifest.csv, vitals.parquet, static.parquet"
            + "".join(f", {file}" for file in self.files)
            + ", prepared.json",
            *(step.line() for step in self.steps),
            *self.notes,
            f"samples: {n:,} stays, {self.patients:,} patients; " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()),
            f"labels: mortality {shares['label_mortality']}, readmission {shares['label_readmission']}"
            + (f", {len(phenotypes)} phenotypes, {sum(phenotypes) / n:.1f} a stay" if phenotypes else "")
            + f"; the hospital's own flag of death differs for {self.flags_differ:,}",
            f"values: {sum(counts.kept.values()):,} of {read:,} rows of the 17 variables ({_listed(counts.read)}); "
            f"given to a stay by patient and time: {_listed(counts.assigned)}; "
            f"height and weight from just before the stay: {_listed(counts.early)}",
            f"dropped rows: {_listed(counts.dropped)}",
        ]
        for what, counter in (("impossible", counts.impossible), ("unreadable", counts.unreadable), ("unknown units", counts.units)):
            if counter:
                lines.append(f"{what}: {_listed(counter)}")
        if self.unknown_codes:
            often = dict(sorted(self.unknown_codes.items(), key=lambda item: -item[1])[:_MOST_CODES])
            named = ", ".join(f"{code or '(empty)'} {count:,}" for code, count in often.items())
            lines.append(
                f"diagnosis codes in no category, so of no phenotype: {len(self.unknown_codes):,} codes, "
                f"{sum(self.unknown_codes.values()):,} rows ({named}{', …' if len(often) < len(self.unknown_codes) else ''})"
            )
        lines.append("stays with a variable: " + ", ".join(f"{name} {count / n:.0%}" for name, count in self.coverage.items()))
        lines += [f"{name}: {_listed(found)}" for name, found in self.modalities.items()]
        return lines

    def content(self) -> dict[str, Any]:
        """Plain JSON; without the folder, which can be moved."""
        content: dict[str, Any] = {"source": self.source, "stays": self.stays} | vars(self)
        del content["out"]
        content["steps"] = [asdict(step) for step in self.steps]
        content["counts"] = {name: dict(counter) for name, counter in vars(self.counts).items()}
        return content


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()) or "none"

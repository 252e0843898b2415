"""What a report is made of: plain values, no HTML."""

from dataclasses import dataclass
from typing import ClassVar, Literal

Cell = str | int | float | None


@dataclass(frozen=True)
class Finding:
    """One line that a reader should see first. `warning`: something looks wrong; `note`: how what is shown is to be taken."""

    text: str
    level: Literal["warning", "note"] = "warning"


@dataclass(frozen=True)
class Picture:
    """A PNG. alt: what it shows, for those who do not see it. label: a few words under it."""

    png: bytes
    alt: str
    label: str = ""


@dataclass(frozen=True)
class Figure:
    """Pictures with one caption. read: what one reads from them. bad: what would be a bad sign."""

    kind: ClassVar[str] = "figure"
    pictures: tuple[Picture, ...]
    read: str
    bad: str


@dataclass(frozen=True)
class Table:
    """Cells in rows; numbers are shown with three decimals, whole ones without, None as a dash."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str


Part = str | Figure | Table


@dataclass(frozen=True)
class Section:
    """A part of the report under its own heading.

    Attributes:
        key: unique in a report, letters, digits and hyphens; the anchor of links. title: heading.
        parts: paragraphs, figures and tables, in order. findings: listed at the top of the report, with a link here.
    """

    key: str
    title: str
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Report:
    """title: of the page. subtitle: what it is about, one line. sections: in order."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def findings(self, level: str) -> list[tuple[Section, Finding]]:
        """Those of a level, with the section that they belong to."""
        return [(section, finding) for section in self.sections for finding in section.findings if finding.level == level]

"""Text that a spreadsheet would run: in ids it is refused, in the notes and credits that `prepare` copies it is made inert."""

import re

_START = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-][0-9]+([.][0-9]+)?", re.ASCII)


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula. -12 and +1.5 are numbers, to it as well."""
    return cell.startswith(_START) and _NUMBER.fullmatch(cell) is None


def inert(cell: str) -> str:
    """The same text, after a space where it is a formula: readers of notes drop the space, and to a spreadsheet it is text."""
    return f" {cell}" if is_formula(cell) else cell

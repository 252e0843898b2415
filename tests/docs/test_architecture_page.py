"""The diagram of docs/architecture.md is what the imports are."""

import re
from pathlib import Path

import pytest

from docs.make_figures import depths, draw_architecture, imports, reduced

AGAIN = "run `python docs/make_figures.py`, and mend docs/architecture.md"


def drawn(picture: str) -> set[tuple[str, str]]:
    """The diagram's arrows."""
    return {(importer, imported) for importer, imported in re.findall(r'<g id="([^"]+?)--([^"]+?)">', picture)}


def test_arrows_are_the_imports(root: Path) -> None:
    edges = imports(root / "cm2pyro")
    found = drawn((root / "docs" / "architecture.svg").read_text(encoding="utf-8"))
    assert found == {(importer, imported) for importer, targets in reduced(edges).items() for imported in targets}, AGAIN


def test_every_room_stands_in_the_diagram_and_in_the_table(root: Path) -> None:
    rooms = set(imports(root / "cm2pyro"))
    picture = (root / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert rooms <= set(re.findall(r">([^<>]+)</text>", picture)), AGAIN
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {first.replace("`", "") for first in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)}
    assert named == rooms


@pytest.mark.slow
def test_rooms_cover_every_file(root: Path) -> None:
    """But for the package's own name and its entry: nothing is left out of the diagram."""
    package = root / "cm2pyro"
    parts = {path.relative_to(package).parts[0].removesuffix(".py") for path in package.rglob("*.py")} - {"__init__", "__main__"}
    rooms = {part for room in imports(package) for part in room.split(", ")}
    assert {"config" if part.startswith("config") else part for part in parts} == rooms


def test_what_the_diagram_is_made_of(tmp_path: Path) -> None:
    package = tmp_path / "small"
    for name, text in {
        "top/a.py": "from small.middle import b\ndef late():\n    from small.low import c\n",
        "middle/b.py": "from typing import TYPE_CHECKING\nfrom small import low\nif TYPE_CHECKING:\n    from small.top import a\n",
        "low.py": "import os\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    edges = imports(package)
    assert edges == {"top": {"middle", "low"}, "middle": {"low"}, "low": set()}
    assert reduced(edges) == {"top": {"middle"}, "middle": {"low"}, "low": set()}
    assert depths(edges) == {"top": 0, "middle": 1, "low": 2}
    draw_architecture(edges, tmp_path / "small.svg")
    assert drawn((tmp_path / "small.svg").read_text()) == {("top", "middle"), ("middle", "low")}
    with pytest.raises(ValueError, match="circle among"):
        depths(edges | {"low": {"top"}})

"""The page: everything escaped, nothing from elsewhere, warnings first."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cm2pyro.diagnostics.report.page import cell, to_html, write
from cm2pyro.diagnostics.report.parts import Figure, Finding, Picture, Report, Section, Table
from cm2pyro.diagnostics.report.pictures import component_color, legend, panel, points
from cm2pyro.errors import DataError

EVIL = "<script>document.title='ran'</script>\"'><img src=x onerror=\"document.title='ran'\">{{ 7*7 }}&amp;"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def evil_report() -> Report:
    """Foreign text in every place that takes text."""
    with panel(EVIL, EVIL) as drawn:
        drawn.axes.plot([0, 1], [0, 1])
    picture = Picture(drawn.picture.png, EVIL, EVIL)
    parts = (EVIL, Figure((picture,), EVIL, EVIL), Table((EVIL, "b"), ((EVIL, 1), (EVIL, None)), EVIL))
    findings = (Finding(EVIL, "note"), Finding(EVIL))
    return Report(EVIL, EVIL, (Section("one", EVIL, parts, findings), Section("two", "Two", ("plain",), (Finding("later"),))))


def test_foreign_text_is_text() -> None:
    html = to_html(evil_report())
    tags = parsed(html)
    assert not [tag for tag, _ in tags.tags if tag in ("script", "iframe", "object", "embed", "form", "base")]
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    images = [attributes for tag, attributes in tags.tags if tag == "img"]
    assert [image["alt"] for image in images] == [EVIL]
    shown = sum(text.count(EVIL) for text in tags.text)
    assert shown == html.count("&lt;script&gt;document") - 2  # two stand in attributes, alt and aria-label
    assert shown > 15
    assert "49" not in "".join(tags.text)


def test_nothing_comes_from_elsewhere() -> None:
    html = to_html(evil_report())
    for _, attributes in parsed(html).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in html


def test_links_lead_to_sections_and_warnings_stand_before_notes() -> None:
    html = to_html(evil_report())
    tags = parsed(html)
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for tag, a in tags.tags if tag == "a"} == {"#one", "#two"} <= {f"#{key}" for key in ids}
    levels = [a.get("class") for tag, a in tags.tags if tag == "li" and a.get("class")]
    assert levels == ["warning", "warning", "note"]
    assert html.index('class="findings"') < html.index("<nav") < html.index('id="one"')


def test_a_report_without_warnings_says_so() -> None:
    assert "No warning." in to_html(Report("t", "s", (Section("a", "A", ("p",)),)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (1234, "1,234"),
        (0.12345, "0.123"),
        (0.0, "0.000"),
        (1e-5, "1.0e-05"),
        (-2.5, "-2.500"),
        ("a", "a"),
    ],
)
def test_cells(value: str | int | float | None, text: str) -> None:
    assert cell(value) == text


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write(evil_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == to_html(evil_report())
    with pytest.raises(DataError, match="cannot be written"):
        write(evil_report(), tmp_path / "no" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_palette_keeps_the_colours_of_points_and_densities() -> None:
    """A legend's marker of exactly its colour, and no pixel far from what was drawn."""
    with panel("a") as drawn:
        axes = drawn.axes
        axes.contourf(np.add.outer(np.arange(50.0), np.arange(50.0)), levels=30, cmap="Blues", alpha=0.55)
        points(axes, np.random.default_rng(0).random((400, 2)) * 50, np.arange(400) % 4, 4)
        legend(axes)
    plain = io.BytesIO()
    FigureCanvasAgg(drawn.figure).print_png(plain)
    before, after = (np.asarray(Image.open(raw).convert("RGB")).astype(int) for raw in (plain, io.BytesIO(drawn.picture.png)))
    assert np.abs(before - after).mean() < 1
    for k in range(4):
        own = np.array(list(bytes.fromhex(component_color(k)[1:])))
        where = (before == own).all(-1)
        assert where.sum() > 20
        assert (after[where] == own).all()
    assert len(drawn.picture.png) < len(plain.getvalue()) / 2

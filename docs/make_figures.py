"""Draws the diagrams of these pages: the model's plates, and the package's rooms from their imports.

python docs/make_figures.py          # from the project's folder; writes docs/plate.svg and docs/architecture.svg
"""

import ast
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

ROOT = Path(__file__).resolve().parents[1]
BLUE, ORANGE, GREY, PALE = "#0072B2", "#D55E00", "#6E6E6E", "#E8F0F6"
_HELPERS = ("files", "logs", "noise", "shipped")
Edges = dict[str, set[str]]


# --- rooms and their imports ---------------------------------------------------------------------------------------


def room_of(path: Path, package: Path) -> str:
    """The part of the package that a file belongs to; the files of the config are one, and so are the smallest helpers."""
    name = path.relative_to(package).parts[0].removesuffix(".py")
    name = "config" if name.startswith("config") else name
    return ", ".join(_HELPERS) if name in _HELPERS else name


def imports(package: Path) -> Edges:
    """room -> the rooms that it imports, at the head of a file or inside a function. Left out are names for the type checker alone and
    `cm2pyro` itself, which hands on what `api` has."""
    found: Edges = {}
    for path in package.rglob("*.py"):
        if path.parent == package and path.stem in ("__init__", "__main__"):
            continue
        room = room_of(path, package)
        targets = found.setdefault(room, set())
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {id(inner) for node in ast.walk(tree) if _for_types(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in typing_only and (node.module or "").split(".")[0] == package.name:
                parts = str(node.module).split(".")[1:]
                names = parts[:1] or [alias.name for alias in node.names]
                targets |= {room_of(package / name, package) for name in names if _is_room(package / name)}
    return {room: targets - {room} for room, targets in found.items()}


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_room(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").exists()


def reduced(edges: Mapping[str, set[str]]) -> Edges:
    """The fewest arrows from which the others follow: a -> c is left out where a -> b -> … -> c is there."""

    def reach(room: str) -> set[str]:
        return set().union(edges[room], *(reach(other) for other in edges[room]))

    return {room: {t for t in targets if not any(t in reach(other) for other in targets - {t})} for room, targets in edges.items()}


def depths(edges: Mapping[str, set[str]]) -> dict[str, int]:
    """room -> length of the longest way to it from a room that nobody imports."""
    found: dict[str, int] = {}
    importers = {room: {other for other in edges if room in edges[other]} for room in edges}
    while len(found) < len(edges):
        ready = {room for room in edges if room not in found and importers[room] <= set(found)}
        if not ready:
            raise ValueError(f"imports go in a circle among {sorted(set(edges) - set(found))}")
        found |= {room: 1 + max((found[other] for other in importers[room]), default=-1) for room in ready}
    return found


def draw_architecture(edges: Mapping[str, set[str]], path: Path) -> None:
    """Rooms as boxes, importers above what they import, and the reduced arrows; an arrow's id is `importer--imported`."""
    depth, arrows = depths(edges), reduced(edges)
    place: dict[str, tuple[float, float]] = {}
    for n in range(max(depth.values()) + 1):
        row = sorted(room for room in edges if depth[room] == n)
        above = [place[room][0] for room in arrows if row[0] in arrows[room]]
        centre = sum(above) / len(above) if len(row) == 1 and above else 0.0
        place |= {room: (centre + 2.6 * (i - (len(row) - 1) / 2), -0.85 * n) for i, room in enumerate(row)}
    ax = _axes(7.2, 0.72 * (n + 1))
    for importer, targets in sorted(arrows.items()):
        for imported in sorted(targets):
            (x0, y0), (x1, y1) = place[importer], place[imported]
            arrow = FancyArrowPatch((x0, y0 - 0.27), (x1, y1 + 0.27), arrowstyle="-|>", mutation_scale=11, color=GREY, lw=1.1)
            arrow.set_gid(f"{importer}--{imported}")
            ax.add_patch(arrow)
    for room, (x, y) in place.items():
        ax.add_patch(FancyBboxPatch((x - 1.0, y - 0.2), 2.0, 0.4, boxstyle="round,pad=0.04", fc=PALE, ec=BLUE, lw=1.2))
        ax.text(x, y, room, ha="center", va="center", fontsize=10 if len(room) < 20 else 8.5)
    _save(ax, path)


# --- the model's plates ----------------------------------------------------------------------------------------------


_NODES = {  # name: place, symbol, what it is, where that stands, whether it is seen
    "w": ((0.0, 2.1), "w", "weights", (0.0, 2.58), False),
    "copula": ((2.0, 2.1), "θ", "copula", (2.0, 2.58), False),
    "locs": ((3.2, 2.1), "μ", "locs", (3.2, 2.58), False),
    "scales": ((4.4, 2.1), "σ", "scales", (4.4, 2.58), False),
    "head": ((6.2, 2.1), "φ", "fusion, head", (6.2, 2.58), False),
    "t": ((0.0, 0.1), "t", "component", (0.0, -0.45), False),
    "z": ((3.2, 0.1), "z", "latent", (3.85, 0.32), False),
    "r": ((2.0, -1.0), "r", "there or not", (2.1, -1.55), True),
    "x": ((4.4, -1.0), "x", "pooled input", (4.3, -1.55), True),
    "y": ((6.2, 0.1), "y", "outcome", (6.2, -0.45), True),
}
_ARROWS = [("w", "t"), ("t", "z"), ("copula", "z"), ("locs", "z"), ("scales", "z"), ("z", "y"), ("head", "y")]
_OPTIONAL = [("z", "r"), ("z", "x")]  # where a selection model or decoders are asked for


def draw_plate(path: Path) -> None:
    """The generative model: global sites, the plate over samples, the plate over modalities; what is seen is grey."""
    ax = _axes(8.0, 5.4)
    for x, y, width, height, text in ((-0.9, -2.75, 8.0, 3.75, "samples i = 1 … N"), (1.35, -2.15, 3.8, 2.9, "modalities m = 1 … M")):
        ax.add_patch(Rectangle((x, y), width, height, fill=False, ec=GREY, lw=1.2))
        ax.text(x + width - 0.1, y + 0.1, text, ha="right", va="bottom", fontsize=9, color=GREY)
    for a, b in _ARROWS + _OPTIONAL:
        _arrow(ax, _NODES[a][0], _NODES[b][0], (a, b) in _OPTIONAL)
    for (x, y), symbol, text, where, seen in _NODES.values():
        ax.add_patch(Circle((x, y), 0.34, fc="#D0D0D0" if seen else "white", ec="black", lw=1.3, zorder=3))
        ax.text(x, y, symbol, ha="center", va="center", fontsize=13, style="italic", zorder=4)
        ax.text(*where, text, ha="center", va="center", fontsize=9, color=BLUE)
    ax.set(xlim=(-1.1, 7.3), ylim=(-2.85, 2.8))
    _save(ax, path)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], dotted: bool) -> None:
    length = ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
    dx, dy = 0.37 * (end[0] - start[0]) / length, 0.37 * (end[1] - start[1]) / length
    ends = (start[0] + dx, start[1] + dy), (end[0] - dx, end[1] - dy)
    look = (ORANGE, "--") if dotted else ("black", "-")
    ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=12, lw=1.2, shrinkA=0, shrinkB=0, color=look[0], ls=look[1]))


def _axes(width: float, height: float) -> Axes:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    ax = figure.add_subplot()
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _save(ax: Axes, path: Path) -> None:
    ax.autoscale_view()
    # Text stays text, and the file the same from one run to the next.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cm2pyro", "font.family": "sans-serif"}):
        ax.figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw_plate(ROOT / "docs" / "plate.svg")
    draw_architecture(imports(ROOT / "cm2pyro"), ROOT / "docs" / "architecture.svg")

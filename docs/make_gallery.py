"""Makes the pictures of docs/gallery.md that cost little: about two minutes on one core.

python docs/make_gallery.py          # from the project's folder
"""

import contextlib
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from cm2pyro.cli import main
from cm2pyro.distributions import FAMILIES, make_copula

DOCS = Path(__file__).resolve().parent
CONFIGS = DOCS.parent / "configs"


def call(*words: object) -> None:
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        if stop.code:
            raise


def fitted() -> None:
    """Figures that the commands draw, of fits to simulated patients; titles name the files, so they are where a reader has them."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        data = ("--data", "sim/manifest.csv")
        call("simulate", "sim", "--samples", 1500, "--missing", 0.4, "--mechanism", "mnar")
        call("fit", CONFIGS / "simulated.yaml", *data, "--out", "run")
        call("evaluate", "run", *data, "--out", "m.json", "--figure", DOCS / "gallery_reliability.png", "--bootstrap", 300)
        call("predict", "run", *data, "--split", "test", "--out", "p.csv", "--report", "r.csv", "--figure", DOCS / "gallery_spread.png")
        call("fit", CONFIGS / "simulated-embedding.yaml", *data, "--out", "given")
        delta = ("--delta", "-2,-1,-0.5,0,0.5,1,2", "--delta-figure", DOCS / "gallery_delta.png")
        call("evaluate", "given", *data, "--out", "m.json", *delta, "--bootstrap", 300)


def copulas(path: Path) -> None:
    """Contours of every family's density with standard normal margins, at |tau| 0.5."""
    axis = torch.linspace(-3, 3, 121)
    s = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(s).sum(-1)
    figure = Figure(figsize=(9, 9.4), layout="constrained")
    for ax, family in zip(figure.subplots(4, 4, sharex=True, sharey=True).flat, FAMILIES.names(), strict=False):
        tau = 0.0 if family == "independence" else -0.5 if family.endswith(("_90", "_270")) else 0.5
        density = (make_copula(family, 2, tau=tau).log_prob(s) + normal).exp()
        ax.contour(axis, axis, density, levels=[0.01, 0.03, 0.06, 0.1, 0.15, 0.2], colors="#0072B2", linewidths=0.9)
        ax.set_title(f"{family}, τ = {tau:g}", fontsize=9)
        ax.set_aspect("equal")
    figure.savefig(path, dpi=90)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(16).save(path, optimize=True)  # a tenth of the size


if __name__ == "__main__":
    copulas(DOCS / "gallery_copulas.png")
    fitted()

"""Kind `image`: one picture per sample."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cm2pyro.config import Modality
from cm2pyro.data.columns import Columns, Sparse
from cm2pyro.data.kind import Kind, Learner
from cm2pyro.data.manifest import Manifest
from cm2pyro.data.pictures import read_picture
from cm2pyro.errors import ConfigError
from cm2pyro.registry import one_line

_READERS = 4  # threads: decoding releases Python's lock
_STRIP = 8  # times as long as wide
_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG

Side = Annotated[int, Field(ge=16, le=2048)]


@dataclass(frozen=True)
class Pictures:
    """Squares of 8 bits, (R, R) grey or (3, R, R) colour, of the rows that have one, in the order of `rows`; n rows in all."""

    squares: list[Tensor]
    rows: NDArray[np.int64]
    n: int


class Image(Kind):
    """Pictures, scaled so that the shorter side has `resize` pixels, their central square kept as 8-bit levels.

    The cell names a file beside the manifest. What an encoder sees is the central `size` pixels of that square, see
    `encoders.vision.Views`. A fit to grey pictures alone reads later ones as grey; one with colour among them reads all as colour.
    """

    offers = ("pixels",)
    channels: int

    def __init__(self, name: str, modality: Modality, views: tuple[str, ...], *, size: Side = 224, resize: Side | None = None) -> None:
        super().__init__(name, modality, views)
        if modality.table is not None:
            raise ConfigError(f"modalities.{name}.table: pictures are files; name the manifest's column of paths with column")
        self.size = size
        self.side = resize if resize is not None else round(size * 256 / 224)
        if self.side < size:
            raise ConfigError(f"modalities.{name}.resize: found {self.side}, expected at least size, {size}; raise it or leave it out")

    def read(self, manifest: Manifest) -> Pictures:
        column = self.modality.column or self.name
        rows = [row for row, cell in enumerate(manifest.frame[column]) if cell != ""] if column in manifest.frame else []
        return Pictures(list(self._squares(manifest, column, rows)), np.array(rows, dtype=np.int64), len(manifest))

    def _squares(self, manifest: Manifest, column: str, rows: list[int]) -> Iterator[Tensor]:
        def square(row: int) -> Tensor:
            shown = one_line(manifest.frame[column].iloc[row])
            pixels = read_picture(manifest.file(row, column), f"{shown} ({manifest.where(row)})", self.side)
            return central_square(torch.from_numpy(np.array(pixels)), self.side)

        with ThreadPoolExecutor(_READERS) as pool:
            futures = [pool.submit(square, row) for row in rows]
            try:
                # In the order of the rows, so that the first wrong one is named.
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()

    def observed(self, raw: Pictures) -> NDArray[np.bool_]:
        seen = np.zeros(raw.n, dtype=bool)
        seen[raw.rows] = True
        return seen

    def learner(self, limit: int | None = None) -> Learner:
        return _ImageLearner(self)

    def transform(self, raw: Pictures) -> Columns:
        place = torch.full((raw.n,), -1)
        place[raw.rows] = torch.arange(len(raw.rows))
        values = torch.zeros(len(raw.squares), *self.shapes()["pixels"], dtype=torch.uint8)
        for i, square in enumerate(raw.squares):
            if square.dim() == 3 and self.channels == 1:
                square = torch.einsum("c,chw->hw", _LUMA, square.float()).round().to(torch.uint8)
            values[i] = square  # a grey one spreads over the channels
        return {"pixels": Sparse(values, place)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"pixels": (self.channels, self.side, self.side)}

    def state(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def load(self, state: dict[str, Any]) -> None:
        self.channels = int(state["channels"])
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels, expected 1 or 3")


class _ImageLearner(Learner):
    def __init__(self, kind: Image) -> None:
        self.kind, self.colour = kind, False

    def add(self, raw: Pictures, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        train = set(rows.tolist())
        self.colour |= any(square.dim() == 3 for square, row in zip(raw.squares, raw.rows, strict=True) if row in train)

    def finish(self) -> None:
        self.kind.channels = 3 if self.colour else 1


def central_square(pixels: Tensor, side: int) -> Tensor:
    """(H, W) or (H, W, 3) levels -> (side, side) or (3, side, side): shorter side scaled to `side`, the centre kept."""
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    channels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    # Of a strip the middle alone is scaled: 16 by 6 million pixels would become billions.
    longest = _STRIP * min(channels.shape[-2:])
    channels = F.center_crop(channels, [min(n, longest) for n in channels.shape[-2:]])
    square = F.center_crop(F.resize(channels.contiguous(), [side], antialias=True), [side, side])
    return square[0] if pixels.dim() == 2 else square
